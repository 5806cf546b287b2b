package relay

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// broken is a channel that panics when it is used: nothing sets its permission or its relay.
func broken(peer endpoint) *channel {
	c := &channel{number: minChannel, peer: peer, route: route{kind: routeInternal}}
	c.expires.Store(int64(time.Duration(1) << 60))
	return c
}

// The packets that came merged with one that panicked are not served on the closed allocation.
func TestPacketsMergedWithAPanicFindNoAllocation(t *testing.T) {
	w, _ := offline(8)
	p := offlinePath(1)
	a := offlineAllocation(t, w, p)
	a.lastUp = broken(endpointOf(netip.MustParseAddrPort("192.0.2.1:50001")))
	d := &epollDriver{worker: w}
	d.last.path = *p
	for range 3 {
		d.clientPacket(channelMessage(minChannel, []byte("one of three")))
	}
	rejected := &w.server.stats.rejected
	if got := rejected[reasonPanic].Load(); got != 1 || !a.closed.Load() {
		t.Fatalf("%d panics", got)
	}
	if got := rejected[reasonNoAllocation].Load(); got != 2 {
		t.Errorf("%d of 2 packets found no allocation", got)
	}
	if got := a.dropped[reasonNoPermission].Load(); got != 0 {
		t.Errorf("%d packets were served on the closed allocation", got)
	}
}

// The same with packets from a peer: a batch of two reads, each of three merged packets.
func TestPacketsOfAPeerMergedWithAPanicAreDropped(t *testing.T) {
	w, _ := offline(8)
	a := offlineAllocation(t, w, offlinePath(1))
	s := a.relays[v4]
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fd, err := openSocket(netip.MustParseAddrPort("127.0.0.1:0"), relayBuffer, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	s.fd = fd
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*unix.SockaddrInet4).Port}
	control := make([]byte, unix.CmsgSpace(2))
	n := putControl(control, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], 100)
	for range 2 {
		if _, _, err := conn.WriteMsgUDP(make([]byte, 300), control[:n], to); err != nil {
			t.Fatal(err)
		}
	}
	a.lastDown = broken(endpointOf(addrPort(conn.LocalAddr())))
	d := &epollDriver{worker: w, receiver: newReceiver(4)}
	if got := d.receiveFromPeers(s, 0); got != 2 {
		t.Fatalf("%d reads", got)
	}
	if got := w.server.stats.rejected[reasonPanic].Load(); got != 1 || !a.closed.Load() {
		t.Fatalf("%d panics", got)
	}
	for r := range reasonCount {
		if got := a.dropped[r].Load(); got != 0 && r != reasonPanic {
			t.Errorf("%d packets were served on the closed allocation: %s", got, reasonNames[r])
		}
	}
}
