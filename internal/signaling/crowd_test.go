package signaling

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// crowd drives all nodes with random operations of a few users, whose connections break and whose
// ids are taken over.
type crowd struct {
	*world
	seed    uint64
	rng     *rand.Rand
	cfg     Config
	backlog *transport.Backlog
	other   string // license of the second tenant

	pages   []*page // open connections
	secrets []login
	rooms   []string               // see look
	in      map[userKey]room.State // members to the rooms that they are in
	trail   []string               // the last operations
	taken   map[string]int
}

type page struct {
	*peer
	node       int
	addr       netip.Addr
	tenant     string
	registered bool
}

// login is a resume secret and whose it is.
type login struct{ tenant, user, secret string }

const otherTenant = "OTHER"

var (
	crowdUsers = []string{"a", "b", "c", "d", "token"}
	crowdRooms = []string{"K1", "K2", "K3"}
	crowdHomes = []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}
)

func pick[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }

func (c *crowd) chance(percent int) bool { return c.rng.IntN(100) < percent }

func (c *crowd) did(format string,
	a ...any) {
	c.trail = append(c.trail, fmt.Sprintf(format, a...))
}

func (c *crowd) fail(format string, a ...any) {
	c.Helper()
	c.Fatalf("seed %d, after %v: %s", c.seed, c.trail[max(0, len(c.trail)-12):],
		fmt.Sprintf(format, a...))
}

// step is a few operations at a time.
func (c *crowd) step() {
	for range 1 + c.rng.IntN(3) {
		c.act()
	}
	c.settle()
}

func (c *crowd) act() {
	switch n := c.rng.IntN(100); {
	case n < 20:
		c.register()
	case n < 23:
		c.open()
	case n < 30 && len(c.pages) > 0:
		c.part(pick(c.rng, c.pages))
	case n < 33 && len(c.secrets) > 0:
		s := pick(c.rng, c.secrets)
		c.did("leave %s", s.user)
		c.post(pick(c.rng, c.nodes), s.secret)
	case n < 39:
		d := time.Duration(c.rng.Int64N(int64(12 * time.Second)))
		c.did("wait %v", d)
		time.Sleep(d)
	case n < 41 && len(c.nodes) == 1:
		c.crash()
	default:
		c.command()
	}
}

func (c *crowd) open() *page {
	node, addr := c.rng.IntN(len(c.nodes)), pick(c.rng, crowdHomes)
	p := &page{
		peer: c.world.over(c.nodes[node].dialFrom(addr)),
		node: node,
		addr: netip.MustParseAddr(addr),
	}
	c.pages = append(c.pages, p)
	c.did("%s opens", addr)
	return p
}

// part ends a connection in one of the ways that there are.
func (c *crowd) part(p *page) {
	if c.chance(60) {
		c.did("%s is lost", p.user)
		p.lose()
		return
	}
	c.did("%s goes", p.user)
	p.goAway(pick(c.rng, []uint16{1000, 1001, 4000}))
}

func (c *crowd) post(n *testNode, secret string) {
	n.post(c.T, "/leave", fmt.Sprintf(`{"resume":%q}`, secret))
}

// register is of a new user, of one that comes back, or of one that takes an id over; many are
// refused.
func (c *crowd) register() {
	p := c.open()
	user := pick(c.rng, crowdUsers)
	m := msg{"eventOp": "register", "cpCode": c.cpCode, "authKey": c.authKey, "userId": user}
	switch {
	case user == "token":
		m["authKey"] = c.token(user, nil)
	case c.chance(20):
		m["cpCode"], m["authKey"] = otherTenant, c.other
	case c.chance(10):
		delete(m, "userId")
	case c.chance(5):
		m["authKey"] = "none"
	}
	if c.chance(50) {
		m["features"] = []string{"pair", "publish", "roster"}
	}
	if c.chance(30) {
		m["forced"] = true
	}
	if c.chance(50) && len(c.secrets) > 0 {
		s := pick(c.rng, c.secrets)
		m["resume"], m["cpCode"], m["userId"] = s.secret, s.tenant, s.user
		m["authKey"] = map[string]string{c.cpCode: c.authKey, otherTenant: c.other}[s.tenant]
	}
	c.send(p, m)
}

