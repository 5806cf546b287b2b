package mix

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/protocol"
)

func TestRoomsHaveTwoToEightMembers(t *testing.T) {
	for _, conns := range []int{2, 3, 4, 5, 7, 10, 11, 35, 36, 37, 999, 1000, 10_000} {
		sum := 0
		for _, n := range roomSizesFor(conns) {
			sum += n
			if n < 2 || n > maxRoom {
				t.Errorf("%d connections: a room of %d", conns, n)
			}
		}
		if sum != conns {
			t.Errorf("%d connections: rooms for %d", conns, sum)
		}
	}
	if sizes := roomSizesFor(1000); !slices.Contains(sizes, maxRoom) ||
		slices.Max(sizes) != maxRoom {
		t.Errorf("sizes %v", sizes)
	}
}

func TestStampsAreFoundAgain(t *testing.T) {
	s := stamp{opChat, 4_294_967, 86_400_123_456 * time.Microsecond}
	text := append(s.append([]byte(`{"userId":"x","mark":"`)), ` hello"}`...)
	if got, ok := findStamp(text); !ok || got != s {
		t.Errorf("%+v of %s", got, text)
	}
	for _, text := range []string{
		``,
		`{"mark":"#"}`,
		`{"mark":"#4000000010000000000000x01"}`,
		`{"mark":"#1000000010000000000000001"}`,
		`{"mark":"#900000001000000000"`,
	} {
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
	}{
		{1, inOrder},
		{4, inOrder},
		{3, outOfOrder},
		{3, duplicate},
		{4, duplicate},
		{9, inOrder},
		{2, outOfOrder},
		{10, inOrder},
	} {
		if got := o.take(c.number); got != c.want {
			t.Errorf("%d: %v, want %v", c.number, got, c.want)
		}
	}
}

// silentRoom has three members inside, who have said what they are told to, without a server.
func silentRoom(t *testing.T) *room {
	m := newMixer(
		Config{
			Target: client.Target{URL: "ws://127.0.0.1:1/signal", Conns: 3, Size: 1500},
			Rate:   1,
			Joins:  1,
		},
	)
	r := m.rooms[0]
	if len(m.rooms) != 1 || len(r.users) != 3 {
		t.Fatalf("%d rooms", len(m.rooms))
	}
	for i, u := range r.users {
		u.id, u.inside = fmt.Sprintf("u%d", i), true
	}
	return r
}

func (r *room) relayed(k operation, from int, number uint32) string {
	s := stamp{k, number, time.Millisecond}
	if k == opChat {
		return fmt.Sprintf(
			`{"eventOp":"presence","type":"chat","seq":%d,"user":"u%d","sender":"u%d",`+
				`"message":"%s%s"}`,
			number,
			from,
			from,
			s.append(nil),
			r.mix.bodies[k],
		)
	}
	return fmt.Sprintf(
		`{"eventOp":"sdp","userId":"u%d","target":"u0","mark":"%s","sdp":%s}`,
		from,
		s.append(nil),
		r.mix.bodies[k],
	)
}

