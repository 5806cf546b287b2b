package relay

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/pion/stun/v4"
)

// A million packets that mean nothing, from many networks, leave no state behind and cost a live call none of its packets.
func TestJunkLeavesNoStateAndCostsACallNothing(t *testing.T) {
	packets := 1_000_000
	if underRace || plainDriver {
		packets = 100_000
	}
	s := start(t, func(c *Config) { c.Workers = 1 })
	far := udpPeer(t, peerHost(t))
	caller := dial(t, s, "udp", "t", "caller")
	relayed := caller.allocate()
	if got := caller.bind(0x4000, localOf(far)); got != 0 {
		t.Fatalf("channel: %d", got)
	}
	to := netip.AddrPortFrom(s.listening[0], s.port)
	var strangers []net.Conn
	for i := range 250 {
		strangers = append(strangers, dialFrom(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, byte(i), 1}), 0), to))
	}
	before := goroutinesAndHeap()
	random := rand.New(rand.NewPCG(1, 2))
	for n := 0; n < packets; {
		for range 100 { // what fits into the listener's buffer together
			if _, err := strangers[random.IntN(len(strangers))].Write(junk(random)); err != nil {
				t.Fatal(err)
			}
			n++
		}
		// The relayed address is not spared either.
		sendFrom(t, far, relayed, "")
		what := fmt.Sprint(n)
		caller.channelData(0x4000, what)
		if got, _ := receiveAt(t, far); got != what {
			t.Fatalf("the peer got %q for %q", got, what)
		}
		sendFrom(t, far, relayed, what)
		for _, want := range []string{"", what} {
			if got, _ := caller.receive(); got != want {
				t.Fatalf("the caller got %q for %q", got, want)
			}
		}
	}
	if st := s.Stats(); st.Allocations != 1 || st.Allocated != 1 {
		t.Errorf("%d allocations, %d made", st.Allocations, st.Allocated)
	}
	s.quota.mu.Lock()
	if s.quota.total != 1 || len(s.quota.sessions) != 1 || len(s.quota.sources) != 1 {
		t.Errorf("quota: %d, %v, %v", s.quota.total, s.quota.sessions, s.quota.sources)
	}
	s.quota.mu.Unlock()
	after := goroutinesAndHeap()
	if after[0] != before[0] {
		t.Errorf("%d goroutines, %d before", after[0], before[0])
	}
	if grown := after[1] - before[1]; grown > 1<<20 {
		t.Errorf("the heap has grown by %d KB", grown>>10)
	}
	if got := caller.refresh(600); got != 0 {
		t.Errorf("refresh: %d", got)
	}
}

func goroutinesAndHeap() [2]int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return [2]int64{int64(runtime.NumGoroutine()), int64(m.HeapAlloc)}
}

// junk is a packet that no client of ours sends.
func junk(r *rand.Rand) []byte {
	body := make([]byte, r.IntN(120))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	head := func(kind uint16, length int) []byte {
		p := binary.BigEndian.AppendUint16(nil, kind)
		p = binary.BigEndian.AppendUint16(p, uint16(length))
		p = binary.BigEndian.AppendUint32(p, magicCookie)
		return append(p, "transaction!"...)
	}
	method := []stun.Method{stun.MethodBinding, stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind, stun.MethodSend}[r.IntN(6)]
	class := []stun.MessageClass{stun.ClassRequest, stun.ClassIndication, stun.ClassSuccessResponse, stun.ClassErrorResponse}[r.IntN(4)]
	kind := stun.NewType(method, class).Value()
	switch r.IntN(8) {
	case 0: // no message at all
		return body
	case 1: // a header, and attributes by chance
		body = body[:len(body)&^3]
		return append(head(kind, len(body)), body...)
	case 2: // the length is a lie
		return append(head(kind, r.IntN(1<<16)), body...)
	case 3: // an attribute that says it is longer than the message
		return append(head(kind, 8), 0, byte(r.IntN(40)), 0xff, 0xff, 1, 2, 3, 4)
	case 4: // data for a channel that is none of its
		p := binary.BigEndian.AppendUint16(nil, uint16(0x4000+r.IntN(0x4000)))
		return append(binary.BigEndian.AppendUint16(p, uint16(r.IntN(1<<16))), body...)
	case 5: // a request that nobody has signed
		return head(stun.NewType(method, stun.ClassRequest).Value(), 0)
	case 6: // cut off
		return head(kind, 0)[:r.IntN(stunHeader)]
	}
	// signed with a key that is not known here
	m, err := stun.Build(stun.NewTransactionIDSetter([stun.TransactionIDSize]byte{byte(r.Uint32())}), stun.NewType(method, class), transport(17),
		stun.NewUsername("4000000000:t.s"), stun.NewRealm("ieum"), stun.NewNonce(fmt.Sprintf("%040x", r.Uint64())),
		stun.NewShortTermIntegrity("wrong"))
	if err != nil {
		return nil
	}
	return m.Raw
}