// send does not wait for the answer.
func (c *crowd) send(p *page, m msg) {
	p.reqID++
	m["reqId"] = fmt.Sprint(p.reqID)
	b, _ := json.Marshal(m)
	c.did("%s: %s %s", p.user, m["eventOp"], m.str("userId")+m.str("roomId")+m.str("target"))
	_ = p.ws.WriteMessage(gws.OpcodeText, b)
}

// command is an operation of a page, whether or not that has registered and is in a room.
func (c *crowd) command() {
	if len(c.pages) == 0 {
		return
	}
	p := pick(c.rng, c.pages)
	if again := pick(c.rng, c.pages); !p.registered {
		p = again
	}
	if in, ok := c.in[userKey{p.tenant, p.user}]; ok && p.registered && c.chance(85) {
		c.send(p, c.inside(in))
		return
	}
	c.send(p, c.outside())
}

// room is one that there was after the last step, most of the time.
func (c *crowd) room() string {
	if len(c.rooms) == 0 || c.chance(10) {
		return pick(c.rng, crowdRooms)
	}
	return pick(c.rng, c.rooms)
}

// group is one that there is, if there is one.
func (c *crowd) group() string {
	groups := slices.DeleteFunc(slices.Clone(c.rooms), func(id string) bool { return id[0] != 'G' })
	if len(groups) == 0 {
		return c.room()
	}
	return pick(c.rng, groups)
}

// look notes the rooms that there are, for the next step: while others act nobody can look.
func (c *crowd) look() {
	c.rooms, c.in = nil, map[userKey]room.State{}
	for k := range c.local.rooms() {
		c.rooms = append(c.rooms, k.id)
		key := room.Key{Tenant: k.tenant, Room: k.id}
		snap, _ := c.nodeOf(key).hub.rooms.Snapshot(key)
		for _, m := range snap.State.Members {
			c.in[userKey{k.tenant, m.ID}] = snap.State
		}
	}
	slices.Sort(c.rooms)
}

// outside is what a user asks for who is in no room.
func (c *crowd) outside() msg {
	join := msg{"eventOp": "joinRoom", "roomId": c.room()}
	return pick(c.rng, []msg{
		join, join, join, join,
		{"eventOp": "createRoom", "roomId": pick(c.rng, crowdRooms), "destroy": c.chance(50)},
		{"eventOp": "createVideoRoom", "roomId": pick(c.rng, crowdRooms), "talkingNoty": true},
		{"eventOp": "createRoom"},
		{"eventOp": "endGroup", "groupId": c.group()},
		{"eventOp": "destroyRoom", "roomId": c.room()},
		{"eventOp": "memberList", "roomId": c.room()},
		{"eventOp": "chat", "target": pick(c.rng, crowdUsers), "message": c.text()},
		{
			"eventOp": "register",
			"cpCode":  c.cpCode,
			"authKey": c.authKey,
			"userId":  pick(c.rng, crowdUsers),
		},
		{"eventOp": "keepAlive"},
	})
}

