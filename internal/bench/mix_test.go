package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/protocol"
)

func TestRoomsHaveTwoToEightMembers(t *testing.T) {
	for _, conns := range []int{2, 3, 4, 5, 7, 10, 11, 35, 36, 37, 999, 1000, 10_000} {
		sum := 0
		for _, n := range sizesFor(conns) {
			sum += n
			if n < 2 || n > maxRoom {
				t.Errorf("%d connections: a room of %d", conns, n)
			}
		}
		if sum != conns {
			t.Errorf("%d connections: rooms for %d", conns, sum)
		}
	}
	if sizes := sizesFor(1000); !slices.Contains(sizes, maxRoom) || slices.Max(sizes) != maxRoom {
		t.Errorf("sizes %v", sizes)
	}
}

func TestStampsAreFoundAgain(t *testing.T) {
	s := stamp{kindChat, 4_294_967, 86_400_123_456 * time.Microsecond}
	text := append(s.append([]byte(`{"userId":"x","mark":"`)), ` hello"}`...)
	if got, ok := findStamp(text); !ok || got != s {
		t.Errorf("%+v of %s", got, text)
	}
	for _, text := range []string{``, `{"mark":"#"}`, `{"mark":"#4000000010000000000000x01"}`, `{"mark":"#1000000010000000000000001"}`, `{"mark":"#900000001000000000"`} {
		if got, ok := findStamp([]byte(text)); ok {
			t.Errorf("%+v of %s", got, text)
		}
	}
}

func TestOrderTellsWhatComesLateFromWhatComesTwice(t *testing.T) {
	var o order
	for _, c := range []struct {
		number uint32
		want   verdict
	}{{1, inOrder}, {4, inOrder}, {3, outOfOrder}, {3, duplicate}, {4, duplicate}, {9, inOrder}, {2, outOfOrder}, {10, inOrder}} {
		if got := o.take(c.number); got != c.want {
			t.Errorf("%d: %v, want %v", c.number, got, c.want)
		}
	}
}

// A load that waits for a server that stalls would measure few slow messages instead of many.
func TestWhatIsLateCountsFromWhenItWasDue(t *testing.T) {
	var now time.Duration
	p := pacer{now: func() time.Duration { return now }, nap: func(d time.Duration) { now += d }, stall: time.Hour, late: new(histogram)}
	const stall, ends = 300 * time.Millisecond, 500 * time.Millisecond
	var late []time.Duration
	slow := perSecond(100, 0, time.Second, func(due time.Duration) bool {
		if now >= stall && now < ends {
			return false
		}
		late = append(late, now-due)
		return true
	})
	n := 0
	other := perSecond(100, 0, time.Second, func(due time.Duration) bool {
		if now-due > retryAfter {
			t.Errorf("what was due at %s waited for the other until %s", due, now)
		}
		n++
		return true
	})
	if undone := p.run(t.Context(), slow, other); undone != 0 || len(late) != 100 || n != 100 {
		t.Fatalf("%d undone, %d and %d done", undone, len(late), n)
	}
	if most := slices.Max(late); most < ends-stall || most > ends-stall+retryAfter {
		t.Errorf("the latest was %s late", most)
	}
	if waited := slices.IndexFunc(late, func(d time.Duration) bool { return d > time.Millisecond }); waited != 30 || late[49] < time.Millisecond || late[51] > time.Millisecond {
		t.Errorf("late were %v", late)
	}
	if p.late.quantile(0) != 0 || p.late.quantile(1) < float64(ends-stall)*0.98 {
		t.Errorf("late from %v to %v", p.late.quantile(0), p.late.quantile(1))
	}
}

