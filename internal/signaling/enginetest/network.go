// Package enginetest has the conformance tests that every engine passes (Suite), and an engine in
// memory whose network delays and loses messages on request (Network).
//
// A Network connects nodes of one process. Each direction of each pair of nodes has its own
// goroutine and delay, so streams of different pairs overtake each other. It also runs in virtual
// time (testing/synctest).
package enginetest

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

const (
	// maxQueued bounds the frames on the way from one node to another.
	maxQueued = 4096
	// noticeLoss is how soon a receiver knows that something is missing when nothing follows.
	noticeLoss = 40 * time.Millisecond
)

// Network is the nodes of a deployment and what connects them.
type Network struct {
	mu    sync.Mutex // Guards everything; no handler or watcher is called with it held.
	table *engine.Table
	nodes map[string]*Node
	links map[[2]string]*link
	rng   *rand.Rand
	delay func(from, to string) time.Duration
	lose  func(Frame) bool
	lost  int // frames that lose took

	asked uint64 // counts requests

	announcing sync.Mutex // is held while watchers are called
}

// Frame is what a Network carries.
type Frame struct {
	From, To string
	Kind     Kind
	Payload  []byte
}

// Kind tells frames apart.
type Kind int

const (
	Message Kind = iota + 1
	Request
	Response
	gap  // something is missing here
	nack // tells the sender of requests that they are lost
)

// NewNetwork makes a network without nodes. The seed decides how goroutines interleave.
func NewNetwork(seed uint64) *Network {
	return &Network{
		table: engine.NewTable(),
		nodes: map[string]*Node{},
		links: map[[2]string]*link{},
		rng:   rand.New(rand.NewPCG(seed, 0)),
	}
}

// View calls f with the table of the Directory, which f must not change.
func (n *Network) View(f func(*engine.Table)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.table)
}

// Delay makes each frame wait at least as long as f says, behind the earlier ones of its stream.
func (n *Network) Delay(f func(from, to string) time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = f
}

// RandomDelay is Delay of up to limit.
func (n *Network) RandomDelay(limit time.Duration) {
	n.Delay(func(string, string) time.Duration { return time.Duration(n.rng.Int64N(int64(limit))) })
}

// Lose loses each frame for which f returns true; nil: none. F is called with a lock held.
func (n *Network) Lose(f func(Frame) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lose = f
}

// Lost is the number of frames that were lost on request.
func (n *Network) Lost() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

// Cut loses everything from one node to another; the other direction stays. When it is undone the
// receiver learns of the loss.
func (n *Network) Cut(from, to string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.link(from, to)
	l.cut = cut
	for i := range l.queue {
		if l.queue[i].kind == gap {
			l.queue[i].at = time.Now().Add(noticeLoss)
		}
	}
	n.wake(l)
}

// Hold stops the reader of what from sends to another node, until Continue.
func (n *Network) Hold(from, to string) { n.setHeld(from, to, true) }

// Continue ends Hold.
func (n *Network) Continue(from, to string) { n.setHeld(from, to, false) }

func (n *Network) setHeld(from, to string, held bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.link(from, to)
	l.held = held
	n.wake(l)
}

// link is one direction between two nodes.
type link struct {
	from, to string
	queue    []frame
	running  bool // a goroutine delivers
	cut      bool
	held     bool
	next     time.Time // when the last one of the queue may be delivered
	timer    *time.Timer
}

type frame struct {
	kind    Kind
	request uint64
	payload []byte
	at      time.Time
	lost    []uint64 // gap: lost responses; nack: lost requests
	nacks   []uint64 // gap: lost requests
}

// link is called with mu held, as are the following methods.
func (n *Network) link(from, to string) *link {
	k := [2]string{from, to}
	l := n.links[k]
	if l == nil {
		l = &link{from: from, to: to}
		n.links[k] = l
	}
	return l
}

