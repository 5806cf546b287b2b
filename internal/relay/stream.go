package relay

import (
	"bufio"
	"cmp"
	"container/list"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// messageTimeout is the time for a message to become complete, and for a connection to do
	// without allocation and message.
	messageTimeout = 30 * time.Second
	// writeTimeout ends a client that does not read.
	writeTimeout = 10 * time.Second
	// maxStreams bounds all connections (see Config.Streams). Connections without an allocation are
	// bounded by maxUnallocated per address and maxUnallocatedPrefix per network around it. With a
	// small Config.Streams, an address gets an eighth of it and a network a quarter.
	maxStreams           = 8192
	maxUnallocated       = 64
	maxUnallocatedPrefix = 512
	// At maxStreams a connection gives way that has had no allocation for so long.
	evictAfter   = 3 * time.Second
	streamBuffer = 4096
	// maxQueuedFrames and maxQueuedBytes bound what waits to be written to one client; what is more
	// is lost, as it would be over UDP.
	maxQueuedFrames = 256
	maxQueuedBytes  = 512 << 10
	// While frames of more than maxQueuedMemory wait for all clients together, only a few may wait
	// for one: fewQueuedFrames, of fewQueuedBytes. No more ever wait for one that has had no
	// allocation. Before that, from shedQueuedMemory on, the slowest consumers are closed.
	maxQueuedMemory  = 128 << 20
	shedQueuedMemory = maxQueuedMemory - maxQueuedMemory/8
	shedPause        = 50 * time.Millisecond
	fewQueuedFrames  = 8
	fewQueuedBytes   = 8 << 10
	// maxLargeMemory bounds the messages of more than frameSize that have arrived in part. A client
	// whose next one does not fit is closed: browsers send none.
	maxLargeMemory = 32 << 20
	// writeBuffer joins messages that wait into one write, and so into one TLS record.
	writeBuffer = 16 << 10
)

var errFraming = errors.New("neither STUN nor ChannelData")

// streamSet holds the connections.
type streamSet struct {
	// Static after init.
	maxStreams           int
	maxUnallocated       int // of a source
	maxUnallocatedPrefix int // of the network around it

	queuedMemory atomic.Int64 // of frames that wait to be written, to all clients
	shedding     atomic.Bool  // shedSlowest runs
	largeMemory  atomic.Int64 // of messages of more than frameSize that arrive

	mu sync.Mutex
	// Guarded by mu.
	open              map[*stream]struct{}
	unallocated       map[source]int // connections without allocation; has no zeros
	unallocatedPrefix map[source]int // the same, by the network around the source
	oldest            list.List      // of *stream: the same, longest without allocation first
	closed            bool
}

func (t *streamSet) init(most int) {
	t.maxStreams = most
	t.maxUnallocated = min(maxUnallocated, max(most/8, 1))
	t.maxUnallocatedPrefix = min(maxUnallocatedPrefix, max(most/4, 1))
	t.open = map[*stream]struct{}{}
	t.unallocated = map[source]int{}
	t.unallocatedPrefix = map[source]int{}
}

// add takes a connection in unless there are too many, and begins to serve it.
func (t *streamSet) add(c *stream, begin func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed ||
		t.unallocated[c.source] >= t.maxUnallocated ||
		t.unallocatedPrefix[c.source.prefix()] >= t.maxUnallocatedPrefix ||
		len(t.open) >= t.maxStreams && !t.evictOldest() {
		return false
	}
	t.open[c] = struct{}{}
	t.addUnallocated(c)
	// Here, or Close could have finished waiting.
	begin()
	return true
}

// evictOldest closes the connection that has been longest without an allocation, if that is long
// enough: a few networks could hold all places for ever by a Binding request now and then. mu is
// held.
func (t *streamSet) evictOldest() bool {
	front := t.oldest.Front()
	if front == nil {
		return false
	}
	c := front.Value.(*stream)
	if time.Since(c.unallocatedSince) < evictAfter {
		return false
	}
	t.removeLocked(c)
	c.server.stats.reject(reasonTooManyStreams)
	c.server.wg.Go(func() { _ = c.conn.Close() })
	return true
}

