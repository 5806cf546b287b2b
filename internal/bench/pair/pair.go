package pair

import (
	"bytes"
	"fmt"
	"sync"
	"time"
)

// pair is two members of one room, who throw one message to and fro.
type pair struct {
	run     *run
	room    string
	members [2]*member

	mu     sync.Mutex // guards what follows
	left   int        // deliveries still to come; 0: not playing
	flying bool       // a message is in flight
	number int        // of it
	from   int        // index of the member who sent it
	sent   time.Duration
	paced  bool
	took   []time.Duration
}

func newPair(r *run, name string) *pair {
	p := &pair{run: r, room: "room-" + name}
	for i := range p.members {
		p.members[i] = &member{pair: p, index: i, id: fmt.Sprintf("m%d-%s", i, name), inbox: make(chan []byte, 8)}
	}
	return p
}

// play delivers n messages, the first one sent by member 0. Paced, each is sent when it is due, and not when the last one has arrived.
func (p *pair) play(n int, paced bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.from, p.flying, p.paced, p.took = n, 0, false, paced, make([]time.Duration, 0, n)
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

// due sends the next message, counted from when it was due; false: the one before has not arrived.
func (p *pair) due(at time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flying {
		return false
	}
	if p.left > 0 {
		p.send(at)
	}
	return true
}

// send is called with mu held. A failed write ends the connection, and its reader reports that.
func (p *pair) send(counted time.Duration) {
	p.number = (p.number + 1) % numbers
	p.sent, p.flying = counted, true
	p.members[p.from].send(p.number)
}

// got takes a message that m received while playing.
func (p *pair) got(m *member, text []byte) {
	now := p.run.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		p.run.faults.add(fmt.Errorf("%s received what nobody sent: %.200q", m.id, text))
		return
	}
	sender := p.members[p.from]
	if m == sender || !sender.sent(text, p.number) {
		p.run.faults.add(fmt.Errorf("%s received what was not expected: %.200q", m.id, text))
		p.end("an unexpected message")
		return
	}
	p.run.delivered.Add(1)
	p.took = append(p.took, now-p.sent)
	p.from, p.flying = m.index, false
	if p.left--; p.left == 0 {
		p.run.finished <- struct{}{}
	} else if !p.paced {
		p.send(p.run.now())
	}
}

// fail ends the play of a pair that cannot go on.
func (p *pair) fail(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(why)
}

// end is called with mu held; the message in flight is lost.
func (p *pair) end(why string) {
	if p.left > 0 {
		p.left, p.flying = 0, false
		p.run.faults.lose(1, why)
		p.run.finished <- struct{}{}
	}
}

// playing tells whether what a member receives belongs to play.
func (p *pair) playing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.took != nil
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
