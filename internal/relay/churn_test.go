package relay

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// IEUM_CHURN says how long TestClientsComeAndGo lets a thousand clients come and go, with each
// driver. Without it there are places for a quarter of them, and each place is taken a few times.
var (
	churnTime, _ = time.ParseDuration(os.Getenv("IEUM_CHURN"))
	churnPlaces  = 250
)

func init() {
	if churnTime > 0 {
		churnPlaces = 1000
	}
}

const (
	// churnAtOnce bounds what is in flight: kernel buffers drop what is more, and a test client
	// does not repeat itself.
	churnAtOnce = 64
	// churnStep passes with each life, so a place is held for 100 s, and an allocation whose client
	// vanished for 6,000 lives.
	churnStep = 100 * time.Millisecond
)

// Many clients at a time, over UDP, TCP and TLS: each allocates, sends and gets its packets back,
// refreshes, and goes with a goodbye or without one. When all have gone, so has what they took:
// ports, goroutines, descriptors and memory.
func TestClientsComeAndGo(t *testing.T) {
	c := newChurn(t)
	c.run(2*churnPlaces, 0) // what grows once has grown
	c.rest()
	before := c.holds()
	if churnTime > 0 {
		c.run(0, churnTime)
	} else {
		c.run(2*churnPlaces, 0)
	}
	c.rest()
	after := c.holds()
	t.Logf("%d lives; %+v, then %+v", c.lives.Load(), before, after)
	if after.files != before.files {
		t.Errorf("%d descriptors, %d before", after.files, before.files)
	}
	if grown := int64(after.heap) - int64(before.heap); grown > 2<<20 {
		t.Errorf("the heap has grown by %d KB", grown>>10)
	}
	if got, want := c.ended.Load(), int64(c.s.Stats().Created); got != want ||
		got != c.lives.Load() {
		t.Errorf("%d allocations have ended of %d that were made in %d lives",
			got, want, c.lives.Load())
	}
}

type churn struct {
	t            *testing.T
	s            *Server
	clock        *clock
	overTLS      string
	far          netip.AddrPort // sends everything back
	turn         chan struct{}  // who holds one may send
	lives, ended atomic.Int64
	goroutines   int // without clients, at most
}

func newChurn(t *testing.T) *churn {
	c := &churn{t: t, turn: make(chan struct{}, churnAtOnce)}
	c.s, c.clock = startWithClock(t, func(cfg *Config) {
		cfg.Closed = func(Record) { c.ended.Add(1) }
	})
	c.far = echo(t)
	c.overTLS = fmt.Sprintf("%s:%d", c.s.addresses().listening[0], acceptTLS(t, c.s))
	c.goroutines = runtime.NumGoroutine()
	return c
}

// run takes each place again and again, until there have been so many lives, or for so long.
func (c *churn) run(lives int, long time.Duration) {
	var group sync.WaitGroup
	end := time.Now().Add(long)
	for place := range churnPlaces {
		group.Go(func() {
			for n := 0; (n+1)*churnPlaces <= lives || (long > 0 && time.Now().Before(end)); n++ {
				if !c.live(place, n) {
					return
				}
			}
		})
	}
	group.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
}

// live is one client's life; false when it failed.
func (c *churn) live(place, n int) (good bool) {
	network := []string{"udp", "udp", "tcp", "tls"}[(place+n)%4]
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	client, err := c.connect(network, place, n)
	if err != nil {
		c.t.Error(err)
		return false
	}
	defer func() { _ = client.conn.Close() }()
	client.allocate()
	if got := client.bind(0x4000, c.far); got != 0 {
		c.t.Errorf("%s: channel: %d", network, got)
		return false
	}
	talk := func(what string) bool {
		client.channelData(0x4000, what)
		got, _ := client.receive()
		if got != what {
			c.t.Errorf("%s: got %q for %q", network, got, what)
		}
		return got == what
	}
	if !talk(fmt.Sprintf("%d of %d", n, place)) {
		return false
	}
	<-c.turn // stay, while the others come and go
	c.clock.pass(churnStep)
	c.turn <- struct{}{}
	if got := client.refresh(600); got != 0 {
		c.t.Errorf("%s: refresh: %d", network, got)
		return false
	}
	if !talk("goodbye") {
		return false
	}
	if (place+n)%3 != 0 {
		if got := client.refresh(0); got != 0 {
			c.t.Errorf("%s: the end: %d", network, got)
			return false
		}
	}
	c.lives.Add(1)
	return true
}

// connect comes from a network of the place's own, since it is limited how many strangers of one
// network are answered, and from an address other than that of the lives before: a port that comes
// again may still have the allocation of one that vanished.
func (c *churn) connect(network string, place, n int) (*rawClient, error) {
	from := netip.AddrFrom4([4]byte{127, byte(1 + place/250), byte(1 + place%250), byte(1 + n%250)})
	to := netip.AddrPortFrom(c.s.addresses().listening[0], c.s.port).String()
	client := &rawClient{t: c.t, stream: network != "udp"}
	client.user, client.pass = c.s.Credentials("t", fmt.Sprint(place))
	var err error
	switch network {
	case "udp":
		client.conn, err = (&net.Dialer{LocalAddr: &net.UDPAddr{IP: from.AsSlice()}}).Dial(
			"udp",
			to,
		)
	case "tcp":
		client.conn, err = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}).Dial(
			"tcp",
			to,
		)
	default:
		client.conn, err = tls.DialWithDialer(
			&net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}},
			"tcp",
			c.overTLS,
			&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		)
	}
	if err != nil {
		return nil, err
	}
	return client, client.conn.SetDeadline(time.Now().Add(failSafe))
}

// rest lets what vanished expire, and returns when nothing is left.
func (c *churn) rest() {
	c.t.Helper()
	c.clock.pass(time.Hour)
	s := c.s
	eventually(c.t, func() bool {
		s.streams.mu.Lock()
		defer s.streams.mu.Unlock()
		return s.Stats().Allocations == 0 && len(s.streams.open) == 0 &&
			len(s.streams.unallocated) == 0 &&
			c.ended.Load() == int64(s.Stats().Created) &&
			runtime.NumGoroutine() <= c.goroutines
	})
	if n := s.streams.queuedMemory.Load(); n != 0 {
		c.t.Errorf("%d bytes wait for streams that have ended", n)
	}
	if !s.quota.empty() {
		c.t.Errorf("quota: %d in all, sessions %v", s.quota.total, s.quota.sessions)
	}
	for _, r := range s.addresses().relays {
		for i := range r.sockets {
			if r.sockets[i].Load() != nil {
				c.t.Errorf("port %d is held", int(r.min)+i)
			}
		}
	}
}

type held struct {
	files int
	heap  uint64
}

func (c *churn) holds() (h held) {
	c.t.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		c.t.Fatal(err)
	}
	return held{len(open), m.HeapAlloc}
}
