package relay

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v4"

	"github.com/ieum-rtc/ieum/internal/logtest"
)

// fragileDriver panics at a payload, and in the calls of a method after some have passed.
type fragileDriver struct {
	memoryDriver
	method string
	passed int
}

func (d *fragileDriver) call(method string) {
	if method != d.method {
		return
	}
	if d.passed--; d.passed < 0 {
		panic("cannot " + method)
	}
}

func (d *fragileDriver) bind(r *relayAddress, port uint16) (*relaySocket, error) {
	d.call("bind")
	return d.memoryDriver.bind(r, port)
}

func (d *fragileDriver) watch(s *relaySocket) error {
	d.call("watch")
	return d.memoryDriver.watch(s)
}

func (d *fragileDriver) closeSocket(s *relaySocket) {
	d.call("closeSocket")
	d.memoryDriver.closeSocket(s)
}

func (d *fragileDriver) reply(p *path, message []byte) bool {
	d.call("reply")
	return d.memoryDriver.reply(p, message)
}

// fragile is an offline relay whose driver breaks.
func fragile(ports int, method string, passed int) (*worker, *fragileDriver) {
	w, memory := offline(ports)
	d := &fragileDriver{*memory, method, passed}
	w.driver = d
	return w, d
}

func (d *fragileDriver) toPeer(a *allocation, c *channel, payload []byte) {
	if string(payload) == "break" {
		panic("cannot send this")
	}
	d.memoryDriver.toPeer(a, c, payload)
}

// A panic in one packet's handling closes the allocation it was for and is logged with its stack.
// Other clients go on, and so does this one when it allocates anew.
func TestAPanicClosesOneAllocation(t *testing.T) {
	w, d := fragile(8, "", 0)
	var log bytes.Buffer
	var records []Record
	w.server.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	w.server.cfg.Closed = func(r Record) { records = append(records, r) }
	far := endpointOf(netip.MustParseAddrPort("8.8.8.8:9"))
	open := func(port uint16) (*path, *allocation) {
		p := offlinePath(port)
		a := offlineAllocation(t, w, p)
		if a.bindChannel(w.now, minChannel, far) != reasonNone {
			t.Fatal("no channel")
		}
		return p, a
	}
	p, broken := open(1)
	other, sound := open(2)

	w.fromClient(p, broken, channelMessage(minChannel, []byte("break")))
	if !broken.closed.Load() || w.lookup(p) != nil || sound.closed.Load() {
		t.Error("not the one allocation is closed")
	}
	if got := w.server.stats.rejected[reasonPanic].Load(); got != 1 {
		t.Errorf("%d panics are counted", got)
	}
	if len(records) != 1 || records[0].Reason != "panic" || records[0].Dropped["panic"] != 1 {
		t.Errorf("records are %+v", records)
	}
	text := log.String()
	for _, want := range []string{
		"level=ERROR", "cannot send this", "fragileDriver", "fromClient",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the log has no %q: %s", want, text)
		}
	}
	if strings.Contains(text, "198.51.100.7") {
		t.Errorf("the log has the address of a client: %s", text)
	}

	w.fromClient(other, sound, channelMessage(minChannel, []byte("go on")))
	p, again := open(1)
	w.fromClient(p, again, channelMessage(minChannel, []byte("and again")))
	if got := strings.Join(d.peerPayloads, ", "); got != "go on, and again" {
		t.Errorf("relayed: %s", got)
	}

	// All are counted, not all are logged: a client may cause one with each packet.
	w.fromClient(p, again, channelMessage(minChannel, []byte("break")))
	if got := w.server.stats.rejected[reasonPanic].Load(); got != 2 || log.Len() != len(text) {
		t.Errorf("%d panics are counted, the log is %s", got, log.String())
	}
	w.now += panicLogInterval
	w.closeAllocation(sound, closedByRefresh)
	if !w.server.quota.empty() {
		t.Error("the quota is not empty")
	}
}

// After a panic at any step of an Allocate request nothing is held, and the client may ask again.
func TestAPanicInAllocateHoldsNothing(t *testing.T) {
	evenPair := stun.RawAttribute{Type: stun.AttrEvenPort, Value: []byte{0x80}}
	for name, c := range map[string]struct {
		method string
		passed int
		more   []stun.Setter
	}{
		"bind":                {"bind", 0, nil},
		"bind the odd port":   {"bind", 1, []stun.Setter{evenPair}},
		"watch":               {"watch", 0, nil},
		"watch, with a pair":  {"watch", 0, []stun.Setter{evenPair}},
		"answer":              {"reply", 0, nil},
		"answer, with a pair": {"reply", 0, []stun.Setter{evenPair}},
	} {
		t.Run(name, func(t *testing.T) {
			w, d := fragile(2, c.method, c.passed)
			p := offlinePath(1)
			ask := func() {
				m := stun.MustBuild(append([]stun.Setter{
					stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest),
					transport(17),
				}, c.more...)...)
				w.signAs(m, p, "s", "")
				w.fromClient(p, w.lookup(p), m.Raw)
			}
			ask()
			if got := w.server.stats.rejected[reasonPanic].Load(); got != 1 {
				t.Fatalf("%d panics", got)
			}
			if c.method == "reply" { // the pair was handed out: it waits for its time
				w.server.reserved.sweep(w, w.now+reserveTime)
			}
			nothingLeft(t, w, &d.memoryDriver)
			if len(w.opened) != 0 {
				t.Errorf("%d sockets are remembered", len(w.opened))
			}
			d.method = ""
			ask()
			a := w.lookup(p)
			if a == nil {
				t.Fatal("no allocation afterwards")
			}
			w.closeAllocation(a, closedByRefresh)
			w.server.reserved.sweep(w, w.now+reserveTime)
			nothingLeft(t, w, &d.memoryDriver)
		})
	}
}

