package signaling

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/enginetest"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// roamer is a client that comes back to another node when its connection ends. It keeps what it is
// told of its room.
type roamer struct {
	*peer
	id       string
	room     string          // "": in none
	members  map[string]bool // of that room, as this client knows them
	seq      float64         // of the last event, or of the state
	seen     float64         // of the last event: chat since then is repeated after a resume
	sent     bool            // it waits for an answer
	begun    bool            // it has registered anew, so that others see it leave
	register bool            // without the session
	in       bool            // registered
}

// roaming is a crowd of roamers while nodes die and come back.
type roaming struct {
	*world
	rng   *rand.Rand
	all   []*roamer
	up    []bool
	quiet map[string]bool // users that may be seen to leave
	// Sessions may be lost, and what a node missed may be told twice when it dies meanwhile.
	lossy bool

	unreachable int // requests that were answered 543
}

func roam(w *world, seed uint64, users int) *roaming {
	r := &roaming{world: w, rng: rand.New(rand.NewPCG(seed, 1)), quiet: map[string]bool{}}
	for range w.nodes {
		r.up = append(r.up, true)
	}
	for i := range users {
		u := &roamer{id: fmt.Sprint("u", i), in: true}
		u.peer = w.user(i%len(w.nodes), u.id)
		r.all = append(r.all, u)
	}
	for i := range 3 {
		r.all[i].want("200", msg{
			"eventOp": "createRoom",
			"roomId":  fmt.Sprint("K", i),
			"destroy": false,
		})
	}
	return r
}

func (r *roaming) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	for _, u := range r.all {
		r.read(u)
	}
}

// read takes what a client was told into account.
func (r *roaming) read(u *roamer) {
	for _, m := range u.take() {
		code, op := m.str("code"), m.str("eventOp")
		if code != "" {
			u.sent = false
		}
		if code == "543" {
			r.unreachable++
		}
		switch {
		case code != "" && op == "register":
			switch {
			case code == "200":
				u.user, u.secret = m.str("userId"), m.str("resume")
				u.in, u.register = true, false
				u.enter(m["room"])
			case code == "410":
				u.register, u.begun = true, true
				r.Logf("%s: 410", u.id)
			}
		case code == "200" && op == "joinRoom":
			u.enter(map[string]any(m))
			u.seen = u.seq
		case code == "200" && op == "leaveRoom":
			u.room = ""
		case op == "presence":
			r.presence(u, m)
		}
	}
}

func (u *roamer) enter(state any) {
	st, ok := state.(map[string]any)
	if !ok {
		u.room = ""
		return
	}
	u.room, _ = st["roomId"].(string)
	u.seq, _ = st["seq"].(float64)
	u.members = map[string]bool{}
	members, _ := st["members"].(map[string]any)
	for id := range members {
		u.members[id] = true
	}
}

func (r *roaming) presence(u *roamer, m msg) {
	if id := m.str("roomId"); id != u.room {
		r.Errorf("%s, who is in %q, was told %v", u.id, u.room, m)
		return
	}
	if seq, ok := m["seq"].(float64); ok {
		last := u.seq
		if m.str("type") == "chat" {
			last = u.seen
		}
		if seq <= last {
			r.Errorf("%s was told %v after event %v", u.id, m, last)
		}
		u.seq, u.seen = max(u.seq, seq), seq
	}
	id := m.str("user")
	if of, ok := m["user"].(map[string]any); ok {
		id = msg(of).str("userId")
	}
	switch m.str("type") {
	case "join":
		if u.members[id] && !r.lossy {
			r.Errorf("%s was told twice that %s joined", u.id, id)
		}
		u.members[id] = true
	case "leave":
		if !u.members[id] && !r.lossy {
			r.Errorf("%s was told that %s left, who was not in", u.id, id)
		}
		if !r.quiet[id] && !r.lossy {
			r.Errorf("%s was told that %s left", u.id, id)
		}
		delete(u.members, id)
		if id == u.id {
			u.room = ""
		}
	}
}