// inside is what a member asks for.
func (c *crowd) inside(in room.State) msg {
	target, id := pick(c.rng, crowdUsers), in.Key.Room
	if c.chance(80) {
		target = pick(c.rng, in.Members).ID
	}
	return pick(c.rng, []msg{
		{"eventOp": "leaveRoom"},
		{"eventOp": "leaveRoom"},
		{"eventOp": "destroyRoom", "roomId": id},
		{"eventOp": "createGroup", "list": []string{target}},
		{"eventOp": "createGroup", "list": []string{"a", "b", "c", "d"}},
		{"eventOp": "endGroup", "groupId": c.group()},
		{"eventOp": "kickOut", "target": target},
		{"eventOp": "permit", "target": target, "chat": c.chance(50), "screen": c.chance(50)},
		{"eventOp": "editRoomInfo", "roomId": id, "host": target},
		{"eventOp": "editRoomInfo", "roomId": id, "capacity": 1 + c.rng.IntN(5)},
		{"eventOp": "editUserInfo", "name": "x"},
		{"eventOp": "publish", "type": "cam", "epoch": 1, "audio": true, "video": true},
		{"eventOp": "unpublish", "type": "cam"},
		{"eventOp": "screen"},
		{"eventOp": "shareStop"},
		{"eventOp": "talking", "talking": true},
		{"eventOp": "chat", "roomId": id, "message": "x"},
		{"eventOp": "chat", "target": target, "message": c.text()},
		{"eventOp": "inform", "target": target, "message": c.text()},
		{"eventOp": "sdp", "target": target, "sdp": c.text()},
		{"eventOp": "candidate", "target": target, "candidate": c.text()},
		{"eventOp": "memberList"},
		{"eventOp": "joinRoom", "roomId": c.room()},
	})
}

// text is short or long: of long ones few may wait.
func (c *crowd) text() string { return strings.Repeat("x", c.rng.IntN(30<<10)) }

// crash ends the only node, and starts it with what it has kept.
func (c *crowd) crash() {
	c.did("crash")
	c.settle()
	old := c.nodes[0]
	c.restart(c.cfg)
	synctest.Wait()
	if got := old.limiter.Open(); got != 0 || len(old.known.of) != 0 ||
		c.held() != c.backlog.Stats().Bytes {
		c.fail("closed, and there are %d connections, users %v, bytes %+v", got, old.known.of,
			c.backlog.Stats())
	}
	c.taken["crash"]++
	c.settle()
}

// settle reads what has come, and compares all counts with what there is.
func (c *crowd) settle() {
	synctest.Wait()
	for _, p := range c.pages {
		for _, m := range p.take() {
			c.hear(p, m)
		}
	}
	c.pages = slices.DeleteFunc(c.pages, func(p *page) bool {
		code := p.closeCode()
		c.taken[fmt.Sprint("close ", code)]++
		return code != 0
	})
	if c.held() > 0 {
		c.taken["waiting"]++
	}
	c.check()
	c.look()
	c.fence()
}

// fence takes the locks of all that was read without them: whoever changes it next, a timer, takes
// one of them later.
func (c *crowd) fence() {
	c.local.View(func(*engine.Table) {})
	var locks []sync.Locker
	if k, ok := c.cfg.Keeper.(*memoryKeeper); ok {
		locks = append(locks, &k.mu)
	}
	for _, n := range c.nodes {
		for _, s := range n.hub.all() {
			locks = append(locks, &s.op, &s.mu)
		}
		for _, ro := range n.hub.rosters {
			locks = append(locks, &ro.mu)
		}
		locks = append(locks, &n.hub.mu, &n.hub.sources.mu, &n.known.mu)
	}
	for _, l := range locks {
		l.Lock()
		defer l.Unlock()
	}
}

func (c *crowd) hear(p *page, m msg) {
	op, code := m.str("eventOp"), m.str("code")
	if code == "" {
		return
	}
	c.taken[op+" "+code]++
	switch {
	case code == "500":
		c.fail("%s is answered %v", op, m)
	case code != "200":
	case op == "register":
		p.registered, p.user, p.secret = true, m.str("userId"), m.str("resume")
		shown, err := c.nodes[p.node].hub.parseResumeToken(p.secret)
		if err != nil {
			c.Fatal(err)
		}
		p.tenant = shown.Tenant
		c.secrets = append(c.secrets, login{p.tenant, p.user, p.secret})
		c.secrets = c.secrets[max(0, len(c.secrets)-8):]
	}
	if m["resumed"] == true {
		c.taken["resumed"]++
	}
}
