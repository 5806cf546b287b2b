package pair

import (
	"math"
	"os"
	"testing"
)

func TestReportOfALivingProcess(t *testing.T) {
	s := startFake(t, "ieum")
	cfg := config(s, "ieum")
	cfg.PID = os.Getpid() // server and load in one: the figures mean little, but they are there
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.CPUPerMillion == nil || r.CPUPer1kConnect == nil || r.KBPerConn == nil ||
		r.RSSStable == nil {
		t.Fatalf("figures missing: %+v", r)
	}
	if *r.CPUPerMillion < 0 || *r.RSSBeforeKB < 1000 || *r.RSSIdleKB < 1000 ||
		*r.RSSLoadedKB < 1000 {
		t.Errorf("report %+v", r)
	}
}

func TestProcessThatIsNotThere(t *testing.T) {
	s := startFake(t, "ieum")
	cfg := config(s, "ieum")
	cfg.PID = math.MaxInt32 // beyond what Linux gives out
	if _, err := Run(t.Context(), cfg); err == nil {
		t.Error("no error")
	}
}
