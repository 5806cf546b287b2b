package relay

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// workerOf is the worker of the allocation at a relayed address.
func workerOf(s *Server, at netip.AddrPort) int {
	if socket := s.addresses().relays[0].socketAt(at.Port()); socket != nil {
		return socket.allocation.worker.index
	}
	return -1
}

// Clients of two workers talk to each other, while their allocations are refreshed, ended by them,
// taken away with their session, and while all is closed: the race detector looks on, and what has
// arrived is what was sent.
func TestWorkersRelayToEachOtherWhileAllocationsEnd(t *testing.T) {
	const pairs, rounds = 4, 40
	var kicked sync.Map // sessions that are in no room any more
	var counted atomic.Int64
	s, clock := startWithClock(t, func(c *Config) {
		c.Workers = 2
		c.Holder = func(_, session string) (Holder, bool) {
			_, gone := kicked.Load(session)
			return Holder{Room: "r"}, !gone
		}
		c.Closed = func(Record) { counted.Add(1) }
	})
	var running sync.WaitGroup
	var crossed, made atomic.Int64
	for p := range pairs {
		running.Go(func() {
			for r := range rounds {
				name := fmt.Sprintf("p%d-%d", p, r)
				// Streams go to the workers in turn; datagrams as the system likes.
				a, b := dial(t, s, transports[r%2], "t", name+"a"), dial(t, s, "tcp", "t", name+"b")
				// Strangers are answered so many times a second.
				clock.now.Add(int64(20 * time.Millisecond))
				atA, atB := a.allocate(), b.allocate()
				made.Add(2)
				if workerOf(s, atA) != workerOf(s, atB) {
					crossed.Add(1)
				}
				if one, two := a.bind(0x4000, atB), b.bind(0x4001, atA); one != 0 || two != 0 {
					t.Errorf("channels: %d, %d", one, two)
					return
				}
				for i := range 5 {
					text := fmt.Sprint(name, i)
					a.channelData(0x4000, text)
					if data, _ := b.receive(); data != text {
						t.Errorf("b got %q", data)
					}
					b.channelData(0x4001, text)
					if data, _ := a.receive(); data != text {
						t.Errorf("a got %q", data)
					}
				}
				// One sends on while the other's allocation changes or ends.
				var sending sync.WaitGroup
				sending.Go(func() {
					for range 50 {
						a.channelData(0x4000, "on")
					}
				})
				switch r % 4 {
				case 0:
					if got := b.refresh(700); got != 0 {
						t.Errorf("refresh: %d", got)
					}
				case 1:
					if got := b.refresh(0); got != 0 {
						t.Errorf("the end: %d", got)
					}
				case 2:
					kicked.Store(name+"b", true)
					clock.pass(holderInterval)
				default:
					_ = b.conn.Close()
				}
				sending.Wait()
				// The system may give a port to another client that this one had; its allocation
				// must not be there then.
				if got := a.refresh(0); got != 0 {
					t.Errorf("the end of who sent: %d", got)
				}
				_ = a.conn.Close()
				_ = b.conn.Close()
			}
		})
	}
	running.Wait()
	if crossed.Load() == 0 {
		t.Error("no two clients were of different workers")
	}
	// UDP clients are there until their time is over; the last of them end with the relay, in the
	// middle of a talk.
	clock.now.Add(int64(time.Second))
	var last []*rawClient
	var at []netip.AddrPort
	for i := range 4 {
		c := dial(t, s, transports[i%2], "t", fmt.Sprint("last", i))
		last, at = append(last, c), append(at, c.allocate())
		made.Add(1)
	}
	for i, c := range last {
		if got := c.bind(0x4000, at[(i+1)%len(at)]); got != 0 {
			t.Fatalf("channel: %d", got)
		}
	}
	message := channelMessage(0x4000, []byte("last"))
	var begun sync.WaitGroup
	for _, c := range last {
		begun.Add(1)
		running.Go(func() {
			for i := range 2000 {
				if i == 100 {
					begun.Done()
				}
				_, _ = c.conn.Write(message) // until nobody listens any more
			}
		})
	}
	begun.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	running.Wait()
	if st := s.Stats(); st.Allocations != 0 || int64(st.Created) != made.Load() ||
		counted.Load() != made.Load() {
		t.Errorf("%d allocations left, %d made, %d ended, want %d",
			st.Allocations, st.Created, counted.Load(), made.Load())
	}
}
