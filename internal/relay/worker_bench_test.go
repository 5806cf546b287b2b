package relay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/pion/stun/v4"
)

// countingDriver relays nothing and counts what it is given: a benchmark measures the worker alone.
type countingDriver struct {
	memoryDriver
	up, down int
}

func (d *countingDriver) toPeer(*allocation, *channel, []byte) { d.up++ }

func (d *countingDriver) toClient(
	*allocation,
	[]byte,
	*[channelHeader]byte,
	*openBatch,
	*allocation,
) {
	d.down++
}

// benchWorker has pairs of clients with a channel to each other. All are in one room of one
// license.
func benchWorker(b *testing.B, pairs int) (*worker, *countingDriver, []*allocation) {
	b.Helper()
	w, memory := offline(2 * pairs)
	d := &countingDriver{memoryDriver: *memory}
	d.memoryDriver.worker, w.driver = w, d
	// As much work as any limit, and never reached.
	w.bandwidth, w.sessionBand = byteCostAt(1<<40), byteCostAt(1<<40)
	w.server.cfg.Holder = func(string, string) (Holder, bool) {
		return Holder{"license", "user", "room"}, true
	}
	var list []*allocation
	for i := range 2 * pairs {
		p := offlinePath(uint16(1000 + i))
		request := func(method stun.Method, more ...stun.Setter) {
			m := stun.MustBuild(
				append(
					[]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)},
					more...)...)
			w.signAs(m, p, fmt.Sprint("s", i), "")
			w.fromClient(p, w.lookup(p), m.Raw)
		}
		request(
			stun.MethodAllocate,
			stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}},
		)
		a := w.lookup(p)
		if a == nil {
			b.Fatal("no allocation")
		}
		list = append(list, a)
	}
	for i, a := range list {
		if a.bindChannel(w.now, 0x4000, list[i^1].relays[v4].public) != reasonNone {
			b.Fatal("no channel")
		}
	}
	return w, d, list
}

const benchPayload = 1100

func benchMessage() []byte {
	message := make([]byte, channelHeader+benchPayload)
	binary.BigEndian.PutUint16(message, 0x4000)
	binary.BigEndian.PutUint16(message[2:], benchPayload)
	return message
}

// BenchmarkHairpin passes packets from one allocation to another, with all checks and counts, and
// no system call.
func BenchmarkHairpin(b *testing.B) {
	const pairs = 50
	w, d, list := benchWorker(b, pairs)
	message := benchMessage()
	const burst = 6 // packets of a video frame
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		a := list[n/burst%len(list)]
		w.now += 2
		binary.BigEndian.PutUint16(message, 0x4000)
		w.fromClient(&a.client, a, message)
		n++
	}
	if d.down != n {
		b.Fatalf("%d of %d packets were relayed", d.down, n)
	}
}

// BenchmarkToPeer passes packets from a client to a peer on the network.
func BenchmarkToPeer(b *testing.B) {
	w, d, list := benchWorker(b, 1)
	a := list[0]
	if a.bindChannel(
		w.now,
		0x4001,
		endpointOf(netip.MustParseAddrPort("8.8.8.8:4000")),
	) != reasonNone {
		b.Fatal("no channel")
	}
	message := benchMessage()
	binary.BigEndian.PutUint16(message, 0x4001)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		w.now += 2
		w.fromClient(&a.client, a, message)
		n++
	}
	if d.up != n {
		b.Fatalf("%d of %d packets were relayed", d.up, n)
	}
}

// BenchmarkToClient passes packets from a peer on the network to a client that has a channel for
// it.
func BenchmarkToClient(b *testing.B) {
	w, d, list := benchWorker(b, 1)
	a, peer := list[0], endpointOf(netip.MustParseAddrPort("8.8.8.8:4000"))
	if a.bindChannel(w.now, 0x4001, peer) != reasonNone {
		b.Fatal("no channel")
	}
	message := benchMessage()
	received := packet{message[channelHeader:], message}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		w.now += 2
		w.fromPeer(a.relays[v4], peer, received)
		n++
	}
	if d.down != n {
		b.Fatalf("%d of %d packets were relayed", d.down, n)
	}
}
