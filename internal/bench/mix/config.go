// Package mix loads a signaling server with users in rooms of two to eight that join and leave,
// call each other, chat and reconnect, at fixed rates. It checks that every message arrives once,
// unchanged and in order.
package mix

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/adversary"
	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/bench/proc"
	"github.com/ieum-rtc/ieum/internal/bench/report"
	"github.com/ieum-rtc/ieum/internal/bench/schedule"
)

// Config is the load that Run makes. Fields with a default take it when zero.
type Config struct {
	client.Target               // Conns are in rooms of two to eight; Size is that of an offer
	Rate          float64       // messages that users send, per second
	Joins         float64       // users that leave and rejoin, per second; default Rate/20
	Duration      time.Duration // measured

	// Admin is the admin listener of the server, http://host:port. What the server holds after a
	// garbage collection is read there, after one third of the load and after all of it. Empty:
	// that is not measured.
	Admin string

	// Adversaries, unless nil, misbehave during a second run of the same load. Their target is
	// that of the mix.
	Adversaries *adversary.Config
	// AdversaryProcess makes the command of a process that runs adversary.Serve; nil: adversaries
	// run in this process.
	AdversaryProcess func(context.Context) *exec.Cmd
}

const (
	// Every so many joins the user logs in again, too, and another connection is cut and resumed.
	loginEvery  = 4
	resumeEvery = 4

	outsideFor = time.Second // between leaving a room and joining it again
	maxChanges = 512         // users that join, leave or reconnect at a time
)

// Validate reports every error.
func (c Config) Validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	c.Check(need)
	if c.Admin != "" {
		u, err := url.Parse(c.Admin)
		need(err == nil && u.Scheme == "http" && u.Host != "",
			"admin: %q is not of the form http://host:port", c.Admin)
	}
	need(c.Conns >= 2 && c.Conns <= client.MaxConns, "conns: must be 2 to %d", client.MaxConns)
	need(c.Rate >= 1 && c.Rate <= schedule.MaxRate,
		"rate: must be 1 to %d messages per second", schedule.MaxRate)
	need(c.Joins >= 0 && c.Joins <= schedule.MaxRate,
		"joins: must be 0 to %d per second", schedule.MaxRate)
	need(c.Duration >= time.Second && c.Duration <= 24*time.Hour, "duration: must be 1s to 24h")
	files := c.Conns
	if c.Adversaries != nil {
		c.Adversaries.CheckCounts(need)
		files += c.Adversaries.Sockets()
	}
	return errors.Join(append(errs, proc.EnoughFiles(files, proc.PID(c.PID)))...)
}

func (c *Config) setDefaults() {
	c.SetDefaults()
	if c.Joins == 0 {
		c.Joins = c.Rate / 20
	}
}

// Report is the result of Run. Fields that were not measured are left out of its JSON.
type Report struct {
	Conns   int     `json:"conns"`
	Rooms   int     `json:"rooms"`
	Rate    float64 `json:"rate"`
	Joins   float64 `json:"joins"`
	Seconds float64 `json:"seconds"`

	ConnectSeconds  float64  `json:"connectSeconds"`
	CPUPer1kConnect *float64 `json:"cpuPer1kConnect,omitempty"` // seconds, joining a room included
	KBPerConn       *float64 `json:"kbPerConn,omitempty"`       // of resident memory, while idle
	HeapKBPerConn   *float64 `json:"heapKBPerConn,omitempty"`   // after a garbage collection

	Delivered     int64                     `json:"delivered"`               // correct messages
	CPUPerMillion *float64                  `json:"cpuPerMillion,omitempty"` // seconds, in all
	Operations    map[string]report.Latency `json:"operations"`
	LateP99us     float64                   `json:"lateP99us"` // of the generator; in the latencies

	Before *Footprint `json:"before,omitempty"` // after one third of the load
	After  *Footprint `json:"after,omitempty"`  // after all of it

	Adversaries *AdversaryReport `json:"adversaries,omitempty"`

	Failures
}

// AdversaryReport is how the users fared while adversaries misbehaved.
type AdversaryReport struct {
	Operations map[string]report.Latency `json:"operations"` // of the users
	LateP99us  float64                   `json:"lateP99us"`

	adversary.Report
}

// Failures count what a correct server does not do.
type Failures struct {
	Lost       int    `json:"lost"`       // sent and never delivered, or due and never sent
	OutOfOrder int    `json:"outOfOrder"` // delivered after something that was sent later
	Duplicates int    `json:"duplicates"`
	Closed     int    `json:"closed"`               // connections that the server ended
	Refused    int    `json:"refused"`              // requests with another code than 200
	Errors     int    `json:"errors"`               // all else
	FirstError string `json:"firstError,omitempty"` // the first of all these
}

// Any tells whether something failed.
func (f Failures) Any() bool {
	return f.Lost+f.OutOfOrder+f.Duplicates+f.Closed+f.Refused+f.Errors > 0
}

// Err is all failures in one sentence; nil when there are none.
func (f Failures) Err() error {
	if !f.Any() {
		return nil
	}
	return fmt.Errorf("%d lost, %d out of order, %d duplicates, %d connections closed, "+
		"%d requests refused, %d other errors: %s",
		f.Lost, f.OutOfOrder, f.Duplicates, f.Closed, f.Refused, f.Errors, f.FirstError)
}

// failures is Failures that many goroutines count.
type failures struct {
	mu sync.Mutex
	Failures
}

func (f *failures) count(which *int, err error) { f.add(which, 1, err) }

func (f *failures) add(which *int, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*which += n
	if f.FirstError == "" {
		f.FirstError = err.Error()
	}
}

func (f *failures) snapshot() Failures {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Failures
}
