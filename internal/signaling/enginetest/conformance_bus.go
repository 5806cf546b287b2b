package enginetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// TestBus checks what engine.Bus promises, on three nodes.
func (s Suite) TestBus(t *testing.T) {
	s.run(t, "messages of a node arrive in order", 3, inOrder)
	s.run(t, "a response arrives after what was sent before it", 2, responseInOrder)
	s.run(t, "requests do not hold up what follows", 2, requestsBeside)
	s.run(t, "requests that cross do not wait for each other", 2, crossingRequests)
	s.run(t, "a request ends with its context", 2, requestEnds)
	s.run(t, "payloads are not kept", 2, payloads)
	s.run(t, "nothing is sent to a node that is not there", 2, unknownNode)
	s.run(t, "nothing is handed over after stop", 2, stopped)
	s.run(t, "a sender waits for nobody, and a full queue is a gap", 3, slowReader)
	s.run(t, "a lost message is a gap in its place", 2, lostMessage)
	s.run(t, "a lost message is noticed without another", 2, lostLast)
	s.run(t, "a lost request or response ends the request", 2, lostRequest)
	s.run(t, "what is cut off is told of a gap when it is healed", 3, cutAndHealed)
	s.run(t, "a node that starts again begins a new stream", 2, startedAgain)
}

// heard is a Handler that notes what it is given.
type heard struct {
	mu      sync.Mutex
	got     []string // "from:payload", or "from lost"
	block   chan struct{}
	request func(from string, payload []byte, respond func([]byte))
}

func (h *heard) note(s string) {
	h.mu.Lock()
	h.got = append(h.got, s)
	h.mu.Unlock()
}

// Message implements engine.Handler.
func (h *heard) Message(from string, payload []byte) {
	if h.block != nil {
		<-h.block
	}
	h.note(from + ":" + string(payload))
}

// Request implements engine.Handler.
func (h *heard) Request(from string, payload []byte, respond func([]byte)) {
	if h.request != nil {
		h.request(from, payload, respond)
		return
	}
	h.note(from + "?" + string(payload))
	respond(append([]byte("re:"), payload...))
}

// Lost implements engine.Handler.
func (h *heard) Lost(from string) { h.note(from + " lost") }

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

// of are the entries of one sender.
func (h *heard) of(from string) []string {
	return slices.DeleteFunc(h.all(), func(s string) bool {
		return !strings.HasPrefix(s, from+":") && !strings.HasPrefix(s, from+"?") &&
			s != from+" lost"
	})
}

// has waits for an entry.
func (h *heard) has(t *testing.T, entry string) {
	t.Helper()
	if !eventually(func() bool { return slices.Contains(h.all(), entry) }) {
		t.Fatalf("never heard %q: %q", entry, last(h.all()))
	}
}

func last(all []string) []string { return all[max(0, len(all)-10):] }

// serve has all nodes listen.
func (c *Cluster) serve(t *testing.T) []*heard {
	t.Helper()
	var all []*heard
	for _, b := range c.Buses {
		h := &heard{}
		all = append(all, h)
		t.Cleanup(b.Serve(h))
	}
	if c.Settle != nil {
		c.Settle(t)
	}
	return all
}

func send(t *testing.T, b engine.Bus, node, payload string) {
	t.Helper()
	if err := b.Send(node, []byte(payload)); err != nil {
		t.Fatalf("send %q to %s: %v", payload, node, err)
	}
}

func inOrder(t *testing.T, c *Cluster) {
	h := c.serve(t)
	const n = 500
	var wg sync.WaitGroup
	for i := range c.Buses {
		wg.Go(func() {
			for k := range n {
				for to, name := range c.Names {
					if to != i {
						send(t, c.Buses[i], name, fmt.Sprint(k))
					}
				}
			}
		})
	}
	wg.Wait()
	for to := range c.Names {
		for from, name := range c.Names {
			if from == to {
				continue
			}
			h[to].has(t, fmt.Sprint(name, ":", n-1))
			for k, got := range h[to].of(name) {
				if want := fmt.Sprint(name, ":", k); got != want {
					t.Fatalf("%s heard %q, want %q", c.Names[to], got, want)
				}
			}
		}
	}
}

