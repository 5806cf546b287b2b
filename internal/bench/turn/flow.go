package turn

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/report"
)

// Each payload identifies itself:
//
//	0  0x80, as RTP begins
//	1  number of its flow
//	2  1 when it belongs to the measured time
//	4  allocation, 4 bytes: that of the sender, or of the receiver if the peer sent it
//	8  number within flow and allocation, 8 bytes, from 1
//	16 time it was sent, ns since 1970, 8 bytes
//	24 number of the run, 8 bytes: packets of others are not counted
const payloadHeader = 32

// The closed loop: most bursts between two polls, and how often it polls while the window is full.
// It does not wait for packets: waking it up would be work of the server.
const (
	burstsAtOnce = 8
	lookEvery    = 50 * time.Microsecond
	// After this long without a packet those in flight are lost, and the window is free again. A
	// server that only waits for its core is not overwhelmed meanwhile.
	stall = 250 * time.Millisecond
)

// The fixed rate: a generator that could not run makes up for this much at most.
const maxDebt = 20 * time.Millisecond

// flow is packets in one direction.
type flow struct {
	*traffic
	number   byte
	window   int64         // 0: fixed rate
	interval time.Duration // fixed rate: from burst to burst

	// owned by the driver
	sent         int64
	measuredSent int64
	next         int           // allocation of the next burst
	numbers      []uint64      // last number, by allocation
	due          time.Duration // fixed rate: of the next burst
	forgiven     int64         // closed loop: packets that the window counts as lost
	seen         int64         // closed loop: received when last looked
	seenAt       time.Duration

	// owned by the receivers
	received  atomic.Int64
	measured  atomic.Int64
	reordered atomic.Int64
	last      []uint64 // last number, by allocation; each is owned by one receiver
}

// traffic is what is sent and received in one run.
type traffic struct {
	cfg              Config
	run              uint64
	flows            []*flow
	atPeer, atClient *flow // what arrives there; nil: nothing should
	hairpin          bool
	unexpected       atomic.Int64
	delays           report.Histogram

	mu    sync.Mutex
	first error
}

func newTraffic(cfg Config) *traffic {
	t := &traffic{cfg: cfg, hairpin: cfg.Shape == ShapeHairpin}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	t.run = binary.BigEndian.Uint64(b[:])
	if cfg.Shape == ShapeUp || cfg.Shape == ShapeBoth {
		t.atPeer = t.add()
	}
	if cfg.Shape != ShapeUp {
		t.atClient = t.add()
	}
	n := len(t.flows)
	for i, f := range t.flows {
		f.window = int64(cfg.Window / n)
		if cfg.Rate > 0 {
			f.window = 0
			f.interval = time.Duration(
				float64(time.Second) * float64(cfg.Burst*n) / float64(cfg.Rate),
			)
			f.due = time.Duration(i) * f.interval / time.Duration(n) // alternating
		}
	}
	return t
}

func (t *traffic) add() *flow {
	f := &flow{
		traffic: t,
		number:  byte(len(t.flows)),
		numbers: make([]uint64, t.cfg.Allocations),
		last:    make([]uint64, t.cfg.Allocations),
	}
	t.flows = append(t.flows, f)
	return f
}

// fail records the first error.
func (t *traffic) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		t.first = err
	}
}

func (t *traffic) firstError() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		return ""
	}
	return t.first.Error()
}

// down is the flow that the peer sends; nil when it sends nothing.
func (t *traffic) down() *flow {
	if t.hairpin {
		return nil
	}
	return t.atClient
}

// received counts packets of all flows and of the whole run.
func (t *traffic) received() (n int64) {
	for _, f := range t.flows {
		n += f.received.Load()
	}
	return n
}

// missing counts measured packets that have not arrived.
func (t *traffic) missing() (n int64) {
	for _, f := range t.flows {
		n += f.measuredSent - f.measured.Load()
	}
	return n
}

// ready says how many bursts may be sent now and, if none, how long to wait. Now counts from the
// start of the driver.
func (f *flow) ready(now time.Duration) (bursts int, idle time.Duration) {
	if f.window == 0 {
		if now-f.due > maxDebt {
			f.due = now - maxDebt
		}
		for ; bursts < burstsAtOnce && f.due <= now; bursts++ {
			f.due += f.interval
		}
		return bursts, f.due - now
	}
	received := f.received.Load()
	if received != f.seen {
		f.seen, f.seenAt = received, now
	}
	inFlight := f.sent - received - f.forgiven
	// packets counted as lost came late, or all in flight are lost
	if inFlight < 0 || now-f.seenAt > stall {
		f.forgiven += inFlight
		f.seenAt, inFlight = now, 0
	}
	return min(burstsAtOnce, int((f.window-inFlight)/int64(f.cfg.Burst))), lookEvery
}

// stamp writes the header of the next payload of an allocation into p, which has the size of a
// payload.
func (f *flow) stamp(p []byte, allocation int, measured bool, now int64) {
	f.numbers[allocation]++
	f.sent++
	p[0], p[1], p[2], p[3] = 0x80, f.number, 0, 0
	if measured {
		p[2] = 1
		f.measuredSent++
	}
	binary.BigEndian.PutUint32(p[4:], uint32(allocation))
	binary.BigEndian.PutUint64(p[8:], f.numbers[allocation])
	binary.BigEndian.PutUint64(p[16:], uint64(now))
	binary.BigEndian.PutUint64(p[24:], f.run)
}

// unsent subtracts packets that the kernel refused: the server never saw them.
func (f *flow) unsent(n int, measured bool, err error) {
	f.sent -= int64(n)
	if measured {
		f.measuredSent -= int64(n)
	}
	f.fail(err)
}

// atThePeer takes a packet that arrived at the peer's socket at a time in ns since 1970.
func (t *traffic) atThePeer(p []byte, at int64) { t.got(t.atPeer, -1, p, at) }

// atAClient takes a packet that arrived on a client's channel.
func (t *traffic) atAClient(allocation int, p []byte, at int64) {
	if t.hairpin {
		allocation ^= 1 // sent by the other of the two
	}
	t.got(t.atClient, allocation, p, at)
}

// got counts a packet that must belong to the flow and, unless it is negative, to the allocation.
func (t *traffic) got(f *flow, allocation int, p []byte, at int64) {
	if f == nil || len(p) != t.cfg.Size || p[1] != f.number ||
		binary.BigEndian.Uint64(p[24:]) != t.run {
		t.unexpected.Add(1)
		return
	}
	from := int(binary.BigEndian.Uint32(p[4:]))
	if from >= len(f.last) || allocation >= 0 && from != allocation {
		t.unexpected.Add(1)
		return
	}
	number := binary.BigEndian.Uint64(p[8:])
	if number <= f.last[from] {
		f.reordered.Add(1)
	} else {
		f.last[from] = number
	}
	if p[2] == 1 {
		f.measured.Add(1)
		t.delays.Add(at - int64(binary.BigEndian.Uint64(p[16:])))
	}
	f.received.Add(1)
}
