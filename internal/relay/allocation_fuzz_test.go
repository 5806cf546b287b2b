package relay

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// modelled is what a client of FuzzAllocation should have, in the words of RFC 8656.
type modelled struct {
	open        bool
	tid         [12]byte
	ends        time.Duration
	permissions map[netip.Addr]time.Duration
	channels    map[uint16]modelledChannel
}

type modelledChannel struct {
	peer netip.AddrPort
	ends time.Duration
}

// machine is a relay with two ports, three clients that compete for them, and what should be true.
type machine struct {
	t       *testing.T
	w       *worker
	d       *memoryDriver
	clients [3]modelled
}

var (
	// The last is refused.
	modelPeers = []netip.AddrPort{
		netip.MustParseAddrPort("8.8.8.8:9"),
		netip.MustParseAddrPort("8.8.8.8:10"),
		netip.MustParseAddrPort("1.1.1.1:9"),
		netip.MustParseAddrPort("10.0.0.1:9"),
	}
	modelNumbers = []uint16{minChannel - 1, minChannel, minChannel + 1, maxChannel, maxChannel + 1}
	modelLives   = []uint32{0, 1, 601, 3600, 1<<32 - 1}
	modelTimes   = []time.Duration{
		time.Second,
		time.Minute,
		permissionLife - time.Second,
		permissionLife,
		channelLife,
		time.Hour,
	}
)

// FuzzAllocation: each pair of bytes is something that a client, a peer or the time does; what
// comes back is what a small model says.
func FuzzAllocation(f *testing.F) {
	f.Add([]byte{0, 0, 3, 0, 4, 5, 5, 0, 6, 1, 7, 0, 2, 0})
	f.Add([]byte{0, 0, 10, 0, 20, 0, 1, 0, 2, 0, 20, 0})
	f.Add([]byte{0, 0, 4, 4, 9, 3, 4, 9, 7, 0, 6, 1, 9, 0, 7, 0, 9, 4, 6, 1, 4, 9, 7, 1, 6, 1})
	f.Add([]byte{0, 0, 3, 0, 8, 3, 5, 0, 3, 0, 5, 0, 8, 4, 1, 0, 2, 3, 8, 5, 0, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		w, d := offline(2)
		m := &machine{t: t, w: w, d: d}
		program = program[:min(len(program), 200)] // longer ones take longer and find nothing more
		for ; len(program) >= 2; program = program[2:] {
			m.step(int(program[0])%9, int(program[0])/9%len(m.clients), int(program[1]))
		}
		for i := range m.clients {
			m.refresh(i, 0)
		}
		nothingLeft(t, w, d)
	})
}

func (m *machine) step(what, who, arg int) {
	to := modelPeers[arg%len(modelPeers)]
	number := modelNumbers[arg/len(modelPeers)%len(modelNumbers)]
	switch what {
	case 0:
		m.allocate(who, [12]byte(stun.NewTransactionID()))
	case 1:
		m.allocate(who, m.clients[who].tid)
	case 2:
		m.refresh(who, modelLives[arg%len(modelLives)])
	case 3:
		m.permit(who, to, modelPeers[arg/len(modelPeers)%len(modelPeers)])
	case 4:
		m.bind(who, number, to)
	case 5:
		m.indicate(who, to)
	case 6:
		m.channelData(who, number)
	case 7:
		m.fromPeer(who, to)
	case 8:
		m.pass(modelTimes[arg%len(modelTimes)])
	}
}

// ask has a client ask something, and wants a code.
func (m *machine) ask(who, want int, method stun.Method, attrs ...stun.Setter) *stun.Message {
	m.t.Helper()
	return m.askAs(who, want, stun.NewTransactionID(), method, attrs...)
}

func (m *machine) askAs(
	who, want int,
	tid [12]byte,
	method stun.Method,
	attrs ...stun.Setter,
) *stun.Message {
	m.t.Helper()
	request := stun.MustBuild(
		append(
			[]stun.Setter{
				stun.NewTransactionIDSetter(tid),
				stun.NewType(method, stun.ClassRequest),
			},
			attrs...)...)
	p := offlinePath(uint16(who + 1))
	m.w.signAs(request, p, "s", "")
	m.d.forget()
	m.w.fromClient(p, m.w.lookup(p), request.Raw)
	if len(m.d.replies) != 1 {
		m.t.Fatalf("%v: %d answers", method, len(m.d.replies))
	}
	answer := &stun.Message{Raw: m.d.replies[0]}
	if err := answer.Decode(); err != nil || code(answer) != want || answer.TransactionID != tid {
		m.t.Fatalf("%v of client %d: code %d, want %d (%v)", method, who, code(answer), want, err)
	}
	return answer
}

func (m *machine) allocate(who int, tid [12]byte) {
	c := &m.clients[who]
	open := 0
	for i := range m.clients {
		if m.clients[i].open {
			open++
		}
	}
	want := 0
	switch {
	case c.open && tid != c.tid:
		want = 437
	case !c.open && open == 2:
		want = 508
	}
	answer := m.askAs(who, want, tid, stun.MethodAllocate, transport(17), life(1))
	if want != 0 {
		return
	}
	if !c.open {
		*c = modelled{
			true,
			tid,
			m.w.now + allocationLife,
			map[netip.Addr]time.Duration{},
			map[uint16]modelledChannel{},
		}
	}
	if got := lifetimeIn(m.t, answer); got != uint32((c.ends-m.w.now)/time.Second) {
		m.t.Fatalf("client %d: lifetime %d", who, got)
	}
}

