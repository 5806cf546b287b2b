package relay

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// quietServer has a worker that does not run: only streams matter.
func quietServer() *Server {
	s := &Server{done: make(chan struct{})}
	s.streams.init(maxStreams)
	w := newWorker(s, 0)
	w.driver = &netDriver{worker: w, woken: make(chan struct{}, 1)}
	s.workers = []*worker{w}
	return s
}

// A connection that is handed in while the server closes is served and waited for, or closed;
// nothing in between.
func TestConnectionsThatComeWhileClosing(t *testing.T) {
	const rounds, conns = 300, 4
	for range rounds {
		s := quietServer()
		var group sync.WaitGroup
		var ends []net.Conn
		for range conns {
			near, far := net.Pipe()
			ends = append(ends, far)
			group.Go(func() { s.ServeConn(near) })
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s.streams.mu.Lock()
		if n := len(s.streams.open); n != 0 {
			t.Errorf("%d connections are open after Close", n)
		}
		s.streams.mu.Unlock()
		group.Wait()
		for _, far := range ends {
			if _, err := far.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("a connection ends with %v", err)
			}
			_ = far.Close()
		}
	}
}

// slowToClose waits in Close for all the others to be there as well.
type slowToClose struct {
	net.Conn
	all *sync.WaitGroup
}

func (c slowToClose) Close() error {
	c.all.Done()
	c.all.Wait()
	return c.Conn.Close()
}

func TestSlowConnectionsAreClosedTogether(t *testing.T) {
	const conns = 16
	set := &streamSet{}
	set.init(maxStreams)
	var all sync.WaitGroup
	all.Add(conns)
	for range conns {
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		if !set.add(&stream{conn: slowToClose{near, &all}}, func() {}) {
			t.Fatal("refused")
		}
	}
	set.close()
}

func TestCloseLeavesNeitherGoroutineNorPort(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s, stop := startHere(
		t,
		Config{
			Listen:     "127.0.0.1:0",
			AllowPeers: nets("127.0.0.0/8"),
			Secret:     secret,
			plain:      plainDriver,
		},
	)
	far := udpPeer(t, peerHost(t))
	var ports []netip.AddrPort
	for i := range 20 {
		c := dial(t, s, transports[i%2], "t", "s")
		relayed := c.allocate()
		c.bind(0x4000, localOf(far))
		ports = append(ports, relayed)
	}
	silent, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	if st := s.Stats(); st.Allocations != 20 {
		t.Errorf("%d allocations", st.Allocations)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	stop()
	goleak.VerifyNone(t, before)
	if st := s.Stats(); st.Allocations != 0 || !s.quota.empty() || len(s.streams.open) != 0 ||
		len(s.streams.unallocated) != 0 {
		t.Errorf("left: %+v, %v, %v, %v",
			st, s.quota.sessions, s.streams.open, s.streams.unallocated)
	}
	for _, at := range append(
		ports, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(s.Port())),
	) {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Errorf("%v is still open: %v", at, err)
			continue
		}
		_ = conn.Close()
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestPortInUseIsAnErrorThatLeavesNothingOpen(t *testing.T) {
	// An address of this test alone: on 127.0.0.1 a stranger's TCP connection may have the number.
	taken := udpPeer(t, "127.0.0.77")
	listen := localOf(taken).String()
	if s, err := Start(Config{Listen: listen, Secret: secret}); err == nil {
		t.Errorf("started: %v", s.Close())
	}
	// Nor do two relays share a port, as their sockets could.
	first := start(t, nil)
	if s, err := Start(
		Config{Listen: fmt.Sprintf("127.0.0.1:%d", first.Port()), Secret: secret},
	); err == nil {
		t.Errorf("a second one started: %v", s.Close())
	}
	if _, err := Start(
		Config{
			Listen:    "127.0.0.1:0",
			Addresses: []Address{loopback("203.0.113.9")},
			Secret:    secret,
		},
	); err == nil ||
		!strings.Contains(err.Error(), "public/private") {
		t.Errorf("an address that is not ours: %v", err)
	}
}
