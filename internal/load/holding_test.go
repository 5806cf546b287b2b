package load

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHoldingAsksForAGarbageCollection(t *testing.T) {
	collected := 0
	metrics := "# HELP x y\ngo_memstats_heap_alloc_bytes 2.097152e+06\ngo_goroutines 17\nieum_signaling_sessions 3\nieum_signaling_rooms 2\n"
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
	var h Holding
	if err := h.ask(t.Context(), s.URL); err != nil || h != (Holding{HeapKB: 2048, Goroutines: 17, Sessions: 3, Rooms: 2}) || collected != 2 {
		t.Errorf("%+v, %v, %d collections", h, err, collected)
	}
	metrics = strings.Replace(metrics, "go_goroutines 17\n", "", 1)
	if err := h.ask(t.Context(), s.URL); err == nil || !strings.Contains(err.Error(), "go_goroutines") {
		t.Errorf("error %v", err)
	}
	if err := h.ask(t.Context(), s.URL+"/elsewhere"); err == nil || !strings.Contains(err.Error(), "--admin-pprof") {
		t.Errorf("error %v", err)
	}
}

func TestFilesOfAProcess(t *testing.T) {
	limits := "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 4096                 files     \n"
	if n, err := parseFiles(limits); n != 1024 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := parseFiles(strings.Replace(limits, "1024", "unlimited", 1)); n < 1<<30 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := parseFiles("nothing"); err == nil {
		t.Error("found a limit in nothing")
	}
}