func TestWhatIsReceivedIsJudged(t *testing.T) {
	offered := func(n uint32) func(r *room) string {
		return func(r *room) string { return r.relayed(opOffer, 1, n) }
	}
	joins := func(seq int, who string) func(*room) string {
		return func(*room) string {
			return fmt.Sprintf(
				`{"eventOp":"presence","type":"join","seq":%d,"sender":%q,"user":{"id":%q}}`,
				seq,
				who,
				who,
			)
		}
	}
	const expected = 9 // in flight before each case; user 1 has said 9 things, and user 2 joins
	for name, c := range map[string]struct {
		texts   []func(*room) string
		want    Failures
		arrived int
	}{
		"in order": {[]func(*room) string{
			offered(1),
			offered(3),
			func(r *room) string { return r.relayed(opChat, 1, 4) },
		}, Failures{}, 3},
		"an earlier later": {
			[]func(*room) string{offered(3), offered(1)},
			Failures{OutOfOrder: 1},
			2,
		},
		"chat and offer in another order": {
			[]func(*room) string{
				func(r *room) string { return r.relayed(opChat, 1, 4) },
				offered(3),
			}, Failures{OutOfOrder: 1}, 2,
		},
		"twice":        {[]func(*room) string{offered(1), offered(1)}, Failures{Duplicates: 1}, 1},
		"not sent yet": {[]func(*room) string{offered(10)}, Failures{Errors: 1}, 0},
		"unknown sender": {
			[]func(*room) string{func(r *room) string { return r.relayed(opOffer, 7, 1) }},
			Failures{Errors: 1},
			0,
		},
		"of oneself": {[]func(*room) string{
			func(r *room) string { return r.relayed(opOffer, 0, 1) },
		}, Failures{Errors: 1}, 0},
		"damaged": {[]func(*room) string{
			func(r *room) string {
				return strings.Replace(r.relayed(opOffer, 1, 1), "a=mid:0", "a=mid:1", 1)
			},
		}, Failures{Errors: 1}, 0},
		"refused": {[]func(*room) string{
			func(*room) string { return `{"eventOp":"sdp","code":"403","message":"No."}` },
		}, Failures{Refused: 1}, 0},
		"chat refused": {[]func(*room) string{
			func(*room) string { return `{"eventOp":"chat","reqId":"chat","code":"413"}` },
		}, Failures{Refused: 1}, 0},
		"chat accepted": {[]func(*room) string{
			func(*room) string { return `{"eventOp":"chat","reqId":"chat","code":"200"}` },
		}, Failures{}, 0},
		"join": {[]func(*room) string{joins(5, "u2")}, Failures{}, 1},
		"join in a presence batch": {[]func(*room) string{func(r *room) string {
			const format = `{"eventOp":"presence","type":"roster","seq":5,"events":[%s]}`
			return fmt.Sprintf(format, joins(5, "u2")(r))
		}}, Failures{}, 1},
		"join twice": {[]func(*room) string{
			joins(5, "u2"),
			joins(6, "u2"),
		}, Failures{Duplicates: 1}, 1},
		"join of another user": {[]func(*room) string{joins(5, "u1")}, Failures{Errors: 1}, 0},
		"events in another order": {
			[]func(*room) string{
				joins(5, "u2"),
				func(r *room) string { return r.relayed(opChat, 1, 4) },
			}, Failures{OutOfOrder: 1}, 2,
		},
		"leave without a request": {[]func(*room) string{func(*room) string {
			return `{"eventOp":"presence","type":"leave","seq":5,"sender":"u2","user":"u2"}`
		}}, Failures{Errors: 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := silentRoom(t)
			r.users[1].sent, r.inFlight = 9, expected
			r.changing, r.change = r.users[2], opJoin
			for _, text := range c.texts {
				text := []byte(text(r))
				var env protocol.Envelope
				if err := env.Scan(text); err != nil {
					t.Fatal(err)
				}
				r.deliver(r.users[0], &env, text)
			}
			got := r.mix.failures.snapshot()
			if got.Any() != (got.FirstError != "") {
				t.Errorf("failures %+v", got)
			}
			got.FirstError = ""
			if got != c.want || expected-r.inFlight != c.arrived {
				t.Errorf(
					"%+v and %d arrived, want %+v and %d",
					got,
					expected-r.inFlight,
					c.want,
					c.arrived,
				)
			}
		})
	}
}

func TestReservedRoomsAreSilent(t *testing.T) {
	r := silentRoom(t)
	if !r.reserve(r.complete) || r.reserve(r.complete) || r.send(opOffer, 0) {
		t.Error("a reserved room is used")
	}
	r.release()
	r.expectChange(r.users[0], opLeave)
	if r.inFlight != 2 || r.complete() || r.reserve(r.complete) || r.idle() {
		t.Errorf("%d events expected", r.inFlight)
	}
}

func TestWhatMessagesCarryIsJSON(t *testing.T) {
	r := silentRoom(t)
	for op := opOffer; op <= opChat; op++ {
		if op != opChat && !json.Valid(r.mix.bodies[op]) {
			t.Errorf("%s is not JSON: %s", operationNames[op], r.mix.bodies[op])
		}
	}
}

func TestMixAgainstNobodyAndWithFailures(t *testing.T) {
	good := Config{
		Target:   client.Target{URL: "ws://127.0.0.1:1/signal", Conns: 2},
		Rate:     1,
		Duration: time.Second,
	}
	if _, err := Run(t.Context(), good); err == nil || !strings.Contains(err.Error(), "connect") {
		t.Errorf("error %v", err)
	}
	err := Config{
		Target: client.Target{URL: "x", Conns: 1, Size: 10, PID: -1, Sources: -1},
		Admin:  "y",
		Rate:   0,
		Joins:  -1,
	}.Validate()
	for _, want := range []string{
		"url:",
		"admin:",
		"conns:",
		"rate:",
		"joins:",
		"duration:",
		"size:",
		"pid,",
		"sources:",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing of %s in %v", want, err)
		}
	}
}

// A connection that the server ends is counted; an end that we caused is not.
func TestClosedConnectionsAreCounted(t *testing.T) {
	r := silentRoom(t)
	closed := &gws.CloseError{Code: 1008, Reason: []byte("too many")}
	r.mix.ended(r.users[0], closed)
	f := r.mix.failures.snapshot()
	if f.Closed != 1 || !strings.Contains(f.FirstError, "close code 1008 too many") {
		t.Errorf("%+v", f)
	}
	r.mix.closing.Store(true)
	r.mix.ended(r.users[0], closed)
	if f := r.mix.failures.snapshot(); f.Closed != 1 {
		t.Errorf("%+v", f)
	}
}