// put queues a frame, or what is missing where it would have been.
func (n *Network) put(l *link, f frame) error {
	full := len(l.queue) >= maxQueued
	lose := full || l.cut
	if !lose && n.lose != nil && n.lose(Frame{l.from, l.to, f.kind, f.payload}) {
		lose = true
		n.lost++
	}
	if lose {
		n.miss(l, f)
	} else {
		f.at = time.Now()
		if n.delay != nil {
			f.at = f.at.Add(n.delay(l.from, l.to))
		}
		if f.at.Before(l.next) {
			f.at = l.next
		}
		l.next = f.at
		l.queue = append(l.queue, f)
	}
	n.wake(l)
	if full {
		return engine.ErrQueueFull
	}
	return nil
}

// miss leaves a gap in the place of a frame.
func (n *Network) miss(l *link, f frame) {
	i := len(l.queue) - 1
	if i < 0 || l.queue[i].kind != gap {
		l.queue = append(l.queue, frame{kind: gap, at: time.Now().Add(noticeLoss)})
		i++
	}
	g := &l.queue[i]
	switch f.kind {
	case Request:
		g.nacks = append(g.nacks, f.request)
	case Response:
		g.lost = append(g.lost, f.request)
	case nack:
		g.lost = append(g.lost, f.lost...)
	}
}

func (n *Network) wake(l *link) {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if !l.running && len(l.queue) > 0 {
		l.running = true
		go n.run(l)
	}
}

// run delivers what is queued and ends.
func (n *Network) run(l *link) {
	for {
		f, at := n.take(l)
		if f == nil {
			return
		}
		n.deliver(at, l, f)
	}
}

// take removes the next frame. Nil: nothing can be delivered yet; a timer, or what changes that,
// calls wake.
func (n *Network) take(l *link) (f *frame, at *Node) {
	n.mu.Lock()
	spins := n.rng.IntN(30)
	n.mu.Unlock()
	for range spins { // let others go first
		runtime.Gosched()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	at = n.nodes[l.to]
	if at == nil || at.handler == nil {
		l.queue = nil
	}
	if len(l.queue) == 0 || l.held {
		l.running = false
		return nil, nil
	}
	first := l.queue[0]
	wait := time.Until(first.at)
	if first.kind == gap && len(l.queue) > 1 {
		wait = 0 // what follows shows it
	}
	if wait > 0 || (first.kind == gap && l.cut) {
		l.running = false
		if wait > 0 {
			l.timer = time.AfterFunc(wait, func() {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.wake(l)
			})
		}
		return nil, nil
	}
	l.queue = l.queue[1:]
	return &first, at
}

func (n *Network) deliver(at *Node, l *link, f *frame) {
	at.calls.RLock()
	defer at.calls.RUnlock()
	n.mu.Lock()
	h := at.handler
	n.mu.Unlock()
	if h == nil {
		return
	}
	switch f.kind {
	case Message:
		h.Message(l.from, f.payload)
	case Request:
		h.Request(l.from, f.payload, func(response []byte) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if at.handler != nil {
				_ = n.put(n.link(l.to, l.from),
					frame{kind: Response, request: f.request, payload: slices.Clone(response)})
			}
		})
	case Response:
		n.respond(at, f.request, response{payload: f.payload})
	case gap:
		h.Lost(l.from)
		for _, id := range f.lost {
			n.respond(at, id, response{err: engine.ErrLost})
		}
		if len(f.nacks) > 0 {
			n.mu.Lock()
			_ = n.put(n.link(l.to, l.from), frame{kind: nack, lost: f.nacks})
			n.mu.Unlock()
		}
	case nack:
		for _, id := range f.lost {
			n.respond(at, id, response{err: engine.ErrLost})
		}
	}
}

type response struct {
	payload []byte
	err     error
}

type waiting struct {
	on   string
	done chan response
}

func (n *Network) respond(at *Node, request uint64, r response) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w, ok := at.waiting[request]; ok {
		delete(at.waiting, request)
		w.done <- r
	}
}

