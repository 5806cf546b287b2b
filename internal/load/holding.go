package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Holding is what a server holds while nobody does anything. Fields that were not measured are zero.
type Holding struct {
	RSSKB      int `json:"rssKB,omitempty"`      // resident memory
	HeapKB     int `json:"heapKB,omitempty"`     // of its heap what is left after a garbage collection
	Goroutines int `json:"goroutines,omitempty"` // those that serve this question included
	Sessions   int `json:"sessions,omitempty"`
	Rooms      int `json:"rooms,omitempty"`
}

// holding asks the server, when there is a way to.
func (m *mixer) holding(ctx context.Context) (*Holding, error) {
	if m.server == 0 && m.cfg.Admin == "" {
		return nil, nil
	}
	var h Holding
	if m.cfg.Admin != "" {
		if err := h.ask(ctx, m.cfg.Admin); err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
	}
	if m.server == 0 {
		return &h, nil
	}
	var err error
	h.RSSKB, _, err = m.server.settle(ctx, m.cfg.Settle)
	return &h, err
}

// ask collects garbage, twice, since pools let go of what they keep only at the second time, and reads the metrics.
func (h *Holding) ask(ctx context.Context, admin string) error {
	for range 2 {
		if err := get(ctx, admin+"/debug/pprof/heap?gc=1", func(io.Reader) error { return nil }); err != nil {
			return fmt.Errorf("%w (is the server run with --admin-pprof?)", err)
		}
	}
	return get(ctx, admin+"/metrics", h.read)
}

func (h *Holding) read(metrics io.Reader) error {
	var heap int
	figures := map[string]*int{
		"go_memstats_heap_alloc_bytes": &heap, "go_goroutines": &h.Goroutines,
		"ieum_signaling_sessions": &h.Sessions, "ieum_signaling_rooms": &h.Rooms,
	}
	for lines := bufio.NewScanner(metrics); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		to := figures[name]
		if to == nil {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("metric %s is %q", name, value)
		}
		*to = int(f)
		delete(figures, name)
	}
	for name := range figures {
		return fmt.Errorf("there is no metric %s", name)
	}
	h.HeapKB = heap >> 10
	return nil
}

// get asks on a connection of its own, so that none is left that would count.
func get(ctx context.Context, url string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	if err := read(resp.Body); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<20))
	return err
}