// connectAll has those connect again whose connection has ended.
func (r *roaming) connectAll() {
	for _, u := range r.all {
		if u.closeCode() == 0 && (u.in && !u.register || u.sent) {
			continue
		}
		node := r.rng.IntN(len(r.up))
		for !r.up[node] {
			node = (node + 1) % len(r.up)
		}
		old := u.peer
		u.peer = r.connect(node)
		u.user, u.secret = old.user, old.secret
		m := r.login(r.authKey, "userId", u.id, "seq", u.seen)
		if u.register {
			delete(m, "seq")
			m["forced"] = true
		}
		m["resume"] = old.secret
		m["reqId"] = "r"
		u.in, u.sent = false, true
		u.send(m)
	}
}

func (r *roaming) act() {
	u := r.all[r.rng.IntN(len(r.all))]
	if u.sent || u.closeCode() != 0 {
		return
	}
	u.sent = true
	switch {
	case u.room == "":
		u.send(msg{"eventOp": "joinRoom", "roomId": fmt.Sprint("K", r.rng.IntN(3)), "reqId": "j"})
	case r.rng.IntN(8) == 0:
		r.quiet[u.id] = true
		u.send(msg{"eventOp": "leaveRoom", "reqId": "l"})
	default:
		u.send(msg{"eventOp": "chat", "roomId": u.room, "message": "hi", "reqId": "c"})
	}
}

// check compares what clients know with what there is.
func (r *roaming) check() {
	rooms := map[string]map[string]bool{}
	sessions := 0
	for i, n := range r.nodes {
		if !r.up[i] {
			continue
		}
		sessions += n.hub.Stats().Sessions
		for _, key := range n.hub.owners.keys() {
			snap, ok := n.hub.rooms.Snapshot(key)
			if !ok {
				continue
			}
			if rooms[key.Room] != nil {
				r.Errorf("%s is on two nodes", key.Room)
			}
			rooms[key.Room] = map[string]bool{}
			for _, m := range snap.State.Members {
				rooms[key.Room][m.ID] = true
			}
		}
	}
	in := map[string][]string{}
	for _, u := range r.all {
		if u.room == "" {
			continue
		}
		in[u.room] = append(in[u.room], u.id)
		if !maps.Equal(u.members, rooms[u.room]) {
			r.Errorf("%s knows %v in %s, where are %v", u.id, u.members, u.room, rooms[u.room])
		}
	}
	for id, members := range rooms {
		slices.Sort(in[id])
		if got := slices.Sorted(maps.Keys(members)); !slices.Equal(got, in[id]) {
			r.Errorf("in %s are %v, and %v think they are", id, got, in[id])
		}
		r.sameRosters(id)
	}
	users := len(r.local.users())
	if users != len(r.all) || sessions != users || r.local.seats()[r.cpCode] != users {
		r.Errorf("%d users, %d sessions, %d user ids", len(r.all), sessions, users)
	}
	for _, u := range r.all {
		if u.begun && !r.lossy {
			r.Errorf("%s lost its session", u.id)
		}
	}
}

// Nodes die, or are cut off for a while, at random times. Clients come back elsewhere; nobody sees
// a leave of who did not mean to; and at the end everybody knows the same.
func TestClientsRoamWhileNodesDie(t *testing.T) {
	change := func(c *Config, _ *license.Params) {
		c.Limits.Joins = -1
		c.Rooms = room.Limits{EmptyLife: 10 * time.Hour}
	}
	var thin thinned
	for seed := range uint64(32) {
		if thin.skips(8) {
			continue
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			in(t, 4, change, func(w *world) {
				r := roam(w, seed, 12)
				if seed%4 >= 2 {
					w.local.RandomDelay(5 * time.Millisecond)
				}
				if seed%4 == 3 {
					// Replicas may be lost, and a node die before they are sent again.
					r.lossy = true
					lost := rand.New(rand.NewPCG(seed, 2))
					w.local.Lose(func(enginetest.Frame) bool { return lost.IntN(20) == 0 })
				}
				r.live(40)
				for range 3 {
					r.disaster()
				}
				w.local.Lose(nil)
				r.pass(30 * time.Second)
				r.connectAll()
				r.pass(5 * time.Second)
				r.check()
			})
		})
	}
}

