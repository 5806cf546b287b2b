package relay

import (
	"io"
	"net"
	"sync"
	"testing"
)

// quietServer has a worker that does not run: only streams matter.
func quietServer() *Server {
	s := &Server{done: make(chan struct{})}
	s.streams.init()
	w := newWorker(s, 0)
	w.driver = &netDriver{worker: w, woken: make(chan struct{}, 1)}
	s.workers = []*worker{w}
	return s
}

// A connection that is handed in while the server closes is served and waited for, or closed; nothing in between.
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
	set.init()
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
