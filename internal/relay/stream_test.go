package relay

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"
)

// pipe is a stream over an in-memory connection, so that its limits pass in virtual time.
func pipe(t *testing.T) (*Server, *stream, net.Conn) {
	t.Helper()
	s := &Server{done: make(chan struct{})}
	s.streams.init(maxStreams)
	near, far := net.Pipe()
	c := newStream(s, nil, near)
	if !s.streams.add(c, func() {}) {
		t.Fatal("refused")
	}
	t.Cleanup(func() {
		_, _ = near.Close(), far.Close()
		close(s.done)
		s.wg.Wait()
	})
	return s, c, far
}

var bindingRequest = stun.MustBuild(
	stun.NewTransactionIDSetter([12]byte{1}),
	stun.BindingRequest,
).Raw

func readAll(c *stream) (messages [][]byte, err error) {
	for {
		f, err := c.readFrame()
		if err != nil {
			c.countError(err)
			return messages, err
		}
		messages = append(messages, bytes.Clone(f.bytes()))
		f.free()
	}
}

func TestStreamIsCutIntoMessages(t *testing.T) {
	channel := append([]byte{0x40, 1, 0, 5}, "hello\x00\x00\x00"...)
	empty := []byte{0x7f, 0xfe, 0, 0}
	large := append(binary.BigEndian.AppendUint16([]byte{0x40, 2}, 60001), make([]byte, 60004)...)
	stream := bytes.Join(
		[][]byte{bindingRequest, channel, empty, large, bindingRequest, channel},
		nil,
	)
	for _, piece := range []int{1, 3, 7, 1000, len(stream)} {
		synctest.Test(t, func(t *testing.T) {
			s, c, far := pipe(t)
			s.streams.allocated(c, true) // or it may send nothing large
			go func() {
				defer func() { _ = far.Close() }()
				for rest := stream; len(rest) > 0; {
					n := min(piece, len(rest))
					if _, err := far.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
			}()
			messages, err := readAll(c)
			want := [][]byte{bindingRequest, channel, empty, large, bindingRequest, channel}
			if !errors.Is(err, io.EOF) || len(messages) != len(want) {
				t.Fatalf("pieces of %d: %d messages, %v", piece, len(messages), err)
			}
			for i := range want {
				if !bytes.Equal(messages[i], want[i]) {
					t.Errorf("pieces of %d: message %d has %d bytes", piece, i, len(messages[i]))
				}
			}
		})
	}
}

func TestWhatIsNoTURNEndsTheStream(t *testing.T) {
	for name, junk := range map[string][]byte{
		"ChannelData first":        {0x40, 0, 0, 0},
		"HTTP":                     []byte("GET / HTTP/1.1\r\n\r\n"),
		"TLS":                      {0x16, 3, 1, 2, 0, 1, 0, 1},
		"STUN without the cookie":  make([]byte, 20),
		"STUN of an odd length":    append([]byte{0, 1, 0, 3}, bindingRequest[4:]...),
		"a reserved first byte":    {0x80, 0, 0, 0},
		"the longest STUN message": append([]byte{0, 1, 0xff, 0xff}, bindingRequest[4:]...),
	} {
		synctest.Test(t, func(t *testing.T) {
			s, c, far := pipe(t)
			go func() { _, _ = far.Write(junk) }()
			if messages, err := readAll(c); !errors.Is(err, errFraming) || len(messages) > 0 {
				t.Errorf("%s: %d messages, %v", name, len(messages), err)
			}
			if refusedBy(s, reasonMalformed) != 1 {
				t.Errorf("%s: not counted", name)
			}
		})
	}
}

func TestStreamThatEndsIsForgotten(t *testing.T) {
	s := start(t, nil)
	junk, good := dial(t, s, "tcp", "t", "s"), dial(t, s, "tcp", "t", "s")
	junk.send([]byte("GET / HTTP/1.1\r\n\r\n"))
	if _, err := junk.tryRead(); !errors.Is(err, io.EOF) {
		t.Errorf("junk: %v", err)
	}
	good.allocate()
	_ = good.conn.Close()
	eventually(t, func() bool {
		s.streams.mu.Lock()
		defer s.streams.mu.Unlock()
		return len(s.streams.open) == 0 && len(s.streams.unallocated) == 0 &&
			s.Stats().Allocations == 0
	})
}

func TestFirstMessageMustBeCompleteInTime(t *testing.T) {
	for name, write := range map[string]func(net.Conn){
		"silence": func(net.Conn) {},
		"half a header": func(far net.Conn) {
			_, _ = far.Write(bindingRequest[:3])
		},
		"drop by drop": func(far net.Conn) {
			for _, b := range bindingRequest {
				time.Sleep(2 * time.Second)
				if _, err := far.Write([]byte{b}); err != nil {
					return
				}
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, c, far := pipe(t)
			begin := time.Now()
			var group sync.WaitGroup
			group.Go(func() { write(far) })
			if messages, err := readAll(c); !errors.Is(err, os.ErrDeadlineExceeded) ||
				len(messages) > 0 {
				t.Errorf("%s: %d messages, %v", name, len(messages), err)
			}
			if took := time.Since(begin); took != messageTimeout {
				t.Errorf("%s: ended after %v", name, took)
			}
			if refusedBy(s, reasonSlowStream) != 1 {
				t.Errorf("%s: not counted", name)
			}
			_ = c.conn.Close()
			group.Wait()
		})
	}
}

func TestLaterMessagesMustBeCompleteInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, far := pipe(t)
		s.streams.allocated(c, true)
		begin := time.Now()
		go func() {
			_, _ = far.Write(bindingRequest)
			time.Sleep(10 * time.Minute)
			_, _ = far.Write(bindingRequest[:19])
		}()
		if messages, err := readAll(c); !errors.Is(err, os.ErrDeadlineExceeded) ||
			len(messages) != 1 {
			t.Errorf("%d messages, %v", len(messages), err)
		}
		if took := time.Since(begin); took != 10*time.Minute+messageTimeout {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestSilentStreamLivesAsLongAsItsAllocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, far := pipe(t)
		s.streams.allocated(c, true)
		begin := time.Now()
		go func() {
			_, _ = far.Write(bindingRequest)
			time.Sleep(time.Hour)
			_, _ = far.Write(bindingRequest)
			s.streams.allocated(c, false)
		}()
		messages, err := readAll(c)
		if !errors.Is(err, os.ErrDeadlineExceeded) || len(messages) != 2 {
			t.Errorf("%d messages, %v", len(messages), err)
		}
		if took := time.Since(begin); took < time.Hour || took > time.Hour+messageTimeout {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestClientThatDoesNotReadIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, far := pipe(t)
		s.streams.allocated(c, true)
		for range maxQueuedFrames {
			if !c.sendSTUN(bindingRequest) {
				t.Fatal("lost too early")
			}
		}
		if c.sendSTUN(bindingRequest) {
			t.Error("more than the bound is kept")
		}
		begin := time.Now()
		if c.write(nil); time.Since(begin) != writeTimeout {
			t.Errorf("after %v", time.Since(begin))
		}
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("still open: %v", err)
		}
	})
}

