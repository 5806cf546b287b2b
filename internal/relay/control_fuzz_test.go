package relay

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/pion/stun/v4"
)

// headers of IPv4 and UDP, which are on the wire as well.
const wireHeaders = 28

// FuzzControl: whatever comes from a stranger, or without a good signature from a client, makes and
// changes nothing, and is answered at most once and with little. Whatever a client signs is
// answered once, and leaves what there is in order.
func FuzzControl(f *testing.F) {
	w, _ := offline(4)
	methods := []stun.Method{
		stun.MethodBinding, stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission,
		stun.MethodChannelBind, stun.MethodSend,
	}
	for _, method := range methods {
		for _, class := range []stun.MessageClass{
			stun.ClassRequest, stun.ClassIndication, stun.ClassSuccessResponse,
		} {
			m := stun.MustBuild(
				stun.TransactionID,
				stun.NewType(method, class),
				transport(17),
				life(600),
				peer(
					netip.MustParseAddrPort("8.8.8.8:9"),
				),
				stun.RawAttribute{Type: stun.AttrChannelNumber, Value: []byte{0x40, 0, 0, 0}},
				stun.RawAttribute{Type: stun.AttrData, Value: []byte("data")},
			)
			f.Add(slices.Clone(m.Raw), true)
			if class == stun.ClassRequest {
				w.signAs(m, offlinePath(1), "s", "wrong")
			}
			f.Add(slices.Clone(m.Raw), false)
			_ = stun.Fingerprint.AddTo(m)
			f.Add(m.Raw, false)
		}
	}
	even := stun.MustBuild(
		stun.TransactionID,
		stun.NewType(stun.MethodAllocate, stun.ClassRequest),
		transport(17),
		stun.RawAttribute{Type: stun.AttrEvenPort, Value: []byte{0x80}},
	)
	f.Add(even.Raw, true)
	token := stun.MustBuild(
		stun.TransactionID,
		stun.NewType(stun.MethodAllocate, stun.ClassRequest),
		transport(17),
		dontFragment(),
		stun.RawAttribute{Type: stun.AttrReservationToken, Value: []byte("12345678")},
	)
	f.Add(token.Raw, true)
	both := stun.MustBuild(
		stun.TransactionID,
		stun.NewType(stun.MethodAllocate, stun.ClassRequest),
		transport(17),
		stun.RawAttribute{Type: attrAdditionalAddressFamily, Value: []byte{2, 0, 0, 0}},
	)
	f.Add(both.Raw, true)
	f.Add(channelMessage(0x4000, []byte("data")), false)
	f.Add(bindingRequest, false)
	f.Fuzz(func(t *testing.T, raw []byte, signed bool) {
		if len(raw) > maxDatagram {
			return
		}
		if signed {
			fuzzSigned(t, raw)
		} else {
			fuzzUnsigned(t, raw)
		}
	})
}

func fuzzUnsigned(t *testing.T, raw []byte) {
	w, d := offline(4)
	client := offlinePath(2)
	a := offlineAllocation(t, w, client)
	before, expires, sockets := a.peers.Load(), a.expires, a.relays
	for _, p := range []*path{offlinePath(1), client} {
		d.forget()
		in := slices.Clone(raw)
		w.fromClient(p, w.lookup(p), in)
		if w.server.stats.rejected[reasonPanic].Load() != 0 {
			t.Fatal("the parser broke")
		}
		if len(w.owned) != 1 || len(w.byClient) != 1 || len(d.sockets) != 1 ||
			!w.server.reserved.empty() {
			t.Fatalf("%d allocations, %d sockets", len(w.owned), len(d.sockets))
		}
		if a.closed.Load() || a.peers.Load() != before || a.expires != expires ||
			a.relays != sockets {
			t.Fatal("an allocation has changed")
		}
		if len(d.peerPayloads) != 0 || len(d.clientMessages) != 0 {
			t.Fatal("something was relayed")
		}
		if len(d.replies) > 1 {
			t.Fatalf("%d answers", len(d.replies))
		}
		if len(d.replies) == 0 {
			continue
		}
		m, answer := &stun.Message{Raw: raw}, &stun.Message{Raw: d.replies[0]}
		if m.Decode() != nil || answer.Decode() != nil || m.Type.Class != stun.ClassRequest ||
			answer.TransactionID != m.TransactionID {
			t.Fatalf("answer to what is no request: %v", answer)
		}
		times := 3
		if m.Type.Method == stun.MethodBinding {
			times = 2
		} else if code(answer) == 0 {
			t.Fatalf("success without a signature: %v", answer)
		}
		if in, out := len(raw)+wireHeaders, len(answer.Raw)+wireHeaders; out > times*in {
			t.Fatalf("%d bytes ask for %d: %v", in, out, answer)
		}
	}
}