func (t *streamSet) remove(c *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeLocked(c)
}

// removeLocked is remove with mu held.
func (t *streamSet) removeLocked(c *stream) {
	if _, ok := t.open[c]; !ok {
		return // evicted
	}
	delete(t.open, c)
	if !c.busy.Load() {
		t.removeUnallocated(c)
	}
}

// addUnallocated counts a connection without allocation. mu is held, as in removeUnallocated.
func (t *streamSet) addUnallocated(c *stream) {
	t.unallocated[c.source]++
	t.unallocatedPrefix[c.source.prefix()]++
	c.unallocatedSince, c.oldestElement = time.Now(), t.oldest.PushBack(c)
}

func (t *streamSet) removeUnallocated(c *stream) {
	subtract(t.unallocated, c.source, 1)
	subtract(t.unallocatedPrefix, c.source.prefix(), 1)
	t.oldest.Remove(c.oldestElement)
}

// allocated updates the counts when the allocation of a connection comes or goes.
func (t *streamSet) allocated(c *stream, busy bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.open[c]; !ok || c.busy.Swap(busy) == busy {
		return
	}
	if busy {
		c.known.Store(true)
		t.removeUnallocated(c)
	} else {
		t.addUnallocated(c)
	}
}

// shedSlowest closes the connections with the longest queues until a quarter of maxQueuedMemory is
// free. A client that reads has a short queue, whatever others do.
func (t *streamSet) shedSlowest() {
	type queue struct {
		of     *stream
		memory int64
	}
	var long []queue
	t.mu.Lock()
	for c := range t.open {
		if m := c.memory(); m > fewQueuedFrames*frameSize {
			long = append(long, queue{c, m})
		}
	}
	t.mu.Unlock()
	slices.SortFunc(long, func(a, b queue) int { return cmp.Compare(b.memory, a.memory) })
	var closing sync.WaitGroup // all at once, as in close
	defer closing.Wait()
	for _, q := range long {
		if t.queuedMemory.Load() <= maxQueuedMemory-maxQueuedMemory/4 {
			return
		}
		q.of.server.stats.reject(reasonSlowStream)
		closing.Go(func() { _ = q.of.conn.Close() })
		q.of.dropQueue()
	}
}

// shedStreams sheds as long as too much memory is taken. In between it waits for a moment, since it
// looks at all connections.
func (s *Server) shedStreams() {
	defer s.streams.shedding.Store(false)
	for s.streams.queuedMemory.Load() > shedQueuedMemory {
		s.streams.shedSlowest()
		pause := time.NewTimer(shedPause)
		select {
		case <-pause.C:
		case <-s.done:
			pause.Stop()
			return
		}
	}
}

// close ends all connections, all at once: TLS says goodbye, for which a client that does not read
// makes it wait.
func (t *streamSet) close() {
	t.mu.Lock()
	t.closed = true
	open := slices.Collect(maps.Keys(t.open))
	t.mu.Unlock()
	var closing sync.WaitGroup
	for _, c := range open {
		closing.Go(func() { _ = c.conn.Close() })
	}
	closing.Wait()
}

// stream is a client that came over TCP or TLS. A reader cuts the bytes into messages for its
// worker, and a writer takes what the worker leaves for it, so that the worker never waits for a
// connection.
type stream struct {
	// Static.
	server *Server
	worker *worker
	conn   net.Conn
	path   path
	source source
	kind   string      // "tcp" or "tls"
	out    chan *frame // to the writer
	// queuedBytes is how many bytes are in out; shared.
	queuedBytes atomic.Int64
	ended       atomic.Bool // nothing is written any more
	// drained is closed by the worker when it has seen the end of the stream.
	drained chan struct{}

	busy       atomic.Bool // has an allocation; written with streamSet.mu held
	known      atomic.Bool // has had one: what waits may be for that
	allocation *allocation // owned by the worker

	// Guarded by streamSet.mu, of a stream without allocation.
	unallocatedSince time.Time
	oldestElement    *list.Element // in streamSet.oldest

	// Owned by the reader.
	in            *bufio.Reader
	firstDeadline time.Time // when the first message must be complete; zero once it is
}