// Nor is it in bytes: large packets for clients that do not read would fill the memory.
func TestWhatWaitsForAClientIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, far := pipe(t)
		s.streams.allocated(c, true)
		large := make([]byte, 60000)
		fits := 0
		for c.sendChannelData(0x4000, large) {
			fits++
		}
		if want := maxQueuedBytes / (len(large) + channelHeader); fits != want ||
			len(c.out) != want {
			t.Errorf("%d messages wait, want %d", len(c.out), want)
		}
		// What has been written makes room again.
		stop := make(chan struct{})
		var writer sync.WaitGroup
		writer.Go(func() { c.write(stop) })
		if _, err := io.ReadFull(far, make([]byte, fits*(len(large)+channelHeader))); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := c.queuedBytes.Load(); got != 0 || !c.sendSTUN(bindingRequest) {
			t.Errorf("%d bytes wait", got)
		}
		_, err := io.ReadFull(far, make([]byte, len(bindingRequest)))
		if err != nil {
			t.Error(err)
		}
		synctest.Wait()
		close(stop)
		writer.Wait()
	})
}

// Many clients that do not read have a bound together, beyond which only a little waits for each.
func TestMemoryOfAllQueuesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := pipe(t)
		s.streams.allocated(c, true)
		s.streams.queuedMemory.Store(maxQueuedMemory)
		fits := 0
		for c.sendSTUN(bindingRequest) {
			fits++
		}
		if fits != fewQueuedFrames {
			t.Errorf("%d small messages wait", fits)
		}
		c.dropQueue()
		large := make([]byte, fewQueuedBytes-channelHeader)
		if !c.sendChannelData(0x4000, large) || c.sendChannelData(0x4000, large) {
			t.Error("not one large message waits")
		}
		s.streams.queuedMemory.Add(-maxQueuedMemory)
		if !c.sendChannelData(0x4000, large) {
			t.Error("not as before when memory is free again")
		}
		c.dropQueue()
		if n, memory := c.queuedBytes.Load(), s.streams.queuedMemory.Load(); n != 0 || memory != 0 {
			t.Errorf("%d bytes in %d are counted without a message", n, memory)
		}
	})
}

