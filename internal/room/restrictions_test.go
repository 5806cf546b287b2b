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
		for i := range 2 * maxRestrictions {
			r.ban(fmt.Sprint(i))
		}
		if len(r.restrictions) != maxRestrictions || r.isBanned("0") ||
			!r.isBanned(fmt.Sprint(2*maxRestrictions-1)) {
			t.Errorf("%d users are remembered, of them the first: %v", len(r.restrictions),
				r.isBanned("0"))
		}
		r.rememberPermit(Member{ID: "a"}) // nothing is permitted
		time.Sleep(banDuration)
		if r.isBanned("a") || r.permits("a") != (Permit{}) {
			t.Error("a permission that was taken ends with the time of those put out")
		}
		r.rememberPermit(Member{ID: "a", Permit: AllPermitted})
		if len(r.restrictions) != 0 {
			t.Errorf("%d marks are kept though there is nothing to remember", len(r.restrictions))
		}
	})
}
