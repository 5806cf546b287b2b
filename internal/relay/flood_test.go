package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// junk makes packets that no client has reason to send, always the same ones.
type junk struct {
	*rand.Rand
	samples [][]byte
}

func newJunk(t *testing.T) *junk {
	t.Helper()
	j := &junk{Rand: rand.New(rand.NewPCG(1, 2))}
	for _, method := range []stun.Method{
		stun.MethodBinding, stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission,
		stun.MethodChannelBind, stun.MethodSend, 0xfff,
	} {
		for _, class := range []stun.MessageClass{
			stun.ClassRequest, stun.ClassIndication, stun.ClassSuccessResponse,
			stun.ClassErrorResponse,
		} {
			m, err := stun.Build(
				stun.TransactionID,
				stun.NewType(method, class),
				transport(17),
				life(3600),
				peer(
					netip.MustParseAddrPort("127.0.0.2:9"),
				),
				stun.RawAttribute{Type: stun.AttrChannelNumber, Value: []byte{0x40, 0, 0, 0}},
				stun.RawAttribute{
					Type:  stun.AttrData,
					Value: []byte("junk"),
				},
				stun.NewUsername("9999999999:t.s"),
				stun.NewRealm(defaultRealm),
				stun.NewNonce(
					"obMatJos2gAAAAAAAAAAAAAAAAAAAAAAAAA",
				),
				stun.NewLongTermIntegrity("9999999999:t.s", defaultRealm, "guessed"),
			)
			if err != nil {
				t.Fatal(err)
			}
			j.samples = append(j.samples, m.Raw)
		}
	}
	return j
}

// next is one packet.
func (j *junk) next() []byte {
	sample := slices.Clone(j.samples[j.IntN(len(j.samples))])
	switch j.IntN(6) {
	case 0: // as it is
		return sample
	case 1: // cut
		return sample[:j.IntN(len(sample))]
	case 2: // some bytes are others
		for range 1 + j.IntN(8) {
			sample[j.IntN(len(sample))] ^= byte(1 + j.IntN(255))
		}
		return sample
	case 3: // attributes of any kind and length in a sound header
		b := sample[:stunHeader]
		for range 1 + j.IntN(40) {
			b = binary.BigEndian.AppendUint16(b, uint16(j.IntN(0x30)+j.IntN(2)*0x8000))
			n := j.IntN(12)
			b = binary.BigEndian.AppendUint16(b, uint16(n+j.IntN(8)/7*j.IntN(65536)))
			b = append(b, make([]byte, (n+3)&^3)...)
		}
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)-stunHeader))
		return b
	case 4: // ChannelData without a channel, with lengths that are wrong
		b := binary.BigEndian.AppendUint16(nil, uint16(0x4000+j.IntN(0x2000)))
		b = binary.BigEndian.AppendUint16(b, uint16(j.IntN(1+j.IntN(65536))))
		return append(b, make([]byte, j.IntN(1200))...)
	default: // anything
		b := make([]byte, j.IntN(1400))
		for i := range b {
			b[i] = byte(j.Uint32())
		}
		return b
	}
}

// stillFailSafe begins the time anew after which a test that hangs ends.
func stillFailSafe(t *testing.T, conns ...*net.UDPConn) {
	t.Helper()
	for _, c := range conns {
		if err := c.SetDeadline(time.Now().Add(failSafe)); err != nil {
			t.Fatal(err)
		}
	}
}

// Malformed packets from many sources leave nothing behind and cost a call nothing: all its packets
// arrive meanwhile. With IEUM_SOAK it is a million. A packet of the call goes behind each few of
// the others, and paces them: no buffer of the system overflows.
func TestJunkLeavesNothingAndCostsACallNothing(t *testing.T) {
	packets := 100_000
	if os.Getenv("IEUM_SOAK") != "" {
		packets = 1_000_000
	}
	s := start(t, func(c *Config) { c.Workers = 1 })
	far := udpPeer(t, peerHost(t))
	call := dial(t, s, "udp", "t", "s")
	relayed := call.allocate()
	if got := call.bind(0x4000, localOf(far)); got != 0 {
		t.Fatalf("channel: %d", got)
	}
	var sources []*net.UDPConn
	for i := range 32 {
		sources = append(sources, udpPeer(t, fmt.Sprintf("127.0.%d.%d", 1+i%4, 3+i)))
	}
	server := netip.AddrPortFrom(s.addresses().listening[0], s.port)
	goroutines := runtime.NumGoroutine()
	j := newJunk(t)
	const atOnce = 48
	for round := range packets / atOnce {
		if round%1000 == 0 {
			stillFailSafe(t, append(sources, far, call.conn.(*net.UDPConn))...)
		}
		for range atOnce {
			to := server
			// Some of it comes to the relayed address, where no stranger is let in.
			if j.IntN(8) == 0 {
				to = relayed
			}
			source := sources[j.IntN(len(sources))]
			if _, err := source.WriteToUDPAddrPort(j.next(), to); err != nil {
				t.Fatal(err)
			}
		}
		number := fmt.Sprint(round)
		call.channelData(0x4000, number)
		if data, from := receiveAt(t, far); data != number || from != relayed {
			t.Fatalf("the peer got %q from %v, want %s", data, from, number)
		}
		sendFrom(t, far, relayed, number)
		if data, _ := call.receive(); data != number {
			t.Fatalf("the client got %q, want %s", data, number)
		}
	}
	// The same over streams: each is closed for what it sends.
	for range 50 {
		conn, err := net.Dial("tcp", server.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(append(bytes.Repeat([]byte{0xff}, 4), j.next()...))
		for {
			// It may be reset, with what it sent unread.
			if _, err := conn.Read(make([]byte, 512)); err != nil {
				break
			}
		}
		_ = conn.Close()
	}
	eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines })
	st := s.Stats()
	if st.Allocations != 1 || st.Created != 1 {
		t.Errorf("%d allocations, %d in all", st.Allocations, st.Created)
	}
	rounds := uint64(packets / atOnce)
	if st.ClientToPeer.Packets != rounds || st.PeerToClient.Packets != rounds {
		t.Errorf("relayed %+v up and %+v down, want %d packets each",
			st.ClientToPeer, st.PeerToClient, rounds)
	}
	for _, r := range []reasonCode{
		reasonMalformed, reasonNoAllocation, reasonNoPermission, reasonStaleNonce,
	} {
		if refusedBy(s, r) == 0 {
			t.Errorf("nothing was refused as %q", reasonNames[r])
		}
	}
	for _, r := range []reasonCode{reasonPanic, reasonUnsent, reasonOverBandwidth} {
		if n := refusedBy(s, r); n != 0 {
			t.Errorf("%d refused as %q", n, reasonNames[r])
		}
	}
	if got := call.refresh(0); got != 0 {
		t.Errorf("the end: %d", got)
	}
	if !s.quota.empty() || !s.reserved.empty() {
		t.Errorf("quota: %d, %v, %v, %v",
			s.quota.total, s.quota.sessions, s.quota.tenants, s.quota.sources)
	}
}
