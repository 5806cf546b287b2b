package pair

import (
	"bytes"
	"fmt"
	"sync"
	"time"
)

// pair is two members of a room that pass one message to and fro.
type pair struct {
	// Static after construction.
	run     *run
	room    string
	members [2]*member

	mu        sync.Mutex // guards the fields below
	left      int        // deliveries still to come; 0: not playing
	inFlight  bool       // a message is in flight
	number    int        // of this message
	sender    int        // index of its sender
	sent      time.Duration
	paced     bool // messages are sent when they are due
	latencies []time.Duration
}

func newPair(r *run, name string) *pair {
	p := &pair{run: r, room: "room-" + name}
	for i := range p.members {
		p.members[i] = &member{
			pair:  p,
			index: i,
			id:    fmt.Sprintf("m%d-%s", i, name),
			inbox: make(chan []byte, 8),
		}
	}
	return p
}

// play delivers n messages. Member 0 sends the first. Paced, each is sent when it is due, and not
// when the previous one has arrived.
func (p *pair) play(n int, paced bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.sender, p.inFlight, p.paced = n, 0, false, paced
	p.latencies = make([]time.Duration, 0, n)
	if n == 0 {
		p.run.finished <- struct{}{}
		return
	}
	for _, m := range p.members {
		m.prepare()
	}
	if !paced {
		p.send(p.run.now())
	}
}

// sendDue sends the next message. Its latency counts from due. False: the previous message has not
// arrived.
func (p *pair) sendDue(due time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inFlight {
		return false
	}
	if p.left > 0 {
		p.send(due)
	}
	return true
}

// send sends the next message. A failed write ends the connection, and its reader reports that.
// Called with mu held.
func (p *pair) send(from time.Duration) {
	p.number = (p.number + 1) % numbers
	p.sent, p.inFlight = from, true
	p.members[p.sender].send(p.number)
}

// receive takes a message that a member received while playing.
func (p *pair) receive(m *member, text []byte) {
	now := p.run.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		p.run.failures.add(fmt.Errorf("%s received what no member sent: %.200q", m.id, text))
		return
	}
	sender := p.members[p.sender]
	if m == sender || !sender.hasSent(text, p.number) {
		p.run.failures.add(fmt.Errorf("%s received an unexpected message: %.200q", m.id, text))
		p.end("an unexpected message")
		return
	}
	p.run.delivered.Add(1)
	p.latencies = append(p.latencies, now-p.sent)
	p.sender, p.inFlight = m.index, false
	if p.left--; p.left == 0 {
		p.run.finished <- struct{}{}
	} else if !p.paced {
		p.send(p.run.now())
	}
}

// fail ends the play of a pair that cannot go on.
func (p *pair) fail(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(reason)
}

// end ends the play; the message in flight is lost. Called with mu held.
func (p *pair) end(reason string) {
	if p.left > 0 {
		p.left, p.inFlight = 0, false
		p.run.failures.lose(reason)
		p.run.finished <- struct{}{}
	}
}

// playing tells whether what a member receives belongs to the play.
func (p *pair) playing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latencies != nil
}

// A message carries its number in this field, always with as many digits.
const (
	numberField  = `"n":"`
	numberDigits = 8
	numbers      = 100_000_000
)

// putNumber writes n over the digits that start at at.
func putNumber(text []byte, at, n int) {
	for i := at + numberDigits - 1; i >= at; i-- {
		text[i] = byte('0' + n%10)
		n /= 10
	}
}

// numberAt finds the digits of the number; negative: there are none.
func numberAt(text []byte) int {
	i := bytes.Index(text, []byte(numberField))
	if i < 0 || i+len(numberField)+numberDigits > len(text) {
		return -1
	}
	return i + len(numberField)
}
