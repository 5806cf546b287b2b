package room

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestMarksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &room{}
		for i := range 2 * maxMarks {
			r.bar(fmt.Sprint(i))
		}
		if len(r.marks) != maxMarks || r.barred("0") || !r.barred(fmt.Sprint(2*maxMarks-1)) {
			t.Errorf("%d users are remembered, of them the first: %v", len(r.marks), r.barred("0"))
		}
		r.keepPermit(Member{ID: "a"}) // nothing is permitted
		time.Sleep(barredFor)
		if r.barred("a") || r.permits("a") != (Permit{}) {
			t.Error("a permission that was taken ends with the time of those put out")
		}
		r.keepPermit(Member{ID: "a", Permit: AllPermitted})
		if len(r.marks) != 0 {
			t.Errorf("%d marks are kept though there is nothing to remember", len(r.marks))
		}
	})
}
