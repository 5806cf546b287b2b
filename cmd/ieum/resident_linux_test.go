package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// seqSkip is what the numbers of a room leave out when another node becomes its owner.
const seqSkip = 1 << 20

// village is users in rooms who stay: they come back when their connection breaks.
type village struct {
	*network
	authKey string
	rooms   [][]*resident
	all     []*resident
	closing chan struct{}
	running sync.WaitGroup
}

// resident is a user who stays in a room.
type resident struct {
	*village
	user, room string
	at         *netNode
	created    bool

	mu    sync.Mutex
	guest *guest   // Guarded by mu. Nil: it is coming back.
	token string   // Guarded by mu.
	past  []*guest // Guarded by mu: all connections.
	lost  int      // Guarded by mu: sessions that were gone.
}

// settle makes rooms of users at these nodes; the first node owns the room.
func (n *network) settle(authKey string, rooms ...[]*netNode) *village {
	n.t.Helper()
	v := &village{network: n, authKey: authKey, closing: make(chan struct{})}
	for i, nodes := range rooms {
		var in []*resident
		for k, at := range nodes {
			r := &resident{
				village: v,
				user:    fmt.Sprint(at.name, i, "-", k),
				room:    fmt.Sprint("room", i),
				at:      at,
				created: k != 0,
			}
			if !r.comeBack(at) {
				n.t.Fatalf("%s does not come in", r.user)
			}
			in = append(in, r)
		}
		v.rooms, v.all = append(v.rooms, in), append(v.all, in...)
	}
	for _, r := range v.all {
		v.running.Go(r.stay)
	}
	n.t.Cleanup(v.end)
	return v
}

func (v *village) end() {
	close(v.closing)
	v.running.Wait()
}

