package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What clients are answered while nodes are killed and cut off is recorded, and compared with what
// one server, alone, could have answered (linearizability).

const (
	historyUsers = 6
	historyLimit = 4 // users of the license
	historyRooms = 2
	historySeats = 2 // in each room
	// lostBefore is how long before the death of a node a change may have been made that dies with
	// it: replicas are sent without waiting.
	lostBefore = 500 * time.Millisecond
)

// act is what a client asked for: claim, take, resume or end a user id; create, join, leave or list
// a room.
type act struct {
	op            string
	id            int    // of the user or room
	session, from string // rooms: session is the user
	killed        bool   // a node has been killed before
}

// verdict is what the client was answered; a nil one: it does not know.
type verdict struct {
	code    string
	members string // of the room, sorted
}

// holders is the state of the model of users: the session that has each id.
type holders [historyUsers]string

// step returns the states that can follow.
func (s holders) step(a act, v *verdict) (after []any) {
	next, code := s, "409"
	full := historyUsers-count(s[:], "") >= historyLimit
	switch holder := s[a.id]; {
	case a.op == "resume" && holder == a.session:
		code = "200"
		if a.killed && v != nil && v.code == "410" { // it was new when its node died
			next[a.id], code = "", "410"
		}
	case a.op == "resume":
		code = "410"
	case a.op == "end":
		code = "410" // of a resume after it
		if holder == a.session {
			next[a.id] = ""
		}
	case holder == "" && full:
		code = "445"
	case holder == "" || a.op == "take" && holder == a.from:
		next[a.id], code = a.session, "200"
	}
	switch {
	case v == nil:
		return []any{s, next}
	case v.code == code:
		return []any{next}
	}
	return nil
}

func count(in []string, what string) (n int) {
	for _, s := range in {
		if s == what {
			n++
		}
	}
	return n
}

// seats is the state of the model of a room: its members, sorted; closed: there is no room.
type seats struct {
	open    bool
	members [historySeats]string
}

// step returns the states that can follow.
func (s seats) step(a act, v *verdict) (after []any) {
	next, code := s, "200"
	at := slices.Index(s.members[:], a.session)
	switch {
	case a.op == "create" && s.open:
		code = "443"
	case a.op == "create":
		next.open = true
	case !s.open:
		code = "441"
	case a.op == "join" && count(s.members[:], "") == 0:
		code = "444"
	case a.op == "join" && at < 0:
		next.members[slices.Index(next.members[:], "")] = a.session
	case a.op == "leave" && at >= 0:
		next.members[at] = ""
		next.open = next.members != [historySeats]string{}
	case a.op != "list" || at < 0:
		code = "" // a member does not join, others do not leave
	}
	slices.Sort(next.members[:])
	switch {
	case v == nil && code != "200":
		return []any{s}
	case v == nil:
		return []any{s, next}
	case v.code == code && (v.members == "" || v.members == fmt.Sprint(next.members)):
		return []any{next}
	}
	return nil
}

// history records what clients do, with when.
type history struct {
	*network
	tenant, authKey string // of the users whose ids are compared
	lodge, lodgeKey string // of those in rooms
	began, end      time.Time

	mu     sync.Mutex
	users  []porcupine.Operation               // Guarded by mu.
	rooms  [historyRooms][]porcupine.Operation // Guarded by mu.
	killed time.Time                           // Guarded by mu: zero: no node was.
}

func (n *network) newHistory(tenant string, lasts time.Duration) *history {
	now := time.Now()
	return &history{
		network:  n,
		tenant:   tenant,
		authKey:  n.license(tenant, historyLimit),
		lodge:    tenant + "-rooms",
		lodgeKey: n.license(tenant+"-rooms", 100),
		began:    now,
		end:      now.Add(lasts),
	}
}

func (h *history) record(client int, a act, call time.Time, v *verdict) {
	h.mu.Lock()
	defer h.mu.Unlock()
	op := porcupine.Operation{ClientId: client, Input: a, Output: v}
	op.Call, op.Return = call.Sub(h.began).Nanoseconds(), time.Since(h.began).Nanoseconds()
	if v == nil {
		op.Return = math.MaxInt64
	}
	switch a.op {
	case "claim", "take", "resume", "end":
		h.users = append(h.users, op)
	default:
		h.rooms[a.id] = append(h.rooms[a.id], op)
	}
}

// wasKilled tells whether a node has been.
func (h *history) wasKilled() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.killed.IsZero()
}

func (h *history) kill(victim *netNode) {
	h.mu.Lock()
	h.killed = time.Now()
	h.mu.Unlock()
	victim.kill()
}

