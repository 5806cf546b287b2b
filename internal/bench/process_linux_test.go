package bench

import (
	"math"
	"os"
	"testing"
	"time"
)

func TestFiguresOfALivingProcess(t *testing.T) {
	s := startFake(t, "ieum")
	cfg := config(s, "ieum")
	cfg.PID = os.Getpid() // server and load in one: the figures mean little, but they are there
	r, err := Signal(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.CPUPerMillion == nil || r.CPUPer1kConnect == nil || r.KBPerConn == nil || r.RSSStable == nil {
		t.Fatalf("figures missing: %+v", r)
	}
	if *r.CPUPerMillion < 0 || *r.RSSBeforeKB < 1000 || *r.RSSIdleKB < 1000 || *r.RSSLoadedKB < 1000 {
		t.Errorf("report %+v", r)
	}
}

func TestProcessThatIsNotThere(t *testing.T) {
	s := startFake(t, "ieum")
	cfg := config(s, "ieum")
	cfg.PID = math.MaxInt32 // beyond what Linux gives out
	if _, err := Signal(t.Context(), cfg); err == nil {
		t.Error("no error")
	}
	if _, err := process(math.MaxInt32).scheduled(); err == nil {
		t.Error("no error of scheduled")
	}
}

// The scheduler counts at least as finely as the clock of the process itself.
func TestScheduledTimeGrowsWithWork(t *testing.T) {
	self := process(os.Getpid())
	before, err := self.scheduled()
	if err != nil {
		t.Fatal(err)
	}
	start := ownCPU()
	for sink := uint64(1); ownCPU()-start < 20*time.Millisecond; sink *= 3 {
	}
	after, err := self.scheduled()
	if err != nil {
		t.Fatal(err)
	}
	// threads of this process may have ended meanwhile, and take their time with them; what was just used is of one that lives
	if after-before < 10*time.Millisecond {
		t.Errorf("20 ms of work are %v", after-before)
	}
}