// stay comes back until the village ends, to the same node first.
func (r *resident) stay() {
	for try := 0; ; {
		if g := r.connection(); g != nil {
			select {
			case <-r.closing:
				g.leave()
				return
			case <-g.gone:
				try = 0
			case <-g.ended:
				if r.enterRoom(g) {
					continue
				}
				g.leave()
			}
		}
		at := slices.Index(r.nodes, r.at)
		if !r.comeBack(r.nodes[(at+try)%3]) {
			try++
			select {
			case <-r.closing:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

func (r *resident) connection() *guest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.guest
}

// comeBack resumes the session, or begins one, and enters the room.
func (r *resident) comeBack(at *netNode) bool {
	q := map[string]any{
		"eventOp": "register", "cpCode": "acme", "authKey": r.authKey, "userId": r.user,
	}
	r.mu.Lock()
	r.guest = nil
	if r.token != "" {
		q["resume"], q["seq"] = r.token, r.lastSeq()
	}
	r.mu.Unlock()
	g, answer := at.register(q)
	if g == nil {
		return false
	}
	switch {
	case answer["code"] == "200":
	case answer["code"] == "410":
		r.mu.Lock()
		r.token = ""
		r.lost++
		r.mu.Unlock()
		fallthrough
	default:
		g.leave()
		return false
	}
	r.mu.Lock()
	r.token, _ = answer["resume"].(string)
	r.past = append(r.past, g)
	r.mu.Unlock()
	if state, _ := answer["room"].(map[string]any); state == nil && !r.enterRoom(g) {
		g.leave()
		return false
	}
	r.mu.Lock()
	r.guest = g
	r.mu.Unlock()
	return true
}

// lastSeq is the number of the last event of the room; r.mu is held.
func (r *resident) lastSeq() (last float64) {
	for _, g := range r.past {
		for _, e := range g.seen() {
			seq, _ := e["seq"].(float64)
			last = max(last, seq)
		}
	}
	return last
}

func (r *resident) enterRoom(g *guest) bool {
	if !r.created {
		r.created = g.ask(map[string]any{"eventOp": "createRoom", "roomId": r.room}) != nil
	}
	a := g.ask(map[string]any{"eventOp": "joinRoom", "roomId": r.room})
	if a["code"] == "441" { // its owner is gone for good
		r.created = false
	}
	return a["code"] == "200"
}

// say sends a chat message to the room, and returns the code of the answer; "": there is none.
func (r *resident) say(text string) (code string) {
	g := r.connection()
	if g == nil {
		return ""
	}
	answer := g.ask(map[string]any{"eventOp": "chat", "roomId": r.room, "message": text})
	code, _ = answer["code"].(string)
	return code
}

// heard returns the events of a kind, of all connections.
func (r *resident) heard(kind string) (events []map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.past {
		for _, e := range g.seen() {
			if e["type"] == kind {
				events = append(events, e)
			}
		}
	}
	return events
}

// members is the list of members that the resident is given; nil: it is given none.
func (r *resident) members() []string {
	g := r.connection()
	if g == nil {
		return nil
	}
	list, _ := g.ask(map[string]any{"eventOp": "memberList"})["members"].(map[string]any)
	return slices.Sorted(maps.Keys(list))
}

// awaitWhole waits until everybody is in, hears the others and sees nobody else.
func (v *village) awaitWhole() {
	v.t.Helper()
	for _, in := range v.rooms {
		var want []string
		for _, r := range in {
			want = append(want, r.user)
			r.awaitHeard(in)
		}
		slices.Sort(want)
		for _, r := range in {
			until(v.t, fmt.Sprint(r.user, " sees ", want), func() bool {
				return slices.Equal(r.members(), want)
			})
		}
	}
	until(v.t, "each user has one session", func() bool { return v.sessions() == len(v.all) })
}

// awaitHeard waits until all others hear this one. A node that has not noticed that it was cut off
// answers for a room that another has: who speaks there is not heard.
func (r *resident) awaitHeard(in []*resident) {
	r.t.Helper()
	for i, other := range in {
		said := 0
		until(r.t, fmt.Sprint(other.user, " hears ", r.user), func() bool {
			text := fmt.Sprint(r.user, " to ", i, " ", said)
			if said++; r.say(text) != "200" {
				return false
			}
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				if other == r || other.hears(text) {
					return true
				}
				<-time.After(5 * time.Millisecond)
			}
			return false
		})
	}
}

func (r *resident) hears(text string) bool {
	return slices.ContainsFunc(r.heard("chat"), func(e map[string]any) bool {
		return e["message"] == text
	})
}

// sessions is the number of sessions on all nodes.
func (v *village) sessions() (sum int) {
	for _, n := range v.nodes {
		sum += n.metric("ieum_signaling_sessions")
	}
	return sum
}

// ownerChanges are the changes of owner that a room has had, which show in its numbers.
func ownerChanges(in []*resident) (n int) {
	for _, r := range in {
		for _, e := range r.heard("chat") {
			seq, _ := e["seq"].(float64)
			n = max(n, int(seq)/seqSkip)
		}
	}
	return n
}

// check compares what everybody has been told: nobody has left, and a room has one message for a
// number, whose numbers only grow.
func (v *village) check() {
	v.t.Helper()
	for i, in := range v.rooms {
		said := map[float64]any{}
		for _, r := range in {
			for _, e := range r.heard("leave") {
				if slices.ContainsFunc(in, func(r *resident) bool { return r.user == e["user"] }) {
					v.t.Errorf("%s was told %v", r.user, e)
				}
			}
			last := float64(0)
			for _, e := range r.heard("chat") {
				seq, _ := e["seq"].(float64)
				if other, ok := said[seq]; ok && other != e["message"] {
					v.t.Errorf("room%d: message %v is %v and %v", i, seq, other, e["message"])
				}
				if seq <= last {
					v.t.Errorf("%s was told %v after %v", r.user, e, last)
				}
				last, said[seq] = seq, e["message"]
			}
		}
	}
}

// lostSessions is how many sessions the residents have lost.
func (v *village) lostSessions() (n int) {
	for _, r := range v.all {
		r.mu.Lock()
		n += r.lost
		r.mu.Unlock()
	}
	return n
}