// fuzzSigned takes the attributes of a message that end before a signature, and signs them.
func fuzzSigned(t *testing.T, raw []byte) {
	in := &stun.Message{Raw: slices.Clone(raw)}
	if !isSTUN(raw) || in.Decode() != nil || in.Type.Class != stun.ClassRequest {
		return
	}
	for _, attr := range []stun.AttrType{
		stun.AttrUsername, stun.AttrRealm, stun.AttrNonce, stun.AttrMessageIntegrity,
		stun.AttrMessageIntegritySHA256, stun.AttrFingerprint,
		stun.AttrPasswordAlgorithm, stun.AttrPasswordAlgorithms,
	} {
		if in.Contains(attr) {
			return
		}
	}
	w, d := offline(4)
	client, other := offlinePath(2), offlinePath(1)
	a := offlineAllocation(t, w, client)
	for _, p := range []*path{other, client} {
		m := &stun.Message{Raw: slices.Clone(raw)}
		if m.Decode() != nil || len(m.Raw) > 60000 {
			return
		}
		w.signAs(m, p, "s", "")
		if len(m.Raw) > maxDatagram || !isSTUN(m.Raw) {
			return
		}
		d.forget()
		w.fromClient(p, w.lookup(p), m.Raw)
		answered := 0
		switch m.Type.Method {
		case stun.MethodBinding,
			stun.MethodAllocate,
			stun.MethodRefresh,
			stun.MethodCreatePermission,
			stun.MethodChannelBind:
			answered = 1
		}
		if len(d.replies) != answered || len(d.peerPayloads)+len(d.clientMessages) != 0 ||
			w.server.stats.rejected[reasonPanic].Load() != 0 {
			t.Fatalf("%v: %d answers, want %d", m.Type, len(d.replies), answered)
		}
		if answered == 1 {
			answer := &stun.Message{Raw: d.replies[0]}
			if answer.Decode() != nil {
				t.Fatalf("answer %x", d.replies[0])
			}
			switch c := code(answer); c {
			case 0, 400, 403, 420, 437, 440, 442, 443, 508:
			default:
				t.Fatalf("%v: code %d", m.Type, c)
			}
			if m.Type.Method != stun.MethodBinding && !answer.Contains(stun.AttrMessageIntegrity) {
				t.Fatalf("%v: an answer without a signature", m.Type)
			}
		}
		// Every peer that has come in is one that may.
		for _, p := range a.peers.Load().permissions {
			if e := (endpoint{ip: p.ip}); !w.server.addresses().policy.allows(e.addr()) ||
				e.family() != v4 {
				t.Fatalf("permission for %v", e.addr())
			}
		}
		for _, c := range a.peers.Load().byNumber {
			if c.number < minChannel || c.number > maxChannel || c.peer.port == 0 ||
				c.socket == nil {
				t.Fatalf("channel %#x to %v", c.number, c.peer.addrPort())
			}
		}
	}
	for a := range w.owned {
		w.closeAllocation(a, closedByRefresh)
	}
	// What is reserved is given back when its time is over.
	w.now += 2 * reserveTime
	w.sweep()
	nothingLeft(t, w, d)
}

// offlineAllocation opens an allocation by the front door.
func offlineAllocation(t *testing.T, w *worker, p *path) *allocation {
	t.Helper()
	m := stun.MustBuild(
		stun.TransactionID,
		stun.NewType(stun.MethodAllocate, stun.ClassRequest),
		transport(17),
	)
	w.signAs(m, p, "s", "")
	w.fromClient(p, nil, m.Raw)
	a := w.lookup(p)
	if a == nil {
		t.Fatal("no allocation")
	}
	return a
}

// nothingLeft checks that all is as if no client had ever come.
func nothingLeft(t *testing.T, w *worker, d *memoryDriver) {
	t.Helper()
	q := w.server.quota
	if len(w.owned)+len(w.byClient)+len(d.sockets) != 0 || !q.empty() ||
		!w.server.reserved.empty() {
		t.Fatalf("left: %d allocations, %d clients, %d sockets, quota %d, reserved %d",
			len(w.owned), len(w.byClient), len(d.sockets), q.total, w.server.reserved.n.Load())
	}
	for _, r := range w.server.addresses().relays {
		for i := range r.sockets {
			if r.sockets[i].Load() != nil {
				t.Fatalf("port %d is kept", int(r.min)+i)
			}
		}
	}
	if n := w.server.stats.live.Load(); n != 0 {
		t.Fatalf("%d allocations are counted", n)
	}
}

// The same bytes from a client of the relay, as data on its channel, are relayed as they are.
func TestWhatTheControlPathRefusesPassesAsData(t *testing.T) {
	w, d := offline(4)
	p := offlinePath(1)
	a := offlineAllocation(t, w, p)
	if reason := a.bindChannel(
		w.now, minChannel, endpointOf(netip.MustParseAddrPort("8.8.8.8:9")),
	); reason != reasonNone {
		t.Fatalf("channel: %d", reason)
	}
	for _, payload := range [][]byte{bindingRequest, {}, bytes.Repeat([]byte{0xff}, 1200)} {
		d.forget()
		w.fromClient(p, a, channelMessage(minChannel, payload))
		if len(d.peerPayloads) != 1 || d.peerPayloads[0] != string(payload) || len(d.replies) != 0 {
			t.Errorf("%d bytes: %q", len(payload), d.peerPayloads)
		}
	}
}
