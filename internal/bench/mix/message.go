package mix

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/client"
)

// operation is what users do, each measured separately.
type operation int

const (
	opRegister operation = iota
	opJoin
	opLeave
	opResume
	opOffer
	opAnswer
	opCandidate
	opChat
	operations // how many there are
)

var operationNames = [operations]string{
	"register", "join", "leave", "resume", "offer", "answer", "candidate", "chat",
}

// script is what users send, over and over: the messages of calls that trickle candidates one by
// one, and a chat message now and then.
var script = func() (all [32]operation) {
	call := [8]operation{
		opOffer, opCandidate, opAnswer, opCandidate,
		opCandidate, opCandidate, opCandidate, opCandidate,
	}
	for i := range all {
		all[i] = call[i%len(call)]
	}
	all[len(all)-1] = opChat
	return all
}()

// bodies are what messages carry, besides their stamp. Size is that of an offer in bytes.
func bodies(size int) (b [operations][]byte) {
	b[opOffer] = []byte(`{"type":"offer","sdp":"` + client.SDP(size-200) + `"}`)
	b[opAnswer] = []byte(`{"type":"answer","sdp":"` + client.SDP(size-300) + `"}`)
	b[opCandidate] = []byte(`{"candidate":"candidate:842163049 1 udp 1677729535 203.0.113.7 ` +
		`46154 typ srflx raddr 0.0.0.0 rport 0","sdpMid":"0","sdpMLineIndex":0}`)
	b[opChat] = []byte(` Good morning, can everybody hear me?`)
	return b
}

// stamp is part of every message that users send to each other.
type stamp struct {
	op     operation
	number uint32        // among all messages of the sender
	due    time.Duration // since the epoch of the run, in whole microseconds
}

// A stamp begins a JSON string.
const (
	stampMark    = `"#`
	numberDigits = 8
	dueDigits    = 16
)

func (s stamp) append(dst []byte) []byte {
	return fmt.Appendf(dst, "#%d%0*d%0*d",
		s.op, numberDigits, s.number, dueDigits, s.due.Microseconds())
}

func findStamp(text []byte) (stamp, bool) {
	_, digits, found := bytes.Cut(text, []byte(stampMark))
	if !found || len(digits) < 1+numberDigits+dueDigits {
		return stamp{}, false
	}
	op := operation(digits[0] - '0')
	number, err := strconv.ParseUint(string(digits[1:1+numberDigits]), 10, 32)
	due, errDue := strconv.ParseUint(string(digits[1+numberDigits:][:dueDigits]), 10, 53)
	if err != nil || errDue != nil || op < opOffer || op > opChat {
		return stamp{}, false
	}
	return stamp{op, uint32(number), time.Duration(due) * time.Microsecond}, true
}

// verdict is what the number of a message says about its delivery.
type verdict int

const (
	inOrder verdict = iota
	outOfOrder
	duplicate
)

// order is what one user has received from another. A user receives only part of what the other
// numbers, so a gap says nothing.
type order struct {
	last   uint32
	recent [16]uint32 // tells duplicates from late messages
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