// forgetLost makes what was answered shortly before a death unknown: it may have died as well.
func (h *history) forgetLost() {
	if h.killed.IsZero() {
		return
	}
	died := h.killed.Sub(h.began).Nanoseconds()
	for i := range h.rooms {
		h.rooms[i] = slices.DeleteFunc(h.rooms[i], func(op porcupine.Operation) bool {
			return mayBeLost(op, died) && !changes(op)
		})
		for k, op := range h.rooms[i] {
			if mayBeLost(op, died) {
				h.rooms[i][k].Output = (*verdict)(nil)
				h.rooms[i][k].Return = math.MaxInt64
			}
		}
	}
}

func mayBeLost(op porcupine.Operation, died int64) bool {
	return op.Return > died-lostBefore.Nanoseconds() && op.Call < died+lostBefore.Nanoseconds()
}

func changes(op porcupine.Operation) bool {
	v := op.Output.(*verdict)
	return v == nil || v.code == "200" && op.Input.(act).op != "list"
}

// check compares the histories with the models.
func (h *history) check(least int) {
	h.t.Helper()
	h.forgetLost()
	h.compare("users", h.users, least, holders{}, func(s any, a act, v *verdict) []any {
		return s.(holders).step(a, v)
	})
	for i, ops := range h.rooms {
		if len(ops) == 0 {
			continue
		}
		what := fmt.Sprint("room ", i)
		h.compare(what, ops, least, seats{}, func(s any, a act, v *verdict) []any {
			return s.(seats).step(a, v)
		})
	}
}

func (h *history) compare(
	what string, ops []porcupine.Operation, least int,
	init any, step func(any, act, *verdict) []any,
) {
	h.t.Helper()
	m := porcupine.NondeterministicModel{
		Init:  func() []any { return []any{init} },
		Step:  func(s, in, out any) []any { return step(s, in.(act), out.(*verdict)) },
		Equal: func(a, b any) bool { return a == b },
		DescribeOperation: func(in, out any) string {
			return fmt.Sprintf("%+v: %+v", in, out)
		},
	}
	codes := map[string]int{}
	for _, op := range ops {
		code := "unknown"
		if v := op.Output.(*verdict); v != nil {
			code = v.code
		}
		codes[op.Input.(act).op+" "+code]++
	}
	h.t.Logf("%s of %s: %d operations: %v", what, h.tenant, len(ops), codes)
	began := time.Now()
	result := porcupine.CheckOperationsTimeout(m.ToModel(), ops, time.Minute)
	h.t.Logf("checked in %v", time.Since(began))
	if len(ops) >= least && result == porcupine.Ok {
		return
	}
	h.t.Errorf("%s: %d operations, %s", what, len(ops), result)
	for _, op := range ops {
		h.t.Logf("%8.3f to %8.3f %s", float64(op.Call)/1e9, float64(op.Return)/1e9,
			m.DescribeOperation(op.Input, op.Output))
	}
}

// holding is a session that a client has.
type holding struct {
	name, token string
	*guest
}

// rover is a client that registers user ids at any node, and ends them.
type rover struct {
	*history
	number int
	rng    *rand.Rand
	mine   map[int]holding
}

func (c *rover) run() {
	for i := 0; time.Now().Before(c.end); i++ {
		<-time.After(time.Duration(5+c.rng.IntN(20)) * time.Millisecond)
		c.once(c.nodes[c.rng.IntN(3)], c.rng.IntN(historyUsers), fmt.Sprint("s", c.number, "-", i))
	}
	for _, held := range c.mine {
		held.leave()
	}
}

func (c *rover) once(at *netNode, id int, session string) {
	held, has := c.mine[id]
	q := map[string]any{
		"eventOp": "register", "cpCode": c.tenant, "authKey": c.authKey,
		"userId": fmt.Sprint("user", id),
	}
	a := act{id: id, session: session, killed: c.wasKilled()}
	choice := c.rng.IntN(3)
	switch {
	case !has:
		a.op = "claim"
	case choice == 0:
		a.op, a.from = "take", held.name
		q["forced"], q["resume"] = true, held.token
	case choice == 1:
		a.op, a.session, q["resume"] = "resume", held.name, held.token
	default:
		c.endSession(at, id, held, q)
		return
	}
	call := time.Now()
	g, answer := at.register(q)
	if g == nil {
		return // nobody was asked
	}
	v := known(answer)
	c.record(c.number, a, call, v)
	switch {
	case v != nil && v.code == "200":
		token, _ := answer["resume"].(string)
		c.mine[id] = holding{a.session, token, g}
	case v != nil && a.op == "take": // it may be tried again
		g.leave()
		return
	default:
		g.leave()
		delete(c.mine, id)
	}
	if has {
		held.leave()
	}
}

