package signaling

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
)

// Every Directory and every Bus passes the same suites; an engine for several machines adds a line below.
func TestLocalIsADirectory(t *testing.T) {
	testDirectory(t, func() Directory { return NewLocal() })
}

func TestLocalIsABus(t *testing.T) {
	testBus(t, func() Bus { return NewLocal() })
}

func testDirectory(t *testing.T, open func() Directory) {
	ctx := context.Background()
	t.Run("a user id has one holder, with growing epochs", func(t *testing.T) {
		d := open()
		a, err := d.ClaimUser(ctx, "t", "kim", Location{Node: "n1", Session: "s1"}, 10)
		if err != nil || a.Node != "n1" || a.Session != "s1" {
			t.Fatal(a, err)
		}
		if holder, err := d.ClaimUser(ctx, "t", "kim", Location{Node: "n2", Session: "s2"}, 10); !errors.Is(err, ErrTaken) || holder != a {
			t.Errorf("got %v %v, want ErrTaken with the holder", holder, err)
		}
		if holder, err := d.Holder(ctx, "t", "kim"); holder != a || err != nil {
			t.Errorf("holder %v %v", holder, err)
		}
		if holder, err := d.Holder(ctx, "t", "nobody"); holder != (Location{}) || err != nil {
			t.Errorf("holder %v %v", holder, err)
		}
		if _, err := d.ClaimUser(ctx, "other", "kim", Location{Node: "n2", Session: "s2"}, 10); err != nil {
			t.Errorf("another tenant's kim: %v", err)
		}
		if err := d.ReleaseUser(ctx, "t", "kim", a); err != nil {
			t.Fatal(err)
		}
		b, err := d.ClaimUser(ctx, "t", "kim", Location{Node: "n2", Session: "s2"}, 10)
		if err != nil || b.Epoch <= a.Epoch {
			t.Fatalf("epoch %d after %d, %v", b.Epoch, a.Epoch, err)
		}
		if err := d.ReleaseUser(ctx, "t", "kim", a); err != nil { // too late: it is b's
			t.Fatal(err)
		}
		if _, err := d.ClaimUser(ctx, "t", "kim", Location{Node: "n3", Session: "s3"}, 10); !errors.Is(err, ErrTaken) {
			t.Errorf("a seat that was lost freed its successor's: %v", err)
		}
	})
	t.Run("a user id passes from one holder to the next in one step", func(t *testing.T) {
		d := open()
		a, err := d.ClaimUser(ctx, "t", "kim", Location{Node: "n1", Session: "s1"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		var taken []Location
		for i := range 20 {
			wg.Go(func() {
				s, err := d.TakeUser(ctx, "t", "kim", a, Location{Node: "n2", Session: fmt.Sprint(i)})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					taken = append(taken, s)
				} else if !errors.Is(err, ErrTaken) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(taken) != 1 || taken[0].Epoch <= a.Epoch {
			t.Fatalf("%v took over from %v, want one of them with a higher epoch", taken, a)
		}
		if holder, _ := d.Holder(ctx, "t", "kim"); holder != taken[0] {
			t.Errorf("holder %v, want %v", holder, taken[0])
		}
		if _, err := d.ClaimUser(ctx, "t", "lee", Location{Node: "n1", Session: "s3"}, 1); !errors.Is(err, ErrLicenseFull) {
			t.Errorf("one of one seat is taken, and another claim got %v", err)
		}
		if err := d.ReleaseUser(ctx, "t", "kim", taken[0]); err != nil {
			t.Fatal(err)
		}
		for user, from := range map[string]Location{"kim": taken[0], "nobody": {}} { // nobody holds it
			if _, err := d.TakeUser(ctx, "t", user, from, a); !errors.Is(err, ErrTaken) {
				t.Errorf("%s from %v: %v", user, from, err)
			}
		}
		if _, err := d.ClaimUser(ctx, "t", "lee", Location{Node: "n1", Session: "s3"}, 1); err != nil {
			t.Errorf("the seat is not free again: %v", err)
		}
	})
	t.Run("a seat that comes with its epoch keeps it, and the next are higher", func(t *testing.T) {
		d := open()
		old := Location{Node: "n1", Session: "s1", Epoch: 40}
		if a, err := d.ClaimUser(ctx, "t", "kim", old, 10); err != nil || a != old {
			t.Fatal(a, err)
		}
		if a, err := d.ClaimUser(ctx, "t", "lee", Location{Node: "n1", Session: "s2"}, 10); err != nil || a.Epoch <= 40 {
			t.Error(a, err)
		}
	})
	t.Run("a tenant has no more seats than its license", func(t *testing.T) {
		d := open()
		var wg sync.WaitGroup
		var mu sync.Mutex
		full, taken := 0, []Location{}
		for i := range 50 {
			wg.Go(func() {
				s, err := d.ClaimUser(ctx, "t", fmt.Sprint(i), Location{Node: "n", Session: fmt.Sprint(i)}, 20)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, ErrLicenseFull):
					full++
				case err == nil:
					taken = append(taken, s)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if full != 30 || len(taken) != 20 {
			t.Fatalf("%d refused, %d seated", full, len(taken))
		}
		if err := d.ReleaseUser(ctx, "t", taken[0].Session, taken[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ClaimUser(ctx, "t", "next", Location{Node: "n", Session: "next"}, 20); err != nil {
			t.Errorf("a freed seat is not to be had: %v", err)
		}
	})
	t.Run("a room has one owner", func(t *testing.T) {
		d := open()
		if o, err := d.RoomOwner(ctx, "t", "K1"); o != "" || err != nil {
			t.Fatal(o, err)
		}
		for _, node := range []string{"n1", "n2"} {
			if o, err := d.ClaimRoom(ctx, "t", "K1", node); o != "n1" || err != nil {
				t.Fatal(o, err)
			}
		}
		if err := d.ReleaseRoom(ctx, "t", "K1", "n2"); err != nil { // not its own
			t.Fatal(err)
		}
		if o, _ := d.RoomOwner(ctx, "t", "K1"); o != "n1" {
			t.Errorf("owner %q", o)
		}
		if err := d.ReleaseRoom(ctx, "t", "K1", "n1"); err != nil {
			t.Fatal(err)
		}
		if o, _ := d.ClaimRoom(ctx, "t", "K1", "n2"); o != "n2" {
			t.Errorf("owner %q", o)
		}
	})
}

func testBus(t *testing.T, open func() Bus) {
	ctx := context.Background()
	b := open()
	var got []string
	stop := b.Serve("n1", func(p []byte) []byte {
		got = append(got, string(p))
		return append([]byte("re:"), p...)
	})
	for i := range 100 {
		if err := b.Send(ctx, "n1", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := b.Request(ctx, "n1", []byte("last")); string(a) != "re:last" || err != nil {
		t.Fatalf("%s %v", a, err)
	}
	for i, p := range got[:100] {
		if p != fmt.Sprint(i) {
			t.Fatalf("payload %d is %q: order lost", i, p)
		}
	}
	if err := b.Send(ctx, "n2", nil); err == nil {
		t.Error("sent to a node that is not there")
	}
	stop()
	if _, err := b.Request(ctx, "n1", nil); err == nil {
		t.Error("a node that stopped answers")
	}
}
