package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

const (
	historyUsers = 3
	historyLimit = 2 // user ids of the license
)

// act is what a client does. Each claim is of a session of its own.
type act struct {
	op      string // claim, take, release, holder; rooms: own, disown, owner
	id      int
	session string
	from    string
}

// outcome is what the client got; a nil one: it does not know.
type outcome struct {
	holder string
	err    error
}

// users is the state of the model: the session that holds each id.
type users [historyUsers]string

// stepUsers returns the states that can follow.
func stepUsers(s users, a act, o *outcome) []any {
	next, want := s, outcome{}
	taken := 0
	for _, holder := range s {
		if holder != "" {
			taken++
		}
	}
	switch a.op {
	case "claim":
		switch {
		case s[a.id] != "":
			want = outcome{s[a.id], engine.ErrTaken}
		case taken >= historyLimit:
			want = outcome{"", engine.ErrLicenseFull}
		default:
			next[a.id], want.holder = a.session, a.session
		}
	case "take":
		if s[a.id] != a.from {
			want = outcome{s[a.id], engine.ErrTaken}
		} else {
			next[a.id], want.holder = a.session, a.session
		}
	case "release":
		if s[a.id] == a.session {
			next[a.id] = ""
		}
	case "holder":
		want.holder = s[a.id]
	}
	switch {
	case o == nil:
		return []any{s, next}
	case o.holder == want.holder && errors.Is(o.err, want.err):
		return []any{next}
	}
	return nil
}

// stepRoom is the same for one room, whose owners are nodes.
func stepRoom(s string, a act, o *outcome) []any {
	next, want := s, outcome{}
	switch a.op {
	case "own":
		if s == "" {
			next = a.session
		}
		want.holder = next
	case "disown":
		if s == a.session {
			next = ""
		}
	case "owner":
		want.holder = s
	}
	switch {
	case o == nil:
		return []any{s, next}
	case o.holder == want.holder && o.err == nil:
		return []any{next}
	}
	return nil
}

// history records what clients do, with when.
type history struct {
	began time.Time
	mu    sync.Mutex
	users []porcupine.Operation
	rooms [2][]porcupine.Operation
}

