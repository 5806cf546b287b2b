package proc

import (
	"math"
	"os"
	"testing"
	"time"
)

func TestScheduledTimeOfNoProcess(t *testing.T) {
	if _, err := PID(math.MaxInt32).Scheduled(); err == nil {
		t.Error("no error")
	}
}

// The scheduler counts at least as finely as the clock of the process itself.
func TestScheduledTimeGrowsWithWork(t *testing.T) {
	self := PID(os.Getpid())
	before, err := self.Scheduled()
	if err != nil {
		t.Fatal(err)
	}
	start := OwnCPU()
	for sink := uint64(1); OwnCPU()-start < 20*time.Millisecond; sink *= 3 {
	}
	after, err := self.Scheduled()
	if err != nil {
		t.Fatal(err)
	}
	// threads of this process may have ended meanwhile, and take their time with them; what was
	// just used is of one that lives
	if after-before < 10*time.Millisecond {
		t.Errorf("20 ms of work are %v", after-before)
	}
}

func TestAGroupUsesWhatItsProcessesUse(t *testing.T) {
	self := PID(os.Getpid())
	alone, err1 := self.RSS()
	both, err2 := Group{self, self}.RSS()
	if err1 != nil || err2 != nil || both < alone*3/2 {
		t.Errorf("%d KB alone, %d KB twice: %v, %v", alone, both, err1, err2)
	}
	if _, err := (Group{self, math.MaxInt32}).CPU(); err == nil {
		t.Error("a process that is not there used nothing")
	}
}
