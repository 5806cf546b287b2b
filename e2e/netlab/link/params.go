// Package link is a cable in user space: it joins two TUN devices, usually in different network
// namespaces, and adds delay, jitter, loss, a rate limit and an off switch, each direction for
// itself and changeable at run time. It stands in for tc-netem, which needs a kernel module that
// many machines lack.
package link

import (
	"fmt"
	"strconv"
	"time"
)

// Params is how one direction of a link behaves. The zero value passes everything at once.
type Params struct {
	Delay time.Duration `json:"delay"` // one way, nanoseconds in JSON
	// Uniform 0..Jitter on top of Delay; the order of packets is kept.
	Jitter time.Duration `json:"jitter"`
	Loss   float64       `json:"loss"` // share of packets dropped at random, 0..1
	Rate   float64       `json:"rate"` // bit/s; 0: no limit
	// Longest wait behind the rate limit, then the tail is dropped; 0: DefaultQueue.
	Queue time.Duration `json:"queue"`
	Down  bool          `json:"down"` // everything is dropped, packets on their way too
}

// DefaultQueue is the wait behind a rate limit that a home router of the usual kind allows.
const DefaultQueue = 200 * time.Millisecond

// The longest delay is bounded because packets on their way are held in memory.
const maxDelay = 10 * time.Second

// Set changes one field by its name: delay, jitter and queue as Go durations ("25ms"), loss as a
// share ("0.02"), rate in bit/s, down as true or false. On error nothing has changed.
func (p *Params) Set(key, value string) error {
	switch key {
	case "delay":
		return setDuration(&p.Delay, key, value)
	case "jitter":
		return setDuration(&p.Jitter, key, value)
	case "queue":
		return setDuration(&p.Queue, key, value)
	case "loss":
		// Written so that NaN is refused too.
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f >= 0 && f <= 1) {
			return fmt.Errorf("loss %q: want a share from 0 to 1", value)
		}
		p.Loss = f
	case "rate":
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f == 0 || f >= 1000 && f <= 1e12) {
			return fmt.Errorf("rate %q: want 0 (no limit) or 1e3 to 1e12 bit/s", value)
		}
		p.Rate = f
	case "down":
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("down %q: want true or false", value)
		}
		p.Down = b
	default:
		return fmt.Errorf(
			"no link parameter %q: want delay, jitter, queue, loss, rate or down",
			key,
		)
	}
	return nil
}

func setDuration(d *time.Duration, key, value string) error {
	v, err := time.ParseDuration(value)
	if err != nil || v < 0 || v > maxDelay {
		return fmt.Errorf("%s %q: want a duration from 0 to %v", key, value, maxDelay)
	}
	*d = v
	return nil
}