func (h *history) record(client int, a act, call int64, o *outcome) {
	op := porcupine.Operation{ClientId: client, Input: a, Call: call, Output: o}
	op.Return = time.Since(h.began).Nanoseconds()
	if o == nil {
		op.Return = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch a.op {
	case "own", "disown", "owner":
		h.rooms[a.id] = append(h.rooms[a.id], op)
	default:
		h.users = append(h.users, op)
	}
}

// client does random things at one node. The first client of each node has its rooms to itself.
type client struct {
	h      *history
	number int
	node   string
	engine.Directory
	rng   *rand.Rand
	mine  map[int]engine.Location
	owned map[int]engine.Owner
}

func (c *client) run(ctx context.Context) {
	for i := 0; ctx.Err() == nil && i < 150; i++ {
		session := fmt.Sprint(c.node, "-", c.number, "-", i)
		call := time.Since(c.h.began).Nanoseconds()
		try, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		var a act
		var got string
		var err error
		if c.number < 3 && i%3 == 0 {
			a, got, err = c.room(try)
		} else {
			a, got, err = c.user(try, session)
		}
		cancel()
		switch {
		case a.op == "":
		case err == nil, errors.Is(err, engine.ErrTaken), errors.Is(err, engine.ErrLicenseFull):
			c.h.record(c.number, a, call, &outcome{got, err})
		default:
			c.h.record(c.number, a, call, nil)
		}
	}
}

func (c *client) user(ctx context.Context, session string) (a act, got string, err error) {
	id := c.rng.IntN(historyUsers)
	user, held := fmt.Sprint(id), c.mine[id]
	to := engine.Location{Node: c.node, Session: session}
	a = act{id: id, session: session}
	var l engine.Location
	switch c.rng.IntN(4) {
	case 0:
		a.op = "claim"
		l, err = c.ClaimUser(ctx, "t", user, to, historyLimit)
	case 1:
		if held == (engine.Location{}) {
			return act{}, "", nil
		}
		a.op, a.from = "take", held.Session
		l, err = c.TakeUser(ctx, "t", user, held, to)
	case 2:
		if held == (engine.Location{}) {
			return act{}, "", nil
		}
		a.op, a.session = "release", held.Session
		delete(c.mine, id)
		return a, "", c.ReleaseUser(ctx, "t", user, held)
	case 3:
		a.op = "holder"
		l, err = c.Holder(ctx, "t", user)
		return a, l.Session, err
	}
	delete(c.mine, id)
	if err == nil {
		c.mine[id] = l
	}
	return a, l.Session, err
}

func (c *client) room(ctx context.Context) (a act, got string, err error) {
	id := c.rng.IntN(len(c.h.rooms))
	name, held := fmt.Sprint(id), c.owned[id]
	a = act{id: id, session: c.node}
	var o engine.Owner
	switch c.rng.IntN(3) {
	case 0:
		a.op = "own"
		o, err = c.ClaimRoom(ctx, "t", name, engine.Owner{Node: c.node})
		if o.Node == c.node {
			c.owned[id] = o
		}
	case 1:
		if held == (engine.Owner{}) {
			return act{}, "", nil
		}
		a.op = "disown"
		delete(c.owned, id)
		err = c.ReleaseRoom(ctx, "t", name, held)
	case 2:
		a.op = "owner"
		o, err = c.RoomOwner(ctx, "t", name)
	}
	return a, o.Node, err
}

// What clients of three nodes see while the leader dies is what one server, alone, could have said:
// user ids, users of a license, rooms.
func TestHistoriesAreLinearizable(t *testing.T) {
	nodes := start(t, 3)
	linearizable(t, nodes, func() { crash(t, nodes[leaderOf(t, nodes)]) })
}

// The same while the server of NATS starts again.
func TestHistoriesOverNATSAreLinearizable(t *testing.T) {
	s := startNATS(t)
	linearizable(t, startExternal(t, s, 3), func() {
		s.stop()
		s.start()
	})
}

// linearizable checks the history of three nodes that are disturbed once.
func linearizable(t *testing.T, nodes []*Cluster, meanwhile func()) {
	t.Helper()
	h := &history{began: time.Now()}
	ctx, stop := context.WithTimeout(context.Background(), 6*time.Second)
	defer stop()
	var clients sync.WaitGroup
	for i := range 6 {
		c := &client{
			h:         h,
			number:    i,
			node:      nodes[i%3].cfg.Node,
			Directory: nodes[i%3].Directory(),
			rng:       rand.New(rand.NewPCG(uint64(i), 1)),
			mine:      map[int]engine.Location{},
			owned:     map[int]engine.Owner{},
		}
		clients.Go(func() { c.run(ctx) })
	}
	await(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.users) > 100
	})
	meanwhile()
	clients.Wait()
	check := func(what string, ops []porcupine.Operation, init any,
		step func(s any, a act, o *outcome) []any,
	) {
		m := porcupine.NondeterministicModel{
			Init:  func() []any { return []any{init} },
			Step:  func(s, in, out any) []any { return step(s, in.(act), out.(*outcome)) },
			Equal: func(a, b any) bool { return a == b },
		}
		result := porcupine.CheckOperationsTimeout(m.ToModel(), ops, time.Minute)
		if len(ops) < 20 || result != porcupine.Ok {
			t.Errorf("%s: %d operations, %s", what, len(ops), result)
		}
	}
	check("users", h.users, users{}, func(s any, a act, o *outcome) []any {
		return stepUsers(s.(users), a, o)
	})
	for i := range h.rooms {
		check(fmt.Sprint("room ", i), h.rooms[i], "", func(s any, a act, o *outcome) []any {
			return stepRoom(s.(string), a, o)
		})
	}
}

// The check above must be able to fail.
func TestImpossibleHistoriesAreFound(t *testing.T) {
	claim := func(id int, session string) act { return act{op: "claim", id: id, session: session} }
	for name, steps := range map[string][]struct {
		a act
		o *outcome
	}{
		"two holders": {
			{claim(0, "s1"), &outcome{"s1", nil}},
			{claim(0, "s2"), &outcome{"s2", nil}},
		},
		"more users than the license has": {
			{claim(0, "s1"), &outcome{"s1", nil}},
			{claim(1, "s2"), &outcome{"s2", nil}},
			{claim(2, "s3"), &outcome{"s3", nil}},
		},
		"an answer from memory": {
			{claim(0, "s1"), &outcome{"s1", nil}},
			{act{op: "take", id: 0, session: "s2", from: "s1"}, &outcome{"s2", nil}},
			{act{op: "holder", id: 0}, &outcome{"s1", nil}},
		},
	} {
		states := []any{users{}}
		for _, s := range steps {
			var next []any
			for _, state := range states {
				next = append(next, stepUsers(state.(users), s.a, s.o)...)
			}
			states = next
		}
		if len(states) > 0 {
			t.Errorf("%s: possible, with %v", name, states)
		}
	}
	if len(stepRoom("n1", act{op: "own", session: "n2"}, &outcome{"n2", nil})) > 0 {
		t.Error("a room has two owners")
	}
}
