//go:build linux

package link

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Direction of a link: Up is from the left device to the right one.
type Direction int

const (
	Up Direction = iota
	Down
)

// Counters of one direction, in packets since the start.
type Counters struct {
	Passed int64 `json:"passed"`
	Lost   int64 `json:"lost"`
}

// Link is a running cable between two devices.
type Link struct {
	dirs  [2]*direction
	files [2]*os.File
	done  chan struct{}
	wg    sync.WaitGroup
	fail  chan error
}

type direction struct {
	params       atomic.Pointer[Params]
	passed, lost atomic.Int64
}

type packet struct {
	data []byte
	due  time.Time
}

// Packets held on their way in one direction: 4096 full ones are 6 MB, half a second of 100 Mbit/s.
const held = 4096

// Start joins left and right, both with the same p, and owns the two files from now on. Each read
// of a file must yield one packet.
func Start(left, right *os.File, p Params) *Link {
	l := &Link{
		files: [2]*os.File{left, right},
		done:  make(chan struct{}),
		fail:  make(chan error, 4),
	}
	for i := range l.dirs {
		l.dirs[i] = &direction{}
		l.dirs[i].params.Store(&p)
	}
	l.pump(l.dirs[Up], left, right)
	l.pump(l.dirs[Down], right, left)
	return l
}

// Failed delivers the reason when a device breaks while the link is open.
func (l *Link) Failed() <-chan error { return l.fail }

// Get returns how a direction behaves now and what it has counted.
func (l *Link) Get(d Direction) (Params, Counters) {
	dir := l.dirs[d]
	return *dir.params.Load(), Counters{Passed: dir.passed.Load(), Lost: dir.lost.Load()}
}

// Set makes a direction behave as p for packets that come from now on; Down stops those on their
// way too.
func (l *Link) Set(d Direction, p Params) { l.dirs[d].params.Store(&p) }

// Close takes the cable away, closes both devices and returns when nothing runs any more.
func (l *Link) Close() error {
	close(l.done)
	err := errors.Join(l.files[0].Close(), l.files[1].Close())
	l.wg.Wait()
	return err
}

func (l *Link) pump(d *direction, from, to *os.File) {
	queue := make(chan packet, held)
	l.wg.Add(2)
	go func() {
		defer l.wg.Done()
		defer close(queue)
		l.receive(d, from, queue)
	}()
	go func() {
		defer l.wg.Done()
		l.deliver(d, to, queue)
	}()
}

func (l *Link) receive(d *direction, from *os.File, queue chan<- packet) {
	var s shaper
	buf := make([]byte, 65536)
	for {
		n, err := from.Read(buf)
		if err != nil {
			l.report(fmt.Errorf("read %s: %w", from.Name(), err))
			return
		}
		due, ok := s.schedule(*d.params.Load(), time.Now(), n, rand.Float64)
		if !ok {
			d.lost.Add(1)
			continue
		}
		select {
		case queue <- packet{append([]byte(nil), buf[:n]...), due}:
		default:
			d.lost.Add(1)
		}
	}
}

func (l *Link) deliver(d *direction, to *os.File, queue <-chan packet) {
	for p := range queue {
		if !l.wait(p.due) {
			continue
		}
		if d.params.Load().Down {
			d.lost.Add(1)
			continue
		}
		if _, err := to.Write(p.data); err != nil {
			// A device that is set down answers EIO, as an unplugged cable would.
			d.lost.Add(1)
			if !errors.Is(err, syscall.EIO) {
				l.report(fmt.Errorf("write %s: %w", to.Name(), err))
			}
			continue
		}
		d.passed.Add(1)
	}
}

// wait returns at due, false when the link closes before. The runtime's timers wake up to 1 ms
// late, which on a link of a few milliseconds would be a different network, so the end of each wait
// is left to the kernel.
func (l *Link) wait(due time.Time) bool {
	const exact = 2 * time.Millisecond
	if d := time.Until(due) - exact; d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-l.done:
			return false
		}
	}
	if d := time.Until(due); d > 0 {
		ts := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&ts, nil) // interrupted by a signal it is early by less than exact
	}
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

func (l *Link) report(err error) {
	select {
	case <-l.done:
		return
	default:
	}
	if errors.Is(err, os.ErrClosed) {
		return
	}
	// Two directions with two goroutines report at most once each; further write errors add
	// nothing.
	select {
	case l.fail <- err:
	default:
	}
}