// A socket that was handed over by a token is given back as well.
func TestAPanicWithATokenHoldsNothing(t *testing.T) {
	w, d := fragile(2, "watch", 1)
	p, second := offlinePath(1), offlinePath(2)
	ask := func(p *path, more ...stun.Setter) {
		m := stun.MustBuild(append([]stun.Setter{
			stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest),
			transport(17),
		}, more...)...)
		w.signAs(m, p, "s", "")
		w.fromClient(p, w.lookup(p), m.Raw)
	}
	ask(p, stun.RawAttribute{Type: stun.AttrEvenPort, Value: []byte{0x80}})
	a := w.lookup(p)
	if a == nil || a.reserved == nil {
		t.Fatal("no pair")
	}
	ask(second, token(a.reserved))
	if w.server.stats.rejected[reasonPanic].Load() != 1 || w.lookup(second) != nil {
		t.Fatal("no panic")
	}
	w.closeAllocation(a, closedByRefresh)
	nothingLeft(t, w, &d.memoryDriver)
}

// A panic while something is closed ends the process: state that clients share may be half changed.
func TestAPanicInTeardownIsNotRecovered(t *testing.T) {
	lifetime := stun.RawAttribute{Type: stun.AttrLifetime, Value: make([]byte, 4)}
	for name, c := range map[string]struct {
		method  string
		prepare func(*worker)
		attack  func(t *testing.T, w *worker, p *path)
	}{
		"its socket, after a refresh": {
			"closeSocket", nil, func(t *testing.T, w *worker, p *path) {
				m := stun.MustBuild(stun.TransactionID,
					stun.NewType(stun.MethodRefresh, stun.ClassRequest), lifetime)
				w.signAs(m, p, "s", "")
				w.fromClient(p, w.lookup(p), m.Raw)
			},
		},
		"its record, after a refresh": {
			"", func(w *worker) { w.server.cfg.Closed = func(Record) { panic("cannot record") } },
			func(t *testing.T, w *worker, p *path) {
				m := stun.MustBuild(stun.TransactionID,
					stun.NewType(stun.MethodRefresh, stun.ClassRequest), lifetime)
				w.signAs(m, p, "s", "")
				w.fromClient(p, w.lookup(p), m.Raw)
			},
		},
		"its socket, after another panic": {
			"closeSocket", nil, func(t *testing.T, w *worker, p *path) {
				a := w.lookup(p)
				far := endpointOf(netip.MustParseAddrPort("8.8.8.8:9"))
				if a.bindChannel(w.now, minChannel, far) != reasonNone {
					t.Fatal("no channel")
				}
				w.fromClient(p, a, channelMessage(minChannel, []byte("break")))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := fragile(2, c.method, 0)
			p := offlinePath(1)
			offlineAllocation(t, w, p)
			if c.prepare != nil {
				c.prepare(w)
			}
			var got any
			func() {
				defer func() { got = recover() }()
				c.attack(t, w, p)
			}()
			if text, _ := got.(string); !strings.HasPrefix(text, "cannot ") {
				t.Errorf("the panic was recovered: %v", got)
			}
		})
	}
}

// The same over a network with the drivers there are: here what is asked about a session panics.
func TestAPanicOfOneRequestLeavesOthersAlone(t *testing.T) {
	for name, plain := range map[string]bool{"batches": false, "net": true} {
		t.Run(name, func(t *testing.T) {
			var log logtest.Buffer
			s := start(t, func(c *Config) {
				c.plain = plain
				c.Log = slog.New(slog.NewTextHandler(&log, nil))
				c.Holder = func(_, session string) (Holder, bool) {
					if session == "broken" {
						panic("no such room")
					}
					return Holder{}, true
				}
			})
			before := dial(t, s, "udp", "t", "sound")
			before.allocate()
			broken := dial(t, s, "udp", "t", "broken")
			broken.challenge()
			broken.send(broken.signed(stun.MethodAllocate, transport(17)).Raw)
			eventually(t, func() bool { return refusedBy(s, reasonPanic) == 1 })
			if got := before.permit(netip.MustParseAddr("8.8.8.8")); got != 0 {
				t.Errorf("a permission is refused with %d", got)
			}
			dial(t, s, "udp", "t", "after").allocate()
			if got := s.Stats().Allocations; got != 2 {
				t.Errorf("%d allocations", got)
			}
			for _, want := range []string{"no such room", "handleSTUN"} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("the log has no %q: %s", want, log.String())
				}
			}
		})
	}
}
