package proc

import (
	"strings"
	"testing"
	"time"
)

func TestCPUTimeOfStat(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 20 0 7"
	for name, c := range map[string]struct {
		stat string
		want time.Duration
		ok   bool
	}{
		"plain":             {"42 (ieum)" + rest, 2 * time.Second, true},
		"brackets in name":  {"42 (a ) (b) 1 2)" + rest, 2 * time.Second, true},
		"no name":           {"42 ieum", 0, false},
		"cut":               {"42 (ieum) S 1 2 3", 0, false},
		"not numbers":       {"42 (ieum) S 1 2 3 4 5 6 7 8 9 10 x y 13", 0, false},
		"nothing behind it": {"42 (ieum)", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if d, err := parseCPU([]byte(c.stat)); d != c.want || (err == nil) != c.ok {
				t.Errorf("%v, %v", d, err)
			}
		})
	}
}

func TestResidentMemoryOfRollup(t *testing.T) {
	const head = "00400000-7ffd6f8d2000 ---p 00000000 00:00 0                          [rollup]\n"
	for text, want := range map[string]int{
		head + "Rss:                1620 kB\nPss:                 199 kB\n": 1620,
		head + "Pss:                 199 kB\n":                              -1,
		head + "Rss:                1620 MB\n":                              -1,
		"":                                                                  -1,
	} {
		n, err := parseRSS(text)
		if err != nil {
			n = -1
		}
		if n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
	}
}

func TestMemoryIsStableWhenAWindowOfSamplesAgrees(t *testing.T) {
	feed := func(w *window, n int, v func(i int) int) (stable bool) {
		for i := range n {
			stable = w.add(v(i))
		}
		return stable
	}
	var growing, still, late window
	if feed(&growing, 100, func(i int) int { return 10_000 + 100*i }) {
		t.Error("growing memory is called stable")
	}
	if feed(&still, stableSamples-1, func(int) int { return 10_000 }) || !still.add(10_050) {
		t.Error("still memory is stable after a whole window, not before")
	}
	if feed(&late, 30, func(i int) int { return 1000 * i }); !feed(
		&late,
		stableSamples,
		func(i int) int { return 30_000 + i },
	) {
		t.Error("memory that has come to rest is not called stable")
	}
}

func TestScheduledTimeOfSchedstat(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2000000000 17 3\n": 2 * time.Second,
		"0 0 0\n":           0,
		"":                  -1,
		"1 2":               -1,
		"x 2 3":             -1,
	} {
		d, err := parseScheduled(text)
		if err != nil {
			d = -1
		}
		if d != want {
			t.Errorf("%q: %v, want %v", text, d, want)
		}
	}
}

func TestNobodyUsesNothing(t *testing.T) {
	cpu, err1 := PID(0).CPU()
	rss, err2 := PID(0).RSS()
	scheduled, err3 := PID(0).Scheduled()
	if cpu != 0 || rss != 0 || scheduled != 0 || err1 != nil || err2 != nil || err3 != nil {
		t.Error(cpu, rss, scheduled, err1, err2, err3)
	}
}

func TestFilesOfAProcess(t *testing.T) {
	limits := "Limit                     Soft Limit           Hard Limit           Units     \n" +
		"Max open files            1024                 4096                 files     \n"
	if n, err := parseFiles(limits); n != 1024 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := parseFiles(strings.Replace(limits, "1024", "unlimited", 1)); n < 1<<30 ||
		err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := parseFiles("nothing"); err == nil {
		t.Error("found a limit in nothing")
	}
}