func TestWhatCannotBeDoneIsGivenUpAndCounted(t *testing.T) {
	var now time.Duration
	p := pacer{now: func() time.Duration { return now }, nap: func(d time.Duration) { now += d }, stall: time.Second, late: new(histogram)}
	done := 0
	never := perSecond(10, 0, 10*time.Second, func(time.Duration) bool { done++; return done <= 30 })
	if undone := p.run(t.Context(), never); undone != 70 || now > 5*time.Second {
		t.Errorf("%d undone at %s", undone, now)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if undone := p.run(ctx, perSecond(10, now, now+time.Second, func(time.Duration) bool { return true })); undone != 10 {
		t.Errorf("%d undone of 10, when nobody wanted them any more", undone)
	}
}

// silentRoom has three members inside, who have said what they are told to, without a server.
func silentRoom(t *testing.T) *mixRoom {
	m := newMixer(MixConfig{Target: Target{URL: "ws://127.0.0.1:1/signal", Conns: 3, Size: 1500}, Rate: 1, Joins: 1})
	r := m.rooms[0]
	if len(m.rooms) != 1 || len(r.users) != 3 {
		t.Fatalf("%d rooms", len(m.rooms))
	}
	for i, u := range r.users {
		u.id, u.inside = fmt.Sprintf("u%d", i), true
	}
	return r
}

func (r *mixRoom) passed(k kind, from int, number uint32) string {
	s := stamp{k, number, time.Millisecond}
	if k == kindChat {
		return fmt.Sprintf(`{"eventOp":"presence","type":"chat","seq":%d,"user":"u%d","sender":"u%d","message":"%s%s"}`,
			number, from, from, s.append(nil), r.mix.bodies[k])
	}
	return fmt.Sprintf(`{"eventOp":"sdp","userId":"u%d","target":"u0","mark":"%s","sdp":%s}`, from, s.append(nil), r.mix.bodies[k])
}

func TestWhatIsReceivedIsJudged(t *testing.T) {
	offered := func(n uint32) func(r *mixRoom) string {
		return func(r *mixRoom) string { return r.passed(kindOffer, 1, n) }
	}
	joins := func(seq int, who string) func(*mixRoom) string {
		return func(*mixRoom) string {
			return fmt.Sprintf(`{"eventOp":"presence","type":"join","seq":%d,"sender":%q,"user":{"id":%q}}`, seq, who, who)
		}
	}
	const expected = 9 // in flight before each case; user 1 has said 9 things, and user 2 joins
	for name, c := range map[string]struct {
		texts   []func(*mixRoom) string
		want    Faults
		arrived int
	}{
		"in order":         {[]func(*mixRoom) string{offered(1), offered(3), func(r *mixRoom) string { return r.passed(kindChat, 1, 4) }}, Faults{}, 3},
		"an earlier later": {[]func(*mixRoom) string{offered(3), offered(1)}, Faults{OutOfOrder: 1}, 2},
		"chat and offer in another order": {
			[]func(*mixRoom) string{func(r *mixRoom) string { return r.passed(kindChat, 1, 4) }, offered(3)}, Faults{OutOfOrder: 1}, 2,
		},
		"twice":         {[]func(*mixRoom) string{offered(1), offered(1)}, Faults{Duplicates: 1}, 1},
		"not sent yet":  {[]func(*mixRoom) string{offered(10)}, Faults{Errors: 1}, 0},
		"of a stranger": {[]func(*mixRoom) string{func(r *mixRoom) string { return r.passed(kindOffer, 7, 1) }}, Faults{Errors: 1}, 0},
		"of oneself":    {[]func(*mixRoom) string{func(r *mixRoom) string { return r.passed(kindOffer, 0, 1) }}, Faults{Errors: 1}, 0},
		"damaged":       {[]func(*mixRoom) string{func(r *mixRoom) string { return strings.Replace(r.passed(kindOffer, 1, 1), "a=mid:0", "a=mid:1", 1) }}, Faults{Errors: 1}, 0},
		"refused":       {[]func(*mixRoom) string{func(*mixRoom) string { return `{"eventOp":"sdp","code":"403","message":"No."}` }}, Faults{Refused: 1}, 0},
		"word refused":  {[]func(*mixRoom) string{func(*mixRoom) string { return `{"eventOp":"chat","reqId":"chat","code":"413"}` }}, Faults{Refused: 1}, 0},
		"word taken":    {[]func(*mixRoom) string{func(*mixRoom) string { return `{"eventOp":"chat","reqId":"chat","code":"200"}` }}, Faults{}, 0},
		"told":          {[]func(*mixRoom) string{joins(5, "u2")}, Faults{}, 1},
		"told in a roster": {[]func(*mixRoom) string{func(r *mixRoom) string {
			return fmt.Sprintf(`{"eventOp":"presence","type":"roster","seq":5,"events":[%s]}`, joins(5, "u2")(r))
		}}, Faults{}, 1},
		"told twice":      {[]func(*mixRoom) string{joins(5, "u2"), joins(6, "u2")}, Faults{Duplicates: 1}, 1},
		"told of another": {[]func(*mixRoom) string{joins(5, "u1")}, Faults{Errors: 1}, 0},
		"events in another order": {
			[]func(*mixRoom) string{joins(5, "u2"), func(r *mixRoom) string { return r.passed(kindChat, 1, 4) }}, Faults{OutOfOrder: 1}, 2,
		},
		"left by nobody": {[]func(*mixRoom) string{func(*mixRoom) string {
			return `{"eventOp":"presence","type":"leave","seq":5,"sender":"u2","user":"u2"}`
		}}, Faults{Errors: 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := silentRoom(t)
			r.users[1].sent, r.inFlight = 9, expected
			r.moving, r.moves = r.users[2], kindJoin
			for _, text := range c.texts {
				text := []byte(text(r))
				var env protocol.Envelope
				if err := env.Scan(text); err != nil {
					t.Fatal(err)
				}
				r.deliver(r.users[0], &env, text)
			}
			got := r.mix.faults.seen()
			if got.Any() != (got.Fault != "") {
				t.Errorf("faults %+v", got)
			}
			got.Fault = ""
			if got != c.want || expected-r.inFlight != c.arrived {
				t.Errorf("%+v and %d arrived, want %+v and %d", got, expected-r.inFlight, c.want, c.arrived)
			}
		})
	}
}

func TestNobodySpeaksWhileSomebodyMoves(t *testing.T) {
	r := silentRoom(t)
	if !r.claim(r.whole) || r.claim(r.whole) || r.speak(kindOffer, 0) {
		t.Error("a room that is busy is not left alone")
	}
	r.release()
	r.tell(r.users[0], kindLeave)
	if r.inFlight != 2 || r.whole() || r.claim(r.whole) || r.quiet() {
		t.Errorf("%d are to be told", r.inFlight)
	}
}

func TestWhatMessagesCarryIsJSON(t *testing.T) {
	r := silentRoom(t)
	for k := kindOffer; k <= kindChat; k++ {
		if k != kindChat && !json.Valid(r.mix.bodies[k]) {
			t.Errorf("%s is not JSON: %s", kindNames[k], r.mix.bodies[k])
		}
	}
}

func TestMixAgainstNobodyAndWithFaults(t *testing.T) {
	good := MixConfig{Target: Target{URL: "ws://127.0.0.1:1/signal", Conns: 2}, Rate: 1, Duration: time.Second}
	if _, err := Mix(t.Context(), good); err == nil || !strings.Contains(err.Error(), "connect") {
		t.Errorf("error %v", err)
	}
	err := MixConfig{Target: Target{URL: "x", Conns: 1, Size: 10, PID: -1, Sources: -1}, Admin: "y", Rate: 0, Joins: -1}.Validate()
	for _, want := range []string{"url:", "admin:", "conns:", "rate:", "joins:", "duration:", "size:", "pid,", "sources:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing of %s in %v", want, err)
		}
	}
}

// A connection that the server ends is told of; one that we end is not.
func TestLinksTellHowTheyEnd(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*link)
		want string
	}{
		"by the server": {func(l *link) { l.OnClose(l.conn, &gws.CloseError{Code: 1008, Reason: []byte("too many")}) }, "close code 1008 too many"},
		"by us":         {func(l *link) { l.left.Store(true); l.OnClose(l.conn, nil) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := silentRoom(t)
			l := r.users[0].newLink()
			l.gone = make(chan struct{})
			c.end(l)
			f := r.mix.faults.seen()
			if f.Closed != len(c.want[:min(1, len(c.want))]) || !strings.Contains(f.Fault, c.want) {
				t.Errorf("%+v", f)
			}
		})
	}
}