func responseInOrder(t *testing.T, c *Cluster) {
	h := c.serve(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	h[1].request = func(from string, payload []byte, respond func([]byte)) {
		id := string(payload)
		wg.Go(func() {
			for k := range 20 {
				send(t, c.Buses[1], from, fmt.Sprint(id, "-", k))
			}
			respond([]byte(id))
		})
	}
	var asking sync.WaitGroup
	for i := range 50 {
		asking.Go(func() {
			id := fmt.Sprint("r", i)
			a, err := c.Buses[0].Request(ctx(t), c.Names[1], []byte(id))
			if err != nil || string(a) != id {
				t.Errorf("%s: %q %v", id, a, err)
			}
			if !slices.Contains(h[0].all(), fmt.Sprint(c.Names[1], ":", id, "-19")) {
				t.Errorf("%s was answered before what was sent for it", id)
			}
		})
	}
	asking.Wait()
}

func requestsBeside(t *testing.T, c *Cluster) {
	h := c.serve(t)
	waits := make(chan func([]byte), 1)
	h[1].request = func(_ string, _ []byte, respond func([]byte)) { waits <- respond }
	answered := make(chan error, 1)
	go func() {
		a, err := c.Buses[0].Request(ctx(t), c.Names[1], []byte("slow"))
		if err == nil && string(a) != "done" {
			err = fmt.Errorf("response %q", a)
		}
		answered <- err
	}()
	respond := <-waits
	send(t, c.Buses[0], c.Names[1], "behind")
	h[1].has(t, c.Names[0]+":behind")
	respond([]byte("done"))
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// Each node responds when its own request is answered, or after a moment.
func crossingRequests(t *testing.T, c *Cluster) {
	h := c.serve(t)
	var wg sync.WaitGroup
	for i := range 2 {
		h[i].request = func(from string, payload []byte, respond func([]byte)) {
			if string(payload) == "inner" {
				respond([]byte("ok"))
				return
			}
			wg.Go(func() { // leads back to the node that asks
				a, _ := c.Buses[i].Request(ctx(t), from, []byte("inner"))
				respond(a)
			})
		}
	}
	for i := range 2 {
		wg.Go(func() {
			a, err := c.Buses[i].Request(ctx(t), c.Names[1-i], []byte("outer"))
			if err != nil || string(a) != "ok" {
				t.Errorf("%q %v", a, err)
			}
		})
	}
	wg.Wait()
}

func requestEnds(t *testing.T, c *Cluster) {
	h := c.serve(t)
	var mu sync.Mutex
	var late func([]byte)
	h[1].request = func(_ string, _ []byte, respond func([]byte)) {
		mu.Lock()
		defer mu.Unlock()
		late = respond
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Buses[0].Request(short, c.Names[1], nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the error of the context", err)
	}
	mu.Lock()
	late([]byte("too late")) // for nobody
	mu.Unlock()
	h[1].request = nil
	send(t, c.Buses[1], c.Names[0], "after")
	h[0].has(t, c.Names[1]+":after")
}

func payloads(t *testing.T, c *Cluster) {
	h := c.serve(t)
	b := []byte("first")
	if err := c.Buses[0].Send(c.Names[1], b); err != nil {
		t.Fatal(err)
	}
	copy(b, "XXXXX")
	send(t, c.Buses[0], c.Names[1], "")
	large := strings.Repeat("x", 640<<10) // the state of the largest room
	send(t, c.Buses[0], c.Names[1], large)
	h[1].has(t, c.Names[0]+":"+large)
	if got := h[1].of(c.Names[0]); got[0] != c.Names[0]+":first" || got[1] != c.Names[0]+":" {
		t.Errorf("heard %q", got[:2])
	}
}

func unknownNode(t *testing.T, c *Cluster) {
	c.serve(t)
	if err := c.Buses[0].Send("nowhere", nil); !errors.Is(err, engine.ErrNoNode) {
		t.Errorf("send: %v", err)
	}
	if _, err := c.Buses[0].Request(ctx(t), "nowhere", nil); !errors.Is(err, engine.ErrNoNode) {
		t.Errorf("request: %v", err)
	}
}

func stopped(t *testing.T, c *Cluster) {
	h := &heard{}
	stop := c.Buses[0].Serve(h)
	reached := make(chan struct{}, 1)
	defer c.Buses[1].Serve(&heard{request: func(string, []byte, func([]byte)) {
		reached <- struct{}{}
	}})()
	if c.Settle != nil {
		c.Settle(t)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := c.Buses[0].Request(ctx(t), c.Names[1], []byte("never answered"))
		asked <- err
	}()
	for i := range 100 {
		send(t, c.Buses[1], c.Names[0], fmt.Sprint(i))
	}
	h.has(t, c.Names[1]+":0")
	select {
	case <-reached:
	case err := <-asked:
		t.Fatalf("a request that nobody answers: %v", err)
	}
	stop()
	n := len(h.all())
	if err := <-asked; !errors.Is(err, engine.ErrLost) {
		t.Errorf("a request of a node that stopped: %v", err)
	}
	for i := range 100 {
		_ = c.Buses[1].Send(c.Names[0], fmt.Append(nil, i))
	}
	time.Sleep(100 * time.Millisecond)
	if got := len(h.all()); got != n {
		t.Errorf("%d messages after stop", got-n)
	}
}

func slowReader(t *testing.T, c *Cluster) {
	h := c.serve(t)
	h[1].block = make(chan struct{})
	const many = 20_000
	payload := strings.Repeat("x", 1024)
	full := 0
	for i := range many {
		err := c.Buses[0].Send(c.Names[1], []byte(fmt.Sprint(i, " ", payload)))
		if errors.Is(err, engine.ErrQueueFull) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	send(t, c.Buses[0], c.Names[2], "beside") // nobody else waits
	h[2].has(t, c.Names[0]+":beside")
	close(h[1].block)
	if !eventually(func() bool {
		err := c.Buses[0].Send(c.Names[1], []byte("end"))
		time.Sleep(time.Millisecond)
		return err == nil && slices.Contains(h[1].all(), c.Names[0]+":end")
	}) {
		t.Fatal("the node that was slow is not reached again")
	}
	gapless(t, h[1].of(c.Names[0]), many)
	if full > 0 && !slices.Contains(h[1].all(), c.Names[0]+" lost") {
		t.Error("the queue was full, and no gap reported")
	}
}

// gapless fails if numbers are missing where no gap is reported, or come twice.
func gapless(t *testing.T, got []string, many int) {
	t.Helper()
	next, gap := 0, false
	for _, entry := range got {
		if strings.HasSuffix(entry, " lost") {
			gap = true
			continue
		}
		_, body, _ := strings.Cut(entry, ":")
		i := many
		if body != "end" {
			_, _ = fmt.Sscan(body, &i)
		}
		if (i != next && !gap) || i < next {
			t.Fatalf("%d follows %d, gap reported: %t", i, next-1, gap)
		}
		if i == many {
			return
		}
		next, gap = i+1, false
	}
}

func lostMessage(t *testing.T, c *Cluster) {
	c.needs(t, c.Lose != nil)
	h := c.serve(t)
	from, to := c.Names[0], c.Names[1]
	send(t, c.Buses[0], to, "1")
	h[1].has(t, from+":1")
	c.Lose(0, 1, 2)
	for _, p := range []string{"2", "3", "4", "5"} {
		send(t, c.Buses[0], to, p)
	}
	h[1].has(t, from+":5")
	want := []string{from + ":1", from + " lost", from + ":4", from + ":5"}
	if got := h[1].of(from); !slices.Equal(got, want) {
		t.Errorf("heard %q, want %q", got, want)
	}
}

func lostLast(t *testing.T, c *Cluster) {
	c.needs(t, c.Lose != nil)
	h := c.serve(t)
	from := c.Names[0]
	send(t, c.Buses[0], c.Names[1], "1")
	h[1].has(t, from+":1")
	c.Lose(0, 1, 1)
	began := time.Now()
	send(t, c.Buses[0], c.Names[1], "2")
	h[1].has(t, from+" lost")
	if d := time.Since(began); c.Virtual && d > 60*time.Millisecond {
		t.Errorf("noticed after %v", d)
	}
}

func lostRequest(t *testing.T, c *Cluster) {
	c.needs(t, c.Lose != nil)
	c.serve(t)
	for _, lost := range [][2]int{{0, 1}, {1, 0}} {
		if a, err := c.Buses[0].Request(ctx(t), c.Names[1], []byte("a")); err != nil {
			t.Fatal(a, err)
		}
		c.Lose(lost[0], lost[1], 1)
		a, err := c.Buses[0].Request(ctx(t), c.Names[1], []byte("b"))
		if !errors.Is(err, engine.ErrLost) {
			t.Errorf("%v: got %q %v, want ErrLost", lost, a, err)
		}
	}
}

func cutAndHealed(t *testing.T, c *Cluster) {
	c.needs(t, c.Cut != nil)
	h := c.serve(t)
	from := c.Names[0]
	send(t, c.Buses[0], c.Names[1], "1")
	h[1].has(t, from+":1")
	c.Cut(0, 1, true)
	for i := range 10 {
		_ = c.Buses[0].Send(c.Names[1], fmt.Append(nil, "cut", i))
	}
	send(t, c.Buses[0], c.Names[2], "elsewhere")
	h[2].has(t, from+":elsewhere")
	if got := h[1].of(from); len(got) != 1 {
		t.Errorf("heard %q through the cut", got)
	}
	c.Cut(0, 1, false)
	h[1].has(t, from+" lost")
	if !eventually(func() bool {
		return c.Buses[0].Send(c.Names[1], []byte("2")) == nil
	}) {
		t.Fatal("nothing can be sent after the cut")
	}
	h[1].has(t, from+":2")
}

func startedAgain(t *testing.T, c *Cluster) {
	c.needs(t, c.Restart != nil)
	h := c.serve(t)
	from := c.Names[0]
	for i := range 5 {
		send(t, c.Buses[0], c.Names[1], fmt.Sprint(i))
	}
	h[1].has(t, from+":4")
	c.Restart(t, 0)
	t.Cleanup(c.Buses[0].Serve(&heard{}))
	if !eventually(func() bool { return c.Buses[0].Send(c.Names[1], []byte("new")) == nil }) {
		t.Fatal("the node that started again reaches nobody")
	}
	h[1].has(t, from+":new")
	got := h[1].of(from)
	if i := slices.Index(got, from+" lost"); i < 0 || i > slices.Index(got, from+":new") {
		t.Errorf("heard %q: no gap before the new stream", got)
	}
}

// needs skips a test that the engine cannot have done to it.
func (c *Cluster) needs(t *testing.T, can bool) {
	t.Helper()
	if !can {
		t.Skip("this engine cannot be made to lose frames in a test")
	}
}