func (m *machine) refresh(who int, seconds uint32) {
	c := &m.clients[who]
	if !c.open {
		m.ask(who, 437, stun.MethodRefresh, life(seconds))
		return
	}
	want := min(max(seconds, 600), 3600)
	if seconds == 0 {
		want = 0
	}
	if got := lifetimeIn(m.t, m.ask(who, 0, stun.MethodRefresh, life(seconds))); got != want {
		m.t.Fatalf("client %d: refreshed for %d s, want %d", who, got, want)
	}
	c.ends = m.w.now + time.Duration(want)*time.Second
	c.open = want > 0
}

// denied is the code for what a client without an allocation or with a refused peer asks for.
func (m *machine) denied(who int, peers ...netip.AddrPort) int {
	switch {
	case !m.clients[who].open:
		return 437
	case slices.Contains(peers, modelPeers[len(modelPeers)-1]):
		return 403
	}
	return 0
}

func (m *machine) permit(who int, peers ...netip.AddrPort) {
	want := m.denied(who, peers...)
	var attrs []stun.Setter
	for _, p := range peers {
		attrs = append(attrs, peer(p))
		if want == 0 {
			m.clients[who].permissions[p.Addr()] = m.w.now + permissionLife
		}
	}
	m.ask(who, want, stun.MethodCreatePermission, attrs...)
}

func (m *machine) bind(who int, number uint16, to netip.AddrPort) {
	c := &m.clients[who]
	want := m.denied(who, to)
	if want != 437 && (number < minChannel || number > maxChannel) {
		want = 400
	}
	if want == 0 {
		for n, other := range c.channels {
			if other.ends > m.w.now && (n == number) != (other.peer == to) {
				want = 400
			}
		}
	}
	if want == 0 {
		c.channels[number] = modelledChannel{to, m.w.now + channelLife}
		c.permissions[to.Addr()] = m.w.now + permissionLife
	}
	m.ask(
		who,
		want,
		stun.MethodChannelBind,
		peer(to),
		stun.RawAttribute{
			Type:  stun.AttrChannelNumber,
			Value: []byte{byte(number >> 8), byte(number), 0, 0},
		},
	)
}

func (m *machine) permitted(who int, from netip.Addr) bool {
	c := &m.clients[who]
	return c.open && c.permissions[from] > m.w.now
}

// arrives checks what has come out at the peers.
func (m *machine) arrives(what string, who int, want bool) {
	m.t.Helper()
	if got := len(m.d.peerPayloads); got != 0 && !want || got != 1 && want ||
		want && m.d.peerPayloads[0] != "up" {
		m.t.Fatalf("%s of client %d: %q has come out, want it: %v",
			what, who, m.d.peerPayloads, want)
	}
}

func (m *machine) indicate(who int, to netip.AddrPort) {
	p := offlinePath(uint16(who + 1))
	m.d.forget()
	m.w.fromClient(
		p,
		m.w.lookup(p),
		stun.MustBuild(
			stun.TransactionID,
			stun.NewType(stun.MethodSend, stun.ClassIndication),
			peer(to),
			stun.RawAttribute{Type: stun.AttrData, Value: []byte("up")},
		).Raw,
	)
	m.arrives("indication", who, m.permitted(who, to.Addr()))
}

func channelMessage(number uint16, payload []byte) []byte {
	return append(
		binary.BigEndian.AppendUint16(
			binary.BigEndian.AppendUint16(nil, number),
			uint16(len(payload)),
		),
		payload...)
}

func (m *machine) channelData(who int, number uint16) {
	p := offlinePath(uint16(who + 1))
	m.d.forget()
	m.w.fromClient(p, m.w.lookup(p), channelMessage(number, []byte("up")))
	c := &m.clients[who]
	m.arrives("channel data", who, c.open && c.channels[number].ends > m.w.now)
}

// fromPeer has a peer send to a client's relayed address.
func (m *machine) fromPeer(who int, from netip.AddrPort) {
	a := m.w.lookup(offlinePath(uint16(who + 1)))
	if (a != nil) != m.clients[who].open {
		m.t.Fatalf("client %d: an allocation is there: %v", who, a != nil)
	}
	if a == nil {
		return
	}
	m.d.forget()
	m.w.fromPeer(a.relays[v4], endpointOf(from), packet{payload: []byte("down")})
	want, channel := m.permitted(who, from.Addr()), uint16(0)
	for n, c := range m.clients[who].channels {
		if c.peer == from && c.ends > m.w.now {
			channel = n
		}
	}
	switch {
	case !want && len(m.d.replies)+len(m.d.clientMessages) != 0:
		m.t.Fatalf("client %d got something from %v without a permission", who, from)
	case want && channel != 0:
		if len(m.d.clientMessages) != 1 ||
			string(m.d.clientMessages[0]) != string(channelMessage(channel, []byte("down"))) {
			m.t.Fatalf("client %d got %q, want it by channel %#x", who, m.d.clientMessages, channel)
		}
	case want:
		if len(m.d.replies) != 1 || len(m.d.clientMessages) != 0 {
			m.t.Fatalf("client %d got %d indications", who, len(m.d.replies))
		}
	}
}

// pass lets time pass.
func (m *machine) pass(d time.Duration) {
	m.w.now += d
	m.w.sweep()
	live := 0
	for i := range m.clients {
		c := &m.clients[i]
		c.open = c.open && c.ends > m.w.now
		if c.open {
			live++
		}
	}
	if len(m.w.owned) != live || len(m.d.sockets) != live || m.w.server.quota.total != live {
		m.t.Fatalf("%d allocations, %d ports, quota %d: want %d",
			len(m.w.owned), len(m.d.sockets), m.w.server.quota.total, live)
	}
}