// Node is one node of a Network: its Bus and its Directory.
type Node struct {
	net  *Network
	name string

	calls sync.RWMutex // read-held during calls of the handler

	// Guarded by the network's mu.
	incarnation uint64
	handler     engine.Handler
	waiting     map[uint64]waiting
	watchers    map[int]func(engine.Node)
	watched     int
	noQuorum    bool
	killed      bool
}

var (
	_ engine.Bus       = (*Node)(nil)
	_ engine.Directory = (*Node)(nil)
)

// Join adds a node, or one in the place of an earlier one with the same name, which has ended.
func (n *Network) Join(name string) *Node {
	n.announcing.Lock()
	defer n.announcing.Unlock()
	n.mu.Lock()
	at := &Node{
		net:      n,
		name:     name,
		waiting:  map[uint64]waiting{},
		watchers: map[int]func(engine.Node){},
	}
	before := n.nodes[name]
	joined := n.table.Join(name)
	at.incarnation = joined.Incarnation
	n.nodes[name] = at
	if before != nil {
		for _, l := range n.links {
			if l.from == name && n.nodes[l.to] != nil { // a new stream
				l.queue = []frame{{kind: gap, at: time.Now().Add(noticeLoss)}}
				n.wake(l)
			}
		}
	}
	n.mu.Unlock()
	n.announce(joined)
	return at
}

// Serve implements engine.Bus.
func (at *Node) Serve(h engine.Handler) (stop func()) {
	at.net.mu.Lock()
	at.handler = h
	at.net.mu.Unlock()
	return func() {
		at.calls.Lock()
		defer at.calls.Unlock()
		n := at.net
		n.mu.Lock()
		defer n.mu.Unlock()
		at.silence()
		for _, other := range n.nodes {
			other.abandon(func(w waiting) bool { return w.on == at.name })
		}
	}
}

// silence ends the node's part in the bus. The network's mu is held, as in what follows.
func (at *Node) silence() {
	at.handler = nil
	at.abandon(func(waiting) bool { return true })
	for _, l := range at.net.links {
		if (l.from == at.name || l.to == at.name) && at.net.nodes[at.name] == at {
			l.queue = nil
		}
	}
}

// abandon ends requests that nobody will respond to.
func (at *Node) abandon(of func(waiting) bool) {
	for id, w := range at.waiting {
		if of(w) {
			delete(at.waiting, id)
			w.done <- response{err: engine.ErrLost}
		}
	}
}

// reach finds the way to another node. Nobody knows yet that a killed one is gone.
func (at *Node) reach(node string) (*link, error) {
	other := at.net.nodes[node]
	if at.handler == nil || other == nil || other == at ||
		(other.handler == nil && !other.killed) ||
		at.net.table.Node(node).State == engine.Dead {
		return nil, engine.ErrNoNode
	}
	return at.net.link(at.name, node), nil
}

// Send implements engine.Bus.
func (at *Node) Send(node string, payload []byte) error {
	at.net.mu.Lock()
	defer at.net.mu.Unlock()
	l, err := at.reach(node)
	if err != nil {
		return err
	}
	return at.net.put(l, frame{kind: Message, payload: slices.Clone(payload)})
}

// Request implements engine.Bus.
func (at *Node) Request(ctx context.Context, node string, payload []byte) ([]byte, error) {
	n := at.net
	n.mu.Lock()
	l, err := at.reach(node)
	if err != nil {
		n.mu.Unlock()
		return nil, err
	}
	n.asked++
	id, w := n.asked, waiting{node, make(chan response, 1)}
	at.waiting[id] = w
	err = n.put(l, frame{kind: Request, request: id, payload: slices.Clone(payload)})
	if err != nil {
		delete(at.waiting, id)
	}
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case r := <-w.done:
		return r.payload, r.err
	case <-ctx.Done():
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(at.waiting, id)
		return nil, ctx.Err()
	}
}
