package relay

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
)

// fragileDriver panics at a payload.
type fragileDriver struct{ memoryDriver }

func (d *fragileDriver) toPeer(a *allocation, c *channel, payload []byte) {
	if string(payload) == "break" {
		panic("cannot send this")
	}
	d.memoryDriver.toPeer(a, c, payload)
}

// A panic in one packet's handling closes the allocation it was for and is logged with its stack.
// Other clients go on, and so does this one when it allocates anew.
func TestAPanicClosesOneAllocation(t *testing.T) {
	w, memory := offline(8)
	d := &fragileDriver{*memory}
	d.memoryDriver.worker, w.driver = w, d
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

// The same over a network with the drivers there are: here what is asked about a session panics.
func TestAPanicOfOneRequestLeavesOthersAlone(t *testing.T) {
	for name, plain := range map[string]bool{"batches": false, "net": true} {
		t.Run(name, func(t *testing.T) {
			var log lockedText
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
