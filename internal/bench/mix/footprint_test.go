package mix

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/bench/report"
)

func TestFootprintAsksForAGarbageCollection(t *testing.T) {
	collected := 0
	metrics := "# HELP x y\ngo_memstats_heap_alloc_bytes 2.097152e+06\ngo_goroutines 17\n" +
		"ieum_signaling_sessions 3\nieum_signaling_rooms 2\n"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/debug/pprof/heap" && r.URL.Query().Get("gc") == "1":
			collected++
		case r.URL.Path == "/metrics":
			_, _ = w.Write([]byte(metrics))
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	var h Footprint
	if err := h.ask(t.Context(), s.URL); err != nil ||
		h != (Footprint{HeapKB: 2048, Goroutines: 17, Sessions: 3, Rooms: 2}) ||
		collected != 2 {
		t.Errorf("%+v, %v, %d collections", h, err, collected)
	}
	metrics = strings.Replace(metrics, "go_goroutines 17\n", "", 1)
	if err := h.ask(t.Context(), s.URL); err == nil ||
		!strings.Contains(err.Error(), "go_goroutines") {
		t.Errorf("error %v", err)
	}
	if err := h.ask(t.Context(), s.URL+"/elsewhere"); err == nil ||
		!strings.Contains(err.Error(), "--admin-pprof") {
		t.Errorf("error %v", err)
	}
}

func TestGrowthIsTold(t *testing.T) {
	before := Footprint{RSSKB: 40_000, HeapKB: 17_000, Goroutines: 1018, Sessions: 1000, Rooms: 320}
	for name, c := range map[string]struct {
		change func(*Footprint)
		chats  int64
		want   string
	}{
		"nothing": {func(*Footprint) {}, 0, ""},
		"less": {func(h *Footprint) {
			h.RSSKB, h.HeapKB, h.Sessions = 1, 1, 1
		}, 0, ""},
		"as much as chance": {func(h *Footprint) {
			h.RSSKB += 8000
			h.HeapKB += 850
			h.Goroutines += 16
		}, 0, ""},
		"heap": {func(h *Footprint) {
			h.HeapKB += 900
		}, 0, "KB of heap grew from 17000 to 17900"},
		"heap by chat messages": {func(h *Footprint) { h.HeapKB += 900 }, 1000, ""},
		"heap by more than chat messages": {func(h *Footprint) {
			h.HeapKB += 1100
		}, 1000, "KB of heap"},
		"resident memory": {func(h *Footprint) {
			h.RSSKB += 8200
		}, 0, "resident memory"},
		"a goroutine for every login": {func(h *Footprint) { h.Goroutines += 17 }, 0, "goroutines"},
		"a session":                   {func(h *Footprint) { h.Sessions++ }, 0, "sessions"},
		"a room":                      {func(h *Footprint) { h.Rooms++ }, 0, "rooms"},
	} {
		t.Run(name, func(t *testing.T) {
			after := before
			c.change(&after)
			err := Report{
				Before:     &before,
				After:      &after,
				Operations: map[string]report.Latency{"chat": {Count: c.chats}},
			}.Grown()
			if (err != nil) != (c.want != "") ||
				err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if err := (Report{}).Grown(); err != nil {
		t.Errorf("of what was not measured: %v", err)
	}
}
