package bench

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// kind is what is done at a time of its own, and measured by itself.
type kind int

const (
	kindRegister kind = iota
	kindJoin
	kindLeave
	kindResume
	kindOffer
	kindAnswer
	kindCandidate
	kindChat
	kinds
)

var kindNames = [kinds]string{"register", "join", "leave", "resume", "offer", "answer", "candidate", "chat"}

// said is what members say to each other, again and again: as many of each as calls take whose candidates go one by one, and a word in
// between.
var said = func() (all [32]kind) {
	call := [8]kind{kindOffer, kindCandidate, kindAnswer, kindCandidate, kindCandidate, kindCandidate, kindCandidate, kindCandidate}
	for i := range all {
		all[i] = call[i%len(call)]
	}
	all[len(all)-1] = kindChat
	return all
}()

// stamp is in every message that members pass on: what it is, its number among all of its sender, and when it was due.
type stamp struct {
	kind   kind
	number uint32
	due    time.Duration // since the run's epoch, in whole microseconds
}

// A stamp begins a JSON string.
const (
	stampMark = `"#`
	dueDigits = 16
)

func (s stamp) append(dst []byte) []byte {
	return fmt.Appendf(dst, "#%d%0*d%0*d", s.kind, numberDigits, s.number, dueDigits, s.due.Microseconds())
}

func findStamp(text []byte) (stamp, bool) {
	_, digits, found := bytes.Cut(text, []byte(stampMark))
	if !found || len(digits) < 1+numberDigits+dueDigits {
		return stamp{}, false
	}
	k := kind(digits[0] - '0')
	number, err := strconv.ParseUint(string(digits[1:1+numberDigits]), 10, 32)
	due, errDue := strconv.ParseUint(string(digits[1+numberDigits:][:dueDigits]), 10, 53)
	if err != nil || errDue != nil || k < kindOffer || k > kindChat {
		return stamp{}, false
	}
	return stamp{k, uint32(number), time.Duration(due) * time.Microsecond}, true
}

// verdict is what a message's number says about the way it came.
type verdict int

const (
	inOrder verdict = iota
	outOfOrder
	duplicate
)

// order is what one member has heard of another. A member hears only part of what the other numbers, so a gap says nothing.
type order struct {
	last   uint32
	recent [16]uint32 // the last ones, to tell what comes twice from what comes late
	next   uint8
}

func (o *order) take(number uint32) verdict {
	v := inOrder
	if number <= o.last {
		v = outOfOrder
		for _, n := range o.recent {
			if n == number {
				return duplicate
			}
		}
	}
	o.last = max(o.last, number)
	o.recent[o.next] = number
	o.next = (o.next + 1) % uint8(len(o.recent))
	return v
}