// endSession ends a session, and asks until it is known to have ended.
func (c *rover) endSession(at *netNode, id int, held holding, resume map[string]any) {
	a := act{op: "end", id: id, session: held.name}
	call := time.Now()
	delete(c.mine, id)
	defer held.leave()
	resume["resume"] = held.token
	for range 3 {
		body, _ := json.Marshal(map[string]any{"resume": held.token})
		r, err := c.browser.Post("http://"+at.ip+":"+netPort+"/leave", "text/plain",
			bytes.NewReader(body))
		if err == nil {
			_ = r.Body.Close()
		}
		g, answer := at.register(resume)
		if g == nil {
			break
		}
		g.leave()
		if answer["code"] == "410" {
			c.record(c.number, a, call, &verdict{code: "410"})
			return
		}
		if token, ok := answer["resume"].(string); ok {
			held.token, resume["resume"] = token, token
		}
	}
	c.record(c.number, a, call, nil)
}

// register connects a client, and registers it. It is nil if no request was sent.
func (n *netNode) register(q map[string]any) (*guest, map[string]any) {
	path := "/signal"
	if q["resume"] != nil {
		path += "?resume"
	}
	g, err := n.visit(path)
	if err != nil {
		return nil, nil
	}
	return g, g.ask(q)
}

// known is an answer as a verdict; nil: it leaves open what was done.
func known(answer map[string]any) *verdict {
	switch code, _ := answer["code"].(string); code {
	case "", "500", "504", "543", "429":
		return nil
	default:
		return &verdict{code: code}
	}
}

// dweller is a client that joins rooms, and leaves them. It keeps its session.
type dweller struct {
	*history
	number  int
	rng     *rand.Rand
	user    string
	holding           // its session
	room    int       // that it is in, or may be
	in      bool      // it is in the room
	since   time.Time // when it was answered that it is
}

func (c *dweller) run() {
	at := c.number % 3
	for time.Now().Before(c.end) {
		if c.guest != nil {
			select {
			case <-c.gone:
			default:
				<-time.After(time.Duration(20+c.rng.IntN(40)) * time.Millisecond)
				c.once()
				continue
			}
		}
		c.comeBack(c.nodes[at])
		if c.guest == nil {
			<-time.After(50 * time.Millisecond)
			at = (at + 1) % 3
		}
	}
	if c.guest != nil {
		c.leave()
	}
}

// comeBack registers, or resumes the session.
func (c *dweller) comeBack(at *netNode) {
	q := map[string]any{
		"eventOp": "register", "cpCode": c.lodge, "authKey": c.lodgeKey, "userId": c.user,
	}
	if c.token != "" {
		q["resume"] = c.token
	}
	g, answer := at.register(q)
	if g == nil || answer["code"] != "200" {
		if c.token != "" && answer["code"] == "410" {
			c.t.Errorf("the session of %s is lost", c.user)
			c.token = ""
		}
		if c.guest = nil; g != nil {
			g.leave()
		}
		return
	}
	c.guest = g
	resumed := c.token != ""
	c.token, _ = answer["resume"].(string)
	state, _ := answer["room"].(map[string]any)
	switch {
	case !resumed:
	case c.in && state == nil:
		c.mu().Lock()
		died := c.killed
		c.mu().Unlock()
		if c.since.Before(died.Add(-lostBefore)) {
			c.t.Errorf("%s was in room%d for long, and is not", c.user, c.room)
		}
		c.in = false
		c.mayHaveLeft()
	case state != nil && !c.in:
		c.leaveRoom()
	}
}

func (c *dweller) mu() *sync.Mutex { return &c.history.mu }

// mayHaveLeft records that the user leaves now, later or not at all.
func (c *dweller) mayHaveLeft() {
	c.record(c.number, act{op: "leave", id: c.room, session: c.user}, time.Now(), nil)
}

// once does something in a room.
func (c *dweller) once() {
	switch {
	case c.in && c.rng.IntN(2) == 0:
		c.leaveRoom()
	case c.in:
		c.request("list", "memberList")
	case c.rng.IntN(2) == 0:
		c.room = c.rng.IntN(historyRooms)
		c.request("create", "createRoom")
	default:
		c.room = c.rng.IntN(historyRooms)
		v := c.request("join", "joinRoom")
		if c.in = v != nil && v.code == "200"; c.in {
			c.since = time.Now()
		}
		if v == nil {
			c.leaveRoom()
		}
	}
}

func (c *dweller) leaveRoom() {
	known := c.in
	c.in = false
	if !known { // whether it was in the room is open, and so is what the answer means
		c.guest.ask(map[string]any{"eventOp": "leaveRoom"})
		c.mayHaveLeft()
		return
	}
	c.request("leave", "leaveRoom")
}