// Nodes drain and end at random times, until one is left. Nobody notices anything, and no request
// fails.
func TestClientsRoamWhileNodesDrain(t *testing.T) {
	change := func(c *Config, _ *license.Params) {
		c.Limits.Joins = -1
		c.Rooms = room.Limits{EmptyLife: 10 * time.Hour}
	}
	var thin thinned
	for seed := range uint64(32) {
		if thin.skips(8) {
			continue
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			in(t, 4, change, func(w *world) {
				r := roam(w, seed, 12)
				if seed%2 == 1 {
					w.local.RandomDelay(5 * time.Millisecond)
				}
				r.live(40)
				for range 3 {
					r.drain()
				}
				r.pass(30 * time.Second)
				r.connectAll()
				r.pass(5 * time.Second)
				r.check()
				if r.unreachable > 0 {
					w.Errorf("%d requests were answered 543", r.unreachable)
				}
			})
		})
	}
}

// drain has one node drain, send its clients away and end.
func (r *roaming) drain() {
	r.pass(repairTime)
	clear(r.quiet)
	node := r.rng.IntN(len(r.up))
	for !r.up[node] {
		node = (node + 1) % len(r.up)
	}
	h := r.nodes[node].hub
	r.Logf("%s drains, owners %v", h.cfg.Node, r.local.rooms())
	r.up[node] = false
	done := make(chan error, 1)
	go func() { _, err := h.Drain(r.Context()); done <- err }()
	r.live(10)
	if err := <-done; err != nil {
		r.Error(err)
	}
	for _, u := range r.all {
		if !u.at(r.world, node) {
			continue
		}
		for _, s := range h.all() {
			if c := s.client.Load(); s.user == u.id && c != nil {
				c.conn.Close(transport.StatusGoingAway, "drain")
			}
		}
		r.live(2)
	}
	r.talk(time.Second)
	if _, err := h.HandOverRooms(r.Context()); err != nil {
		r.Error(err)
	}
	r.pass(repairTime)
	if st := h.Stats(); st.Sessions > 0 || st.Rooms > 0 {
		r.Errorf("%s still has %d sessions, %d rooms", h.cfg.Node, st.Sessions, st.Rooms)
	}
	r.kill(node)
	r.local.Bury(h.cfg.Node)
	r.live(40)
}

// live has clients join, leave and talk.
func (r *roaming) live(steps int) {
	for range steps {
		r.act()
		r.connectAll()
		r.pass(20 * time.Millisecond)
	}
}

// talk has clients talk only, for a while.
func (r *roaming) talk(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		r.chat()
		r.connectAll()
		r.pass(50 * time.Millisecond)
	}
}

// disaster takes one node away, and brings it back if it was only cut off.
func (r *roaming) disaster() {
	r.pass(repairTime)
	clear(r.quiet)
	var up []int
	for i, is := range r.up {
		if is {
			up = append(up, i)
		}
	}
	node := up[r.rng.IntN(len(up))]
	name := r.nodes[node].hub.cfg.Node
	cut := r.rng.IntN(2) == 0 || len(up) == 2
	r.Logf("%s ends, cut off: %t, owners %v", name, cut, r.local.rooms())
	r.up[node] = false
	if cut {
		r.setCut(node, true)
		for _, u := range r.all { // half of its clients are cut off from it too
			if u.at(r.world, node) && r.rng.IntN(2) == 0 {
				u.lose()
			}
		}
	} else {
		r.kill(node)
	}
	r.talk(detectTime)
	r.local.Bury(name)
	r.talk(3 * time.Second)
	if cut {
		r.setCut(node, false)
		r.up[node] = true
		r.talk(3 * time.Second)
	}
	r.live(40)
}

func (u *roamer) at(w *world, node int) bool {
	return slices.ContainsFunc(w.nodes[node].hub.all(), func(s *session) bool {
		return s.user == u.id
	})
}

// chat has somebody talk who is in a room.
func (r *roaming) chat() {
	u := r.all[r.rng.IntN(len(r.all))]
	if u.room != "" && !u.sent && u.closeCode() == 0 {
		u.sent = true
		u.send(msg{"eventOp": "chat", "roomId": u.room, "message": "hi", "reqId": "c"})
	}
}