func newStream(s *Server, w *worker, conn net.Conn) *stream {
	remote, local := endpointOf(addrPort(conn.RemoteAddr())), endpointOf(addrPort(conn.LocalAddr()))
	c := &stream{
		server: s, worker: w, conn: conn, source: sourceOf(remote), kind: "tcp",
		out: make(chan *frame, maxQueuedFrames), drained: make(chan struct{}),
		in: bufio.NewReaderSize(conn, streamBuffer), firstDeadline: time.Now().Add(messageTimeout),
	}
	if _, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		c.kind = "tls"
	}
	c.path = path{remote: remote, local: local, stream: c}
	return c
}

// ServeConn serves TURN over a connection and returns at once: a TCP connection, or one with TLS
// whose handshake is done. It ends when the client ends it, when its bytes are no TURN, when a
// message takes longer than 30 s, and when the server closes.
func (s *Server) ServeConn(conn net.Conn) {
	c := newStream(s, s.workers[s.nextWorker.Add(1)%uint32(len(s.workers))], conn)
	if !s.streams.add(c, func() { s.wg.Go(c.run) }) {
		s.stats.reject(reasonTooManyStreams)
		_ = conn.Close()
	}
}

// run reads until the connection ends, and waits for the writer and the worker.
func (c *stream) run() {
	defer c.server.streams.remove(c)
	var writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() { c.write(stop) })
	c.countError(c.read())
	if c.worker.post(event{stream: c}) {
		select {
		case <-c.drained:
		case <-c.server.done:
		}
	}
	_ = c.conn.Close()
	close(stop)
	writer.Wait()
	c.ended.Store(true)
	c.dropQueue()
}

// countError counts why a stream ended, when it is the client's fault.
func (c *stream) countError(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.server.stats.reject(reasonSlowStream)
	} else if errors.Is(err, errFraming) {
		c.server.stats.reject(reasonMalformed)
	}
}

func (c *stream) read() error {
	for {
		f, err := c.readFrame()
		if err != nil {
			return err
		}
		if !c.worker.post(event{stream: c, frame: f}) {
			return net.ErrClosed
		}
	}
}

// readFrame reads one message (RFC 8656 section 12.5 for the padding of ChannelData). The first
// message must be STUN: "GET " has the shape of ChannelData.
func (c *stream) readFrame() (*frame, error) {
	if err := c.awaitMessage(); err != nil {
		return nil, err
	}
	// A connection that is closed fails at the next read, not where its deadline is set: what has
	// come before is still read.
	head, err := c.in.Peek(channelHeader)
	if err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(head[2:]))
	switch {
	case isChannelData(head) && c.firstDeadline.IsZero():
		size = channelHeader + (size+3)&^3
	case head[0] <= 3 && size%4 == 0:
		if head, err = c.in.Peek(8); err != nil {
			return nil, err
		}
		if binary.BigEndian.Uint32(head[4:]) != magicCookie {
			return nil, errFraming
		}
		size += stunHeader
	default:
		return nil, errFraming
	}
	f, err := c.readWhole(size)
	if err != nil {
		return nil, err
	}
	c.firstDeadline = time.Time{}
	return f, nil
}

// readWhole reads a message of a known size. A few bytes of a large one make us keep memory for all
// of it. Who has no allocation has no use for one.
func (c *stream) readWhole(size int) (*frame, error) {
	if size > frameSize {
		memory := &c.server.streams.largeMemory
		defer memory.Add(-int64(size))
		if memory.Add(int64(size)) > maxLargeMemory || !c.busy.Load() {
			return nil, errFraming
		}
	}
	f := newFrame(size)
	if _, err := io.ReadFull(c.in, f.bytes()); err != nil {
		return nil, err
	}
	return f, nil
}