// Clients that do not read fill the memory of all queues, without an allocation or with many. Who
// reads has its queue all the same: a key frame comes in a burst, before the writer has run.
func TestClientsThatDoNotReadTakeNothingFromOthers(t *testing.T) {
	const burst = 64
	for name, allocated := range map[string]bool{"strangers": false, "allocations": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, honest, _ := pipe(t)
				s.streams.allocated(honest, true)
				video := make([]byte, 1200)
				idle := make([]*stream, 300)
				for i := range idle {
					near, far := net.Pipe()
					t.Cleanup(func() { _, _ = near.Close(), far.Close() })
					idle[i] = newStream(s, nil, near)
					idle[i].source.scope = uint32(i)
					if !s.streams.add(idle[i], func() {}) {
						t.Fatal("refused")
					}
					s.streams.allocated(idle[i], allocated)
				}
				for range 3 {
					for _, c := range idle {
						for c.sendSTUN(bindingRequest) {
						}
					}
					time.Sleep(2 * shedPause) // virtual
					for i := range burst {
						if !honest.sendChannelData(0x4000, video) {
							t.Fatalf("packet %d of a burst is lost", i)
						}
					}
					honest.dropQueue()
				}
				_ = honest.conn.SetReadDeadline(time.Now())
				_, err := honest.conn.Read(make([]byte, 1))
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the client that reads is closed: %v", err)
				}
			})
		})
	}
}

// A client that ends its allocation gets the answer to that, however much waits for it.
func TestTheEndOfAnAllocationIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := pipe(t)
		s.streams.allocated(c, true)
		for range 4 * fewQueuedFrames {
			c.sendChannelData(0x4000, []byte("data"))
		}
		s.streams.allocated(c, false)
		if !c.sendSTUN(bindingRequest) {
			t.Error("the answer is lost")
		}
	})
}

// A client without allocation says in its first bytes how much memory we shall keep for it: no more
// than for a request.
func TestLargeMessagesNeedAnAllocation(t *testing.T) {
	large := func(size int) []byte {
		return append(
			binary.BigEndian.AppendUint16([]byte{0, 1}, uint16(size-stunHeader)),
			bindingRequest[4:]...)
	}
	for size, want := range map[int]error{
		frameSize: io.ErrUnexpectedEOF, frameSize + 4: errFraming, 65532: errFraming,
	} {
		for _, before := range [][]byte{nil, bindingRequest} {
			synctest.Test(t, func(t *testing.T) {
				_, c, far := pipe(t)
				go func() {
					_, _ = far.Write(append(bytes.Clone(before), large(size)...))
					_ = far.Close()
				}()
				if _, err := readAll(c); !errors.Is(err, want) {
					t.Errorf("%d bytes after %d: %v", size, len(before), err)
				}
			})
		}
	}
}

// Four bytes announce 64 KB. Clients that send no more than those have little kept for all of them.
func TestMemoryOfLargeMessagesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := pipe(t)
		const size = 60_000
		header := binary.BigEndian.AppendUint16([]byte{0x40, 0}, size)
		var closed atomic.Int32
		for i := range 1000 {
			near, far := net.Pipe()
			c := newStream(s, nil, near)
			c.source.scope = uint32(i)
			if !s.streams.add(c, func() {}) {
				t.Fatal("refused")
			}
			s.streams.allocated(c, true)
			s.wg.Go(func() {
				_, _ = readAll(c)
				closed.Add(1)
			})
			go func() { _, _ = far.Write(append(bytes.Clone(bindingRequest), header...)) }()
			t.Cleanup(func() { _, _ = near.Close(), far.Close() })
		}
		synctest.Wait()
		if kept := 1000 - int(closed.Load()); kept > maxLargeMemory/size || kept < 500 {
			t.Errorf("%d large messages arrive at once", kept)
		}
		time.Sleep(messageTimeout)
		synctest.Wait()
		if n, memory := closed.Load(), s.streams.largeMemory.Load(); n != 1000 || memory != 0 {
			t.Errorf("%d are closed, and %d bytes are counted", n, memory)
		}
	})
}

