package signaling

import (
	"testing"
	"time"
)

// A clock that is set back must not look like a flood.
func TestABucketForgivesAClockThatIsSetBack(t *testing.T) {
	var b bucket
	now := time.Unix(1e9, 0)
	for i := range 10 {
		if !b.take(now.Add(time.Duration(-i)*time.Minute), 30, 300) {
			t.Fatalf("refused after %d minutes back", i)
		}
	}
	for range 290 {
		if !b.take(now, 0, 300) {
			t.Fatal("refused within the burst")
		}
	}
	if b.take(now, 0, 300) {
		t.Error("taken beyond the burst")
	}
}