// awaitMessage waits for the first byte of a message and sets the time by which the message must be
// complete. The first message has one limit from the beginning of the connection. Later a
// connection may be silent as long as its allocation lives.
func (c *stream) awaitMessage() error {
	if !c.firstDeadline.IsZero() {
		_ = c.conn.SetReadDeadline(c.firstDeadline)
		return nil
	}
	for c.in.Buffered() == 0 {
		_ = c.conn.SetReadDeadline(time.Now().Add(messageTimeout))
		if _, err := c.in.Peek(1); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && c.busy.Load() {
				continue
			}
			return err
		}
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(messageTimeout))
	return nil
}

// sendChannelData leaves a ChannelData message for the writer; false: it is lost. Any worker may
// call it.
func (c *stream) sendChannelData(number uint16, payload []byte) bool {
	return c.enqueue(channelFrame(number, payload))
}

// sendSTUN leaves a STUN message for the writer; false: it is lost. One for a client that has
// had no allocation takes no more memory than it is long.
func (c *stream) sendSTUN(message []byte) bool {
	var f *frame
	if c.known.Load() {
		f = newFrame(len(message))
	} else {
		f = &frame{buf: make([]byte, channelHeader+len(message)), n: len(message)}
	}
	copy(f.bytes(), message)
	return c.enqueue(f)
}

func (c *stream) enqueue(f *frame) bool {
	memory := c.server.streams.queuedMemory.Add(int64(len(f.buf)))
	bytes := c.queuedBytes.Add(int64(f.n))
	if memory > shedQueuedMemory && c.server.streams.shedding.CompareAndSwap(false, true) {
		c.server.wg.Go(c.server.shedStreams)
	}
	few := len(c.out) < fewQueuedFrames && bytes <= fewQueuedBytes
	many := bytes <= maxQueuedBytes && memory <= maxQueuedMemory && c.known.Load()
	if few || many {
		select {
		case c.out <- f:
			if c.ended.Load() {
				c.dropQueue()
			}
			return true
		default:
		}
	}
	c.dequeued(f)
	f.free()
	return false
}

// memory is about what the messages that wait take.
func (c *stream) memory() int64 {
	return max(c.queuedBytes.Load(), int64(len(c.out))*frameSize)
}

// dequeued notes that a message no longer waits.
func (c *stream) dequeued(f *frame) {
	c.queuedBytes.Add(-int64(f.n))
	c.server.streams.queuedMemory.Add(-int64(len(f.buf)))
}

// dropQueue frees what waits, once nothing is written any more.
func (c *stream) dropQueue() {
	for {
		select {
		case f := <-c.out:
			c.dequeued(f)
			f.free()
		default:
			return
		}
	}
}

// write writes what is left for it. A write that fails ends the connection, since a message may be
// out in part. Over TCP messages that wait leave together. Over TLS each is a record of its own: a
// client sees nothing of a record before it has all of it, and there are clients, coturn's among
// them, that take a record for a message.
func (c *stream) write(stop <-chan struct{}) {
	var joined []byte
	for {
		var f *frame
		select {
		case f = <-c.out:
		case <-stop:
			return
		}
		c.dequeued(f)
		b := f.bytes()
		if len(c.out) > 0 && c.kind == "tcp" {
			joined = append(joined[:0], b...)
			joined = c.join(joined)
			b = joined
		}
		err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			_, err = c.conn.Write(b)
		}
		f.free()
		if err != nil {
			_ = c.conn.Close()
			return
		}
	}
}

// join appends the messages that wait, as far as the buffer goes.
func (c *stream) join(b []byte) []byte {
	for len(b) < writeBuffer-frameSize {
		select {
		case f := <-c.out:
			c.dequeued(f)
			b = append(b, f.bytes()...)
			f.free()
		default:
			return b
		}
	}
	return b
}
