package relay

import (
	"strings"
	"testing"
)

// What cannot be sent is counted as lost, once, with its allocation, and not as relayed. A packet
// that fills a datagram has no room for the headers in front of it.
func TestWhatIsNotSentIsCountedAsLost(t *testing.T) {
	records := make(chan Record, 1)
	s := start(t, func(c *Config) { c.Closed = func(r Record) { records <- r } })
	far := udpPeer(t, peerHost(t))
	c := dial(t, s, "udp", "t", "s")
	relayed := c.allocate()
	full := strings.Repeat("x", 65507)
	if got := c.permit(localOf(far).Addr()); got != 0 {
		t.Fatalf("permission: %d", got)
	}
	sendFrom(t, far, relayed, full)
	sendFrom(t, far, relayed, "fits")
	if data, _ := c.receive(); data != "fits" {
		t.Errorf("client got %d bytes", len(data))
	}
	if got := c.bind(0x4000, localOf(far)); got != 0 {
		t.Fatalf("channel: %d", got)
	}
	sendFrom(t, far, relayed, full)
	sendFrom(t, far, relayed, "too")
	if data, _ := c.receive(); data != "too" {
		t.Errorf("client got %d bytes", len(data))
	}
	c.refresh(0)
	r := <-records
	if r.Down != (Traffic{2, 7}) || r.Dropped[reasonNames[reasonUnsent]] != 2 ||
		len(r.Dropped) != 1 {
		t.Errorf("record is %+v", r)
	}
	if st := s.Stats(); st.PeerToClient != r.Down || refusedBy(s, reasonUnsent) != 2 {
		t.Errorf("stats are %+v", st)
	}
}

// The same over a stream whose client does not read, from a peer and from another client of ours.
func TestWhatASlowStreamLosesIsNotCountedAsRelayed(t *testing.T) {
	s, st, _ := pipe(t)
	w := newWorker(s, 0)
	a, up := &allocation{worker: w, client: path{stream: st}}, &allocation{worker: w}
	peer := endpointOf(localOf(udpPeer(t, "127.0.0.1")))
	a.peers.Store(noPeers)
	if !a.permit(0, peer.ip) {
		t.Fatal("no permission")
	}
	for range maxQueuedFrames {
		st.sendSTUN(bindingRequest)
	}
	socket, pkt := &relaySocket{allocation: a}, packet{payload: []byte("data")}
	w.toClient(socket, peer, pkt, nil)
	w.toClient(socket, peer, pkt, up)
	w.toClientChannel(a, &channel{number: minChannel}, pkt, nil, nil)
	w.toClientChannel(
		a,
		&channel{number: minChannel, permission: a.peers.Load().permissionEntry(peer.ip)},
		pkt,
		nil,
		up,
	)
	if a.down.load() != (Traffic{}) || up.up.load() != (Traffic{}) ||
		w.down.load() != (Traffic{}) ||
		w.up.load() != (Traffic{}) {
		t.Errorf("counted %+v and %+v", a.down.load(), up.up.load())
	}
	if a.dropped[reasonSlowStream].Load() != 4 || refusedBy(s, reasonSlowStream) != 4 {
		t.Errorf("%d lost", a.dropped[reasonSlowStream].Load())
	}
}
