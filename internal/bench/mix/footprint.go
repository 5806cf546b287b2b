package mix

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

// Footprint is what a server holds while its clients are idle. Fields that were not measured are
// zero.
type Footprint struct {
	RSSKB      int `json:"rssKB,omitempty"`      // resident memory
	HeapKB     int `json:"heapKB,omitempty"`     // after a garbage collection
	Goroutines int `json:"goroutines,omitempty"` // including those that serve this request
	Sessions   int `json:"sessions,omitempty"`
	Rooms      int `json:"rooms,omitempty"`
}

// How much more a server may hold after all of a load than after one third of it.
const (
	heapSlackKB     = 512  // pools and buffers vary: 150 KB was seen
	heapSlackShare  = 0.02 // tables reach their full size late
	chatKB          = 0.2  // per delivered chat message: rooms keep the last 64 for resuming
	rssSlackKB      = 4096
	rssSlackShare   = 0.1 // a third of the heap may be garbage, so its peak moves by chance
	goroutinesSlack = 16  // timers, and goroutines that are just ending
)

// Grown reports what the server holds more of after all of a load than after one third of it. The
// users were the same, so joins, leaves, messages or connections have left it behind. Nil when
// nothing was measured, or nothing has grown.
func (r Report) Grown() error {
	if r.Before == nil || r.After == nil {
		return nil
	}
	var errs []error
	bounded := func(what string, before, after int, slack float64) {
		if float64(after) > float64(before)+slack {
			const format = "%s grew from %d to %d, by more than %.0f"
			errs = append(errs, fmt.Errorf(format, what, before, after, slack))
		}
	}
	chatSlack := chatKB * float64(r.Operations[operationNames[opChat]].Count)
	heapSlack := heapSlackKB + heapSlackShare*float64(r.Before.HeapKB) + chatSlack
	rssSlack := rssSlackKB + rssSlackShare*float64(r.Before.RSSKB) + chatSlack
	bounded("KB of heap", r.Before.HeapKB, r.After.HeapKB, heapSlack)
	bounded("KB of resident memory", r.Before.RSSKB, r.After.RSSKB, rssSlack)
	bounded("goroutines", r.Before.Goroutines, r.After.Goroutines, goroutinesSlack)
	bounded("sessions", r.Before.Sessions, r.After.Sessions, 0)
	bounded("rooms", r.Before.Rooms, r.After.Rooms, 0)
	return errors.Join(errs...)
}

// footprint measures the server, as far as the configuration says how; nil: not at all.
func (m *mixer) footprint(ctx context.Context) (*Footprint, error) {
	if m.server == 0 && m.cfg.Admin == "" {
		return nil, nil
	}
	var h Footprint
	if m.cfg.Admin != "" {
		if err := h.ask(ctx, m.cfg.Admin); err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
	}
	if m.server == 0 {
		return &h, nil
	}
	var err error
	h.RSSKB, _, err = m.server.Settle(ctx, m.cfg.Settle)
	return &h, err
}

// ask collects garbage and reads the metrics. It collects twice, since a sync.Pool keeps its
// objects for one collection.
func (h *Footprint) ask(ctx context.Context, admin string) error {
	for range 2 {
		ignore := func(io.Reader) error { return nil }
		if err := get(ctx, admin+"/debug/pprof/heap?gc=1", ignore); err != nil {
			return fmt.Errorf("%w (was the server started with --admin-pprof?)", err)
		}
	}
	return get(ctx, admin+"/metrics", h.read)
}

func (h *Footprint) read(metrics io.Reader) error {
	var heap int
	values := map[string]*int{
		"go_memstats_heap_alloc_bytes": &heap,
		"go_goroutines":                &h.Goroutines,
		"ieum_signaling_sessions":      &h.Sessions,
		"ieum_signaling_rooms":         &h.Rooms,
	}
	for lines := bufio.NewScanner(metrics); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		to := values[name]
		if to == nil {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("metric %s is %q", name, value)
		}
		*to = int(f)
		delete(values, name)
	}
	for name := range values {
		return fmt.Errorf("there is no metric %s", name)
	}
	h.HeapKB = heap >> 10
	return nil
}

// get uses a connection of its own and closes it, so that no goroutine of it is counted later.
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
