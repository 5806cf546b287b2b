package transport

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// checkPoller looks for what a closed server has left behind.
func checkPoller(t *testing.T, s *WebSocket) {
	t.Helper()
	if s.poller == nil {
		return
	}
	s.poller.mu.Lock()
	defer s.poller.mu.Unlock()
	for fd, k := range s.poller.byFD {
		if k != nil {
			t.Errorf("the table still has descriptor %d", fd)
		}
	}
	if s.poller.queueHead != nil {
		t.Error("somebody waits to be read")
	}
}

// cork has what is written wait for the end, so that both are sent in one segment.
func cork(t *testing.T, g *guest) {
	raw, err := g.tcp.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1)
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestIdleConnectionsNeedNoGoroutine(t *testing.T) {
	eachWay(t, ways[:3], func(t *testing.T, w way) {
		s := openSite(t, w, unswept, echoes(make(chan End, 150)))
		before := runtime.NumGoroutine()
		for range 150 {
			g := s.dial()
			s.say(g, "hello")
			s.expect(g, "hello")
		}
		// those who wait, and workers; the HTTP server's are on their way out
		most := before + 2 + 2*runtime.GOMAXPROCS(0)
		for runtime.NumGoroutine() > most {
			runtime.Gosched()
			if t.Context().Err() != nil {
				return
			}
		}
	})
}

// An event for a descriptor may reach the connection that has it next: nothing was read from that
// one's end.
func TestEventsOfReusedDescriptor(t *testing.T) {
	eachWay(t, ways[:3], func(t *testing.T, w way) {
		ends := make(chan End, 1)
		conns := make(chan Conn, 1)
		s := openSite(t, w, unswept, func(c Conn) Receiver { conns <- c; return &echo{c, ends} })
		g := s.dial()
		k := (<-conns).(*wsConn).sock
		for range 100 {
			s.say(g, "before")
			s.expect(g, "before")
			s.ws.poller.dispatchEvents(
				[]unix.EpollEvent{
					{Fd: k.fd, Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLHUP},
				},
			)
			s.say(g, "after")
			s.expect(g, "after")
		}
		for deadline := time.Now().Add(failSafe); k.state.Load() != 0; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("at rest its state is %b", k.state.Load())
			}
		}
	})
}

// meddling does something behind the next look at the socket, before its reader knows what was
// there.
type meddling struct {
	syscall.RawConn
	then func()
}

func (m *meddling) Control(f func(fd uintptr)) error {
	err := m.RawConn.Control(f)
	if then := m.then; then != nil {
		m.then = nil
		then()
	}
	return err
}

// A turn finds nothing, and before it ends there are a message and the end.
func TestHangupDuringEmptyPass(t *testing.T) {
	eachWay(t, ways[:3], func(t *testing.T, w way) {
		ends, got, conns := make(chan End, 1), make(chan string, 1), make(chan Conn, 1)
		s := openSite(t, w, unswept,
			func(c Conn) Receiver { conns <- c; return &keeper{got, ends} })
		g := s.dial()
		k := (<-conns).(*wsConn).sock
		until := func(what string, is func(state uint32) bool) {
			t.Helper()
			for deadline := time.Now().Add(failSafe); !is(k.state.Load()); runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatalf("%s: its state is %b", what, k.state.Load())
				}
			}
		}
		until("at rest", func(state uint32) bool { return state == 0 })
		if !k.notify(0) {
			t.Fatal("somebody else reads")
		}
		k.raw = &meddling{k.raw, func() {
			s.say(g, "the last")
			_ = g.tcp.CloseWrite()
			until("told of the end", func(state uint32) bool { return state&stateHangup != 0 })
		}}
		for k.readPass() {
			continue
		}
		if m := <-got; m != "the last" {
			t.Errorf("got %q", m)
		}
		select {
		case e := <-ends:
			if e != (End{Code: 1006}) {
				t.Errorf("ended as %+v", e)
			}
		case <-time.After(failSafe):
			t.Fatal("the end was not seen")
		}
	})
}

type bell struct{ rung chan struct{} }

func (b bell) Message([]byte, Reply) { b.rung <- struct{}{} }
func (bell) Closed(End)              {}

func TestReadingAllocatesNothing(t *testing.T) {
	b := bell{make(chan struct{})}
	s := openSite(t, ways[0], unswept, func(Conn) Receiver { return b })
	g, text := s.dial(), masked(0x81, "hello")
	if n := testing.AllocsPerRun(200, func() {
		_, _ = g.tcp.Write(text)
		<-b.rung
	}); n >= 1 { // a pool may be emptied once
		t.Errorf("%v allocations a message", n)
	}
}

// Who leads may still have a call to make when the last connection has ended. The descriptor that
// it is for must not be another's by then.
func TestPollerCloseWaitsForPrimary(t *testing.T) {
	for range 10 { // it may be the other one that takes the event, when both have just begun
		closeWhileLeading(t)
	}
}

func closeWhileLeading(t *testing.T) {
	p := newPoller()
	if p == nil {
		t.Fatal("no poller")
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.Close(pipe[0]), unix.Close(pipe[1]) }()
	p.byFD = make([]*socket, pipe[0]+1)

	p.mu.Lock() // holds up who leads, between its two calls
	if err := p.sockets.control(unix.EPOLL_CTL_ADD, int32(pipe[0]),
		unix.EPOLLIN|unix.EPOLLET); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(pipe[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	for n := 1; n > 0; runtime.Gosched() { // until the event was taken
		n, _ = unix.Poll([]unix.PollFd{{Fd: int32(p.sockets.fd), Events: unix.POLLIN}}, 0)
	}
	closed := make(chan struct{})
	go func() { p.close(); close(closed) }()
	for range 10_000 {
		runtime.Gosched()
		if _, err := unix.FcntlInt(uintptr(p.standby.fd), unix.F_GETFD, 0); err != nil {
			t.Error("closed while it is in use:", err)
			break
		}
	}
	p.mu.Unlock()
	<-closed
}

// A read stops before a byte that is urgent (RFC 9293, section 3.8.5), however much has come
// behind it.
func TestUrgentDataHidesNoMessage(t *testing.T) {
	eachWay(t, ways[:1], func(t *testing.T, w way) {
		h := &held{in: make(chan struct{}), out: make(chan struct{}), end: make(chan End, 1)}
		s := openSite(t, w, unswept, func(c Conn) Receiver { h.conn = c; return h })
		g := s.dial()
		s.say(g, "first")
		<-h.in
		raw, err := g.tcp.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		s.say(g, "second")
		if err := raw.Control(func(fd uintptr) {
			if err := unix.Sendto(int(fd), []byte{0}, unix.MSG_OOB, nil); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		s.say(g, "third")
		h.out <- struct{}{}
		for _, which := range []string{"second", "third"} {
			select {
			case <-h.in:
				h.out <- struct{}{}
			case <-time.After(failSafe):
				t.Fatalf("the %s was not read", which)
			}
		}
	})
}