// What waits leaves together over TCP, and one by one over TLS.
func TestWaitingMessagesShareAWriteButNotARecord(t *testing.T) {
	const messages = 5
	all := bytes.Repeat(bindingRequest, messages)
	for name, c := range map[string]struct {
		conn func(*recorded) net.Conn
		want [][]byte
	}{
		"tcp": {func(r *recorded) net.Conn { return r }, [][]byte{all}},
		"tls": {
			func(r *recorded) net.Conn { return secured{r} },
			slices.Collect(slices.Chunk(all, len(bindingRequest))),
		},
	} {
		s := &Server{}
		s.streams.init(maxStreams)
		out := &recorded{full: make(chan struct{}), size: len(all)}
		st := newStream(s, nil, c.conn(out))
		for range messages {
			st.sendSTUN(bindingRequest)
		}
		st.write(out.full)
		if st.kind != name || !slices.EqualFunc(out.writes, c.want, bytes.Equal) {
			t.Errorf("%s, taken for %s: %d writes, want %d",
				name, st.kind, len(out.writes), len(c.want))
		}
	}
}

// recorded keeps what is written to it, until it has size bytes.
type recorded struct {
	scripted
	writes [][]byte
	size   int
	full   chan struct{}
}

func (r *recorded) Write(p []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(p))
	if r.size -= len(p); r.size == 0 {
		close(r.full)
	}
	return len(p), nil
}

// secured passes for a TLS connection.
type secured struct{ *recorded }

func (secured) ConnectionState() tls.ConnectionState { return tls.ConnectionState{} }

func TestUnallocatedStreamsOfOneSourceAreBounded(t *testing.T) {
	set := &streamSet{}
	set.init(maxStreams)
	add := func(c *stream) bool { return set.add(c, func() {}) }
	from := func(addr string) *stream {
		return &stream{
			source: sourceOf(endpointOf(netip.AddrPortFrom(netip.MustParseAddr(addr), 1))),
		}
	}
	var first *stream
	for range maxUnallocated {
		first = from("2001:db8::1")
		if !add(first) {
			t.Fatal("refused too early")
		}
	}
	if add(from("2001:db8::2")) {
		t.Error("one too many from one /64")
	}
	if !add(from("2001:db8:0:1::1")) || !add(from("192.0.2.1")) {
		t.Error("another source pays for it")
	}
	// A client with an allocation does not count: an office may be behind one address.
	set.allocated(first, true)
	last := from("2001:db8::3")
	if !add(last) || add(from("2001:db8::3")) {
		t.Error("an allocation must free one place")
	}
	set.allocated(first, false)
	set.remove(first)
	set.remove(last)
	if !add(first) || set.unallocated[first.source] != maxUnallocated {
		t.Errorf("%d without allocation", set.unallocated[first.source])
	}
}

// Neither an address nor the network around it takes all there may be, however few that are.
func TestUnallocatedStreamsOfOneNetworkAreBounded(t *testing.T) {
	for _, c := range []struct {
		most, address, network int
		form                   string
	}{
		{maxStreams, maxUnallocated, maxUnallocatedPrefix, "192.0.2.%d"}, {
			maxStreams, maxUnallocated, maxUnallocatedPrefix, "2001:db8:0:%x::1",
		},
		{64, 8, 16, "192.0.2.%d"}, {64, 8, 16, "2001:db8:0:%x::1"}, {4, 1, 1, "192.0.2.%d"},
	} {
		set := &streamSet{}
		set.init(c.most)
		fill := func(address func(i int) string) (n int) {
			for i := range 2 * maxStreams {
				at := netip.AddrPortFrom(netip.MustParseAddr(address(i)), 1)
				if set.add(&stream{source: sourceOf(endpointOf(at))}, func() {}) {
					n++
				}
			}
			return n
		}
		of := func(i int) string { return fmt.Sprintf(c.form, i) }
		if n := fill(func(int) string { return of(1) }); n != c.address {
			t.Errorf("%d of %d are one address's, want %d", n, c.most, c.address)
		}
		if n := fill(func(i int) string { return of(i % 250) }); c.address+n != c.network {
			t.Errorf("%d of %d are one network's, want %d", c.address+n, c.most, c.network)
		}
		if n := fill(func(int) string { return "203.0.113.1" }); n != c.address {
			t.Errorf("another address gets %d of %d, want %d", n, c.most, c.address)
		}
	}
}

