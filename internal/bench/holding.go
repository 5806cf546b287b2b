package bench

import (
	"bufio"
	"context"
	"errors"
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

// What a server may hold more at the end of a load than after a third of it.
const (
	heapSlackKB      = 512  // what pools and buffers differ by from one time to the next: 150 KB was seen
	heapSlackShare   = 0.02 // tables that have grown to their size only by then
	chatKB           = 0.2  // for each member who heard a word: the last words of a room are kept for those who resume: 64 of them, so this is bounded too
	rssSlackKB       = 4096
	rssSlackShare    = 0.1 // the heap may be a third garbage, so that its peak moves by chance
	goroutinesBeside = 16  // timers and what is just ending
)

// Grown tells of what the server holds more of than it should, after all of a load than after a third of it: its members were the same, so
// it is what joins, leaves, messages or connections have left behind. nil when nothing was measured, or nothing has grown.
func (r MixReport) Grown() error {
	if r.Before == nil || r.After == nil {
		return nil
	}
	var faults []error
	bounded := func(what string, before, after int, slack float64) {
		if float64(after) > float64(before)+slack {
			faults = append(faults, fmt.Errorf("%s grew from %d to %d, by more than %.0f", what, before, after, slack))
		}
	}
	words := float64(r.Operations[kindNames[kindChat]].Count)
	b, a := *r.Before, *r.After
	bounded("KB of heap", b.HeapKB, a.HeapKB, heapSlackKB+heapSlackShare*float64(b.HeapKB)+chatKB*words)
	bounded("KB of resident memory", b.RSSKB, a.RSSKB, rssSlackKB+rssSlackShare*float64(b.RSSKB)+chatKB*words)
	bounded("goroutines", b.Goroutines, a.Goroutines, goroutinesBeside)
	bounded("sessions", b.Sessions, a.Sessions, 0)
	bounded("rooms", b.Rooms, a.Rooms, 0)
	return errors.Join(faults...)
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