func (c *dweller) request(op, event string) *verdict {
	call := time.Now()
	answer := c.guest.ask(map[string]any{
		"eventOp": event, "roomId": fmt.Sprint("room", c.room), "capacity": historySeats,
	})
	v := known(answer)
	if members, ok := answer["members"].(map[string]any); ok && v != nil {
		sorted := [historySeats]string{}
		copy(sorted[:], slices.Sorted(maps.Keys(members)))
		slices.Sort(sorted[:])
		v.members = fmt.Sprint(sorted)
	}
	c.record(c.number, act{op: op, id: c.room, session: c.user}, call, v)
	return v
}

// rounds is how often histories are made: many times in a long run.
func rounds() int {
	if os.Getenv("IEUM_SOAK") != "" {
		return 20
	}
	return 1
}

// What clients of three nodes are answered is what one server could have answered: when a node is
// killed, and when one is cut off. A user id has one session, and a license no user too many.
func TestAnswersOfThreeNodesAreLinearizable(t *testing.T) {
	n := newNetwork(t, "--resume-window", "60s")
	for round := range rounds() {
		seed := uint64(time.Now().UnixNano())
		t.Logf("round %d: seed %d", round, seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		victim := n.nodes[rng.IntN(3)]

		h := n.newHistory(fmt.Sprint("killed", round), 7*time.Second)
		h.follow(seed, 4, func() { h.kill(victim) })
		h.check(100)
		victim.start()
		victim.awaitQuorum()

		h = n.newHistory(fmt.Sprint("cut", round), 8*time.Second)
		h.follow(seed, 0, func() {
			n.isolate(victim)
			<-time.After(3 * time.Second)
			n.heal()
		})
		h.check(100)
		victim.awaitQuorum()
		if t.Failed() {
			return
		}
	}
}

// follow starts clients, then what befalls nodes, and waits for the clients. Rooms of a node that
// is cut off go on there, and elsewhere: their histories are not compared.
func (h *history) follow(seed uint64, dwellers int, befall func()) {
	const rovers = 6
	h.t.Helper()
	var clients sync.WaitGroup
	for i := range rovers + dwellers {
		rng := rand.New(rand.NewPCG(seed, uint64(i+1)))
		if i < rovers {
			c := &rover{history: h, number: i, rng: rng, mine: map[int]holding{}}
			clients.Go(c.run)
			continue
		}
		c := &dweller{history: h, number: i, rng: rng, user: fmt.Sprint("dweller", i)}
		clients.Go(c.run)
	}
	<-time.After(2 * time.Second)
	befall()
	clients.Wait()
}

// The comparisons above must be able to fail.
func TestImpossibleAnswersAreFound(t *testing.T) {
	claim := func(id int, session string) act { return act{op: "claim", id: id, session: session} }
	ok, taken, full := &verdict{code: "200"}, &verdict{code: "409"}, &verdict{code: "445"}
	for name, steps := range map[string][]struct {
		a act
		v *verdict
	}{
		"two sessions of a user": {
			{claim(0, "s1"), ok}, {claim(0, "s2"), ok},
		},
		"more users than the license has": {
			{claim(0, "s1"), ok}, {claim(1, "s2"), ok}, {claim(2, "s3"), ok},
			{claim(3, "s4"), ok}, {claim(4, "s5"), ok},
		},
		"a license that is full too soon": {{claim(0, "s1"), ok}, {claim(1, "s2"), full}},
		"a free id that is taken":         {{claim(0, "s1"), taken}},
		"a session that ended goes on": {
			{claim(0, "s1"), ok},
			{act{op: "end", session: "s1"}, &verdict{code: "410"}},
			{act{op: "resume", session: "s1"}, ok},
		},
		"a session is lost": {
			{claim(0, "s1"), ok},
			{act{op: "resume", session: "s1"}, &verdict{code: "410"}},
		},
	} {
		states := []any{holders{}}
		for _, step := range steps {
			var next []any
			for _, s := range states {
				next = append(next, s.(holders).step(step.a, step.v)...)
			}
			states = next
		}
		if len(states) > 0 {
			t.Errorf("%s: possible, with %v", name, states)
		}
	}
	both := seats{open: true, members: [historySeats]string{"kim", "lee"}}
	for _, a := range []act{
		{op: "join", session: "pat"}, {op: "create", session: "pat"}, {op: "list", session: "pat"},
	} {
		if after := both.step(a, ok); after != nil {
			t.Errorf("%v: possible, with %v", a, after)
		}
	}
	if after := both.step(
		act{op: "list", session: "kim"}, &verdict{code: "200", members: "[ kim]"},
	); after != nil {
		t.Errorf("another list of members: possible, with %v", after)
	}
}