// Connections of a few networks that hold all places without an allocation give way, but neither
// those with one nor those that have just come.
func TestUnallocatedStreamsGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{}
		const most = 16
		s.streams.init(most)
		next := 0
		open := func() (*stream, bool) {
			near, far := net.Pipe()
			t.Cleanup(func() { _, _ = near.Close(), far.Close() })
			c := newStream(s, nil, near)
			next++
			c.source = sourceOf(endpointOf(netip.AddrPortFrom(netip.AddrFrom4(
				[4]byte{198, byte(next >> 8), byte(next), 1}), 1)))
			return c, s.streams.add(c, func() {})
		}
		var all []*stream
		for range most {
			c, _ := open()
			all = append(all, c)
		}
		s.streams.allocated(all[0], true)
		if _, ok := open(); ok {
			t.Error("a connection gives way that has just come")
		}
		time.Sleep(evictAfter)
		for i := range most - 1 {
			if _, ok := open(); !ok {
				t.Fatalf("the %dth new client is refused", i+1)
			}
			s.wg.Wait()
			if _, err := all[i+1].conn.Write([]byte{0}); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("the %dth that came is open: %v", i+2, err)
			}
		}
		if _, ok := open(); ok || !s.streams.isOpen(all[0]) {
			t.Error("a client with an allocation gives way")
		}
		for _, c := range all {
			s.streams.remove(c)
		}
		n := 0
		for c := range s.streams.open {
			n++
			s.streams.remove(c)
		}
		if n != most-1 || len(s.streams.unallocated)+len(s.streams.unallocatedPrefix) != 0 ||
			s.streams.oldest.Len() != 0 {
			t.Errorf("%d were open, and the counts do not end at zero", n)
		}
	})
}

func (t *streamSet) isOpen(c *stream) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.open[c]
	return ok
}

func TestStreamsOfOneSourceAreLimitedOnAccept(t *testing.T) {
	s := start(t, nil)
	var all []*rawClient
	for range maxUnallocated {
		c := dial(t, s, "tcp", "t", "s")
		c.ask(stun.MethodBinding)
		all = append(all, c)
	}
	if _, err := dial(t, s, "tcp", "t", "s").tryRead(); err == nil ||
		errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	all[0].allocate()
	dial(t, s, "tcp", "t", "s").ask(stun.MethodBinding)
	if refusedBy(s, reasonTooManyStreams) != 1 {
		t.Error("not counted")
	}
}

// FuzzStream: whatever bytes come, in whatever pieces, every message handed on is one message, and
// reading ends.
func FuzzStream(f *testing.F) {
	f.Add(bindingRequest, uint8(1))
	f.Add(append(bytes.Clone(bindingRequest), 0x40, 0, 0, 1, 'x', 0, 0, 0), uint8(5))
	f.Add([]byte{0x40, 0, 0xff, 0xff, 1, 2, 3}, uint8(3))
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		s := &Server{}
		s.streams.init(maxStreams)
		in := &scripted{rest: stream, piece: int(piece)%64 + 1}
		messages, err := readAll(newStream(s, nil, in))
		if err == nil {
			t.Fatal("no end")
		}
		total := 0
		for _, m := range messages {
			total += len(m)
			size := int(binary.BigEndian.Uint16(m[2:]))
			if isChannelData(m) {
				size = 4 + (size+3)&^3
			} else {
				size += stunHeader
			}
			if size != len(m) {
				t.Errorf("a message of %d bytes says %d", len(m), size)
			}
		}
		if total > len(stream) {
			t.Errorf("%d bytes out of %d", total, len(stream))
		}
	})
}

// scripted is a connection that gives bytes in pieces and takes everything.
type scripted struct {
	net.Conn
	rest  []byte
	piece int
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest[:min(len(s.rest), s.piece)])
	s.rest = s.rest[n:]
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error) { return len(p), nil }
func (s *scripted) Close() error                { return nil }
func (s *scripted) LocalAddr() net.Addr         { return s.RemoteAddr() }

func (s *scripted) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
}
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }
