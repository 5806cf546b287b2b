package bench

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// MixConfig says what Mix does to a server. Fields with a default take it when zero.
type MixConfig struct {
	Target           // Conns are in rooms of two to eight, Size is that of an offer
	Rate     float64 // messages that members send, a second
	Joins    float64 // members that leave and come again, a second; default a twentieth of Rate
	Duration time.Duration
	// Admin is where the server serves its metrics and profiles, http://host:port: what it holds after a garbage collection is read
	// there, before and after the last two thirds of the load. Empty: that is not measured.
	Admin string

	// Disturb plays the load once more, with others beside it who do what they should not: HalfOpen sockets that never log in, Herd clients
	// whose connections are cut all at once, senders that flood, readers that are slow or stop.
	Disturb        bool
	HalfOpen, Herd int
	// Disturber makes the command of a process that runs Disturb, for those others; nil: they are in this process.
	Disturber func(context.Context) *exec.Cmd `json:"-"`
}

// One in so many joins is that of a user who has gone altogether and logs in anew, and there is one lost connection for so many joins.
const (
	loginEvery  = 4
	resumeEvery = 4
)

const (
	mixRateMost = 100_000
	mixStay     = time.Second // outside a room, between leaving it and joining it again
	movingMost  = 512         // members who come, go or connect anew at a time
)

// Validate reports every fault.
func (c MixConfig) Validate() error {
	var faults []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	c.check(need)
	if c.Admin != "" {
		u, err := url.Parse(c.Admin)
		need(err == nil && u.Scheme == "http" && u.Host != "", "admin: %q is not of the form http://host:port", c.Admin)
	}
	need(c.Conns >= 2 && c.Conns <= maxConns, "conns: must be 2 to %d", maxConns)
	need(c.Rate >= 1 && c.Rate <= mixRateMost, "rate: must be 1 to %d messages a second", mixRateMost)
	need(c.Joins >= 0 && c.Joins <= mixRateMost, "joins: must be 0 to %d a second", mixRateMost)
	need(c.Duration >= time.Second && c.Duration <= 24*time.Hour, "duration: must be 1s to 24h")
	need(c.HalfOpen >= 0 && c.HalfOpen <= maxConns && c.Herd >= 0 && c.Herd <= maxConns, "half-open and herd: must be 0 to %d", maxConns)
	need(c.Disturb || c.HalfOpen == 0 && c.Herd == 0, "half-open and herd: only those who disturb are so")
	files := c.Conns
	if c.Disturb {
		files += c.HalfOpen + c.Herd + 2*(flooders+slow+stopped)
	}
	return errors.Join(append(faults, enoughFiles(files, process(c.PID)))...)
}

func (c *MixConfig) defaults() {
	c.Target.defaults()
	if c.Joins == 0 {
		c.Joins = c.Rate / 20
	}
}

// MixReport is what came out. Fields that were not measured are left out of its JSON.
type MixReport struct {
	Conns   int     `json:"conns"`
	Rooms   int     `json:"rooms"`
	Rate    float64 `json:"rate"`
	Joins   float64 `json:"joins"`
	Seconds float64 `json:"seconds"`

	ConnectSeconds  float64  `json:"connectSeconds"`
	CPUPer1kConnect *float64 `json:"cpuPer1kConnect,omitempty"` // seconds for 1,000 connections, room included
	KBPerConn       *float64 `json:"kbPerConn,omitempty"`       // growth of resident memory for one idle connection
	HeapKBPerConn   *float64 `json:"heapKBPerConn,omitempty"`   // growth of the heap after a collection for one idle connection

	Delivered     int64              `json:"delivered"`               // messages, right in content, order and sender
	CPUPerMillion *float64           `json:"cpuPerMillion,omitempty"` // seconds for a million delivered, joins and all else included
	Operations    map[string]Latency `json:"operations"`
	LateP99us     float64            `json:"lateP99us"` // of the load itself: how long after they were due it did things. It is part of the latencies

	Before *Holding `json:"before,omitempty"` // what the server held after a third of the load
	After  *Holding `json:"after,omitempty"`  // and after all of it

	Disturbed *Disturbed `json:"disturbed,omitempty"`

	Faults
}

// Faults are what must not be.
type Faults struct {
	Lost       int    `json:"lost"`       // sent and never delivered, or due and never sent
	OutOfOrder int    `json:"outOfOrder"` // delivered after something that was sent later
	Duplicates int    `json:"duplicates"`
	Closed     int    `json:"closed"`          // connections that the server ended
	Refused    int    `json:"refused"`         // requests that were answered by another code than 200
	Errors     int    `json:"errors"`          // all else
	Fault      string `json:"fault,omitempty"` // the first of them
}

// Any tells whether something was wrong.
func (f Faults) Any() bool {
	return f.Lost+f.OutOfOrder+f.Duplicates+f.Closed+f.Refused+f.Errors > 0
}

// mixFaults counts them.
type mixFaults struct {
	mu sync.Mutex
	Faults
}

func (f *mixFaults) count(which *int, err error) { f.countMany(which, 1, err) }

func (f *mixFaults) countMany(which *int, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*which += n
	if f.Fault == "" {
		f.Fault = err.Error()
	}
}

func (f *mixFaults) seen() Faults {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Faults
}

// Latency is how long something took, in microseconds: half of them took no longer than P50us, 99 of a hundred no longer than P99us,
// 999 of a thousand no longer than P999us. It is counted from when it was due and not from when the load came to do it.
type Latency struct {
	Count  int64   `json:"count"`
	P50us  float64 `json:"p50us"`
	P99us  float64 `json:"p99us"`
	P999us float64 `json:"p999us"`
}

func (h *histogram) latency() Latency {
	us := func(q float64) float64 { return round(h.quantile(q) / float64(time.Microsecond)) }
	return Latency{h.count(), us(0.5), us(0.99), us(0.999)}
}

// clocks are the times of each kind.
type clocks [kinds]histogram

func (c *clocks) operations() map[string]Latency {
	all := map[string]Latency{}
	for k := range c {
		if h := &c[k]; h.count() > 0 {
			all[kindNames[k]] = h.latency()
		}
	}
	return all
}

// mixer is the load of one Mix: rooms whose members come and go, call each other and talk.
type mixer struct {
	cfg    MixConfig
	url    *url.URL
	dialer *dialer
	epoch  time.Time
	server process
	bodies [kinds][]byte // what messages carry, the same in all of a kind

	name    string // no other run's ids begin with it
	rooms   []*mixRoom
	readers sync.WaitGroup // one for each open connection
	closing atomic.Bool    // we end the connections: their end is no fault
	moving  chan struct{}  // one for each member who comes, goes or connects anew
	movers  sync.WaitGroup

	times     atomic.Pointer[clocks]
	delivered atomic.Int64
	joined    atomic.Int64
	faults    mixFaults
	pacer     pacer
	report    MixReport

	away chan *user // those who left a room, in the order in which they are to come again; at most one of a room
}

// Mix makes the load and measures it. An error means that the load could not be made; what went wrong under load is in the
// report. It returns when all its connections have ended.
func Mix(ctx context.Context, cfg MixConfig) (MixReport, error) {
	if err := cfg.Validate(); err != nil {
		return MixReport{}, err
	}
	cfg.defaults()
	m := newMixer(cfg)
	defer m.close()
	err := m.measure(ctx)
	m.report.Faults = m.faults.seen()
	return m.report, err
}

func newMixer(cfg MixConfig) *mixer {
	m := &mixer{cfg: cfg, epoch: time.Now(), server: process(cfg.PID), name: runName()}
	m.url, m.dialer = cfg.way()
	m.moving = make(chan struct{}, movingMost)
	m.times.Store(new(clocks))
	m.pacer = pacer{now: m.now, nap: nap, stall: cfg.Stall, late: new(histogram)}
	m.bodies[kindOffer] = []byte(`{"type":"offer","sdp":"` + sdp(cfg.Size-200) + `"}`)
	m.bodies[kindAnswer] = []byte(`{"type":"answer","sdp":"` + sdp(cfg.Size-300) + `"}`)
	m.bodies[kindCandidate] = []byte(`{"candidate":"candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 0.0.0.0 rport 0","sdpMid":"0","sdpMLineIndex":0}`)
	m.bodies[kindChat] = []byte(` Good morning, can everybody hear me?`)
	for i, n := range sizesFor(cfg.Conns) {
		r := &mixRoom{mix: m, id: fmt.Sprintf("%s-%d", m.name, i)}
		for j := range n {
			r.users = append(r.users, &user{room: r, index: j, batches: (i+j)%2 == 0})
		}
		m.rooms = append(m.rooms, r)
	}
	m.away = make(chan *user, len(m.rooms))
	m.report = MixReport{Conns: cfg.Conns, Rooms: len(m.rooms), Rate: cfg.Rate, Joins: cfg.Joins, Seconds: cfg.Duration.Seconds()}
	return m
}

func (m *mixer) now() time.Duration { return m.at(time.Now()) }

func (m *mixer) at(t time.Time) time.Duration { return t.Sub(m.epoch) }

func (m *mixer) took(k kind, due, now time.Duration) { m.times.Load()[k].add(int64(now - due)) }

// closed is told of connections that the server has ended.
func (m *mixer) closed(u *user, err error) {
	if !m.closing.Load() {
		m.faults.count(&m.faults.Closed, fmt.Errorf("the connection of %s ended: %w", u.id, byCode(err)))
	}
}

func (m *mixer) measure(ctx context.Context) error {
	if err := m.connections(ctx); err != nil {
		return err
	}
	cpu, err := m.server.cpu()
	if err != nil {
		return err
	}
	third := m.cfg.Duration / 3
	if err := m.play(ctx, third); err != nil {
		return err
	}
	if m.report.Before, err = m.holding(ctx); err != nil {
		return err
	}
	if err := m.play(ctx, m.cfg.Duration-third); err != nil {
		return err
	}
	after, err := m.server.cpu()
	if err != nil {
		return err
	}
	if m.report.After, err = m.holding(ctx); err != nil {
		return err
	}
	m.report.Delivered = m.delivered.Load()
	m.report.Operations = m.times.Load().operations()
	m.report.LateP99us = m.lateness()
	if m.server != 0 && m.report.Delivered > 0 {
		m.report.CPUPerMillion = ptr(round((after - cpu).Seconds() * 1e6 / float64(m.report.Delivered)))
	}
	if m.cfg.Disturb {
		return m.disturbed(ctx)
	}
	return nil
}

func (m *mixer) lateness() float64 {
	return round(m.pacer.late.quantile(0.99) / float64(time.Microsecond))
}

// connections brings all into their rooms and measures what an idle one costs.
func (m *mixer) connections(ctx context.Context) error {
	before, err := m.holding(ctx)
	if err != nil {
		return err
	}
	spent, took, err := m.server.during(func() error {
		return each(ctx, m.cfg.Dials, len(m.rooms), func(ctx context.Context, i int) error { return m.rooms[i].fill(ctx) })
	})
	if err != nil {
		return err
	}
	m.report.ConnectSeconds = round(took.Seconds())
	conns := float64(m.cfg.Conns)
	if m.server != 0 {
		m.report.CPUPer1kConnect = ptr(round(spent.Seconds() * 1000 / conns))
	}
	if before == nil {
		return nil
	}
	idle, err := m.holding(ctx)
	if err != nil {
		return err
	}
	if m.server != 0 {
		m.report.KBPerConn = ptr(round(float64(idle.RSSKB-before.RSSKB) / conns))
	}
	if m.cfg.Admin != "" {
		m.report.HeapKBPerConn = ptr(round(float64(idle.HeapKB-before.HeapKB) / conns))
	}
	return nil
}

// fill brings the members of a room into it, one after the other.
func (r *mixRoom) fill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, enterWithin)
	defer cancel()
	for i, u := range r.users {
		if err := u.login(ctx); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		if i == 0 {
			if _, err := u.link.ask(ctx, request{"eventOp": "createRoom", "roomId": r.id}); err != nil {
				return err
			}
		}
		if err := u.enter()(ctx); err != nil {
			return err
		}
		if err := r.settled(ctx); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	return nil
}

// settled waits until nothing is in flight.
func (r *mixRoom) settled(ctx context.Context) error {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		r.mu.Lock()
		quiet := r.quiet()
		r.mu.Unlock()
		if quiet {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("what was sent did not arrive: %w", context.Cause(ctx))
		case <-look.C:
		}
	}
}

// play is the load for a time, until all that was sent has arrived and everybody is inside again.
func (m *mixer) play(ctx context.Context, length time.Duration) error {
	from := m.now()
	n := 0
	undone := m.pacer.run(ctx,
		perSecond(m.cfg.Rate, from, from+length, func(due time.Duration) bool {
			done := m.speak(said[n%len(said)], due)
			if done {
				n++
			}
			return done
		}),
		perSecond(m.cfg.Joins, from, from+length, func(due time.Duration) bool { return m.exit(ctx, due) }),
		perSecond(m.cfg.Joins, from+mixStay, from+mixStay+length, func(due time.Duration) bool { return m.enter(ctx, due) }),
		perSecond(m.cfg.Joins/resumeEvery, from, from+length, func(due time.Duration) bool { return m.comeBack(ctx, due) }),
	)
	if undone > 0 && ctx.Err() == nil {
		m.faults.countMany(&m.faults.Lost, undone, fmt.Errorf("%d messages, joins and leaves could not be sent within %s", undone, m.cfg.Stall))
	}
	m.movers.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.drain(ctx)
}

// drain waits for what is in flight; what does not come is lost.
func (m *mixer) drain(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, m.cfg.Stall)
	defer cancel()
	for _, r := range m.rooms {
		if err := r.settled(patience); err == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r.mu.Lock()
		lost := r.inFlight
		r.inFlight, r.busy = 0, false
		r.mu.Unlock()
		if lost > 0 {
			m.faults.countMany(&m.faults.Lost, lost, fmt.Errorf("%d messages or events of room %s did not arrive within %s", lost, r.id, m.cfg.Stall))
		}
	}
	return nil
}

// some calls f with one room after the other, from any one on, until it is true.
func (m *mixer) some(f func(r *mixRoom) bool) bool {
	n := len(m.rooms)
	for i, from := 0, mathrand.IntN(n); i < n; i++ {
		if f(m.rooms[(from+i)%n]) {
			return true
		}
	}
	return false
}

func (m *mixer) speak(k kind, due time.Duration) bool {
	return m.some(func(r *mixRoom) bool { return r.speak(k, due) })
}

// exit lets one member of a whole room leave it.
func (m *mixer) exit(ctx context.Context, due time.Duration) bool {
	r := m.claim((*mixRoom).whole)
	if r == nil {
		return false
	}
	u := r.users[mathrand.IntN(len(r.users))]
	answered := u.exit()
	m.move(ctx, r, func(ctx context.Context) error {
		if err := answered(ctx); err != nil {
			return err
		}
		m.took(kindLeave, due, m.at(u.link.answered))
		m.away <- u
		return nil
	})
	return true
}

// enter lets the one who is away for the longest time come again, if the room is quiet; else the next.
func (m *mixer) enter(ctx context.Context, due time.Duration) bool {
	for range len(m.away) {
		u := <-m.away // nobody else takes from it
		if m.crowded() || !u.room.claim(func() bool { return true }) {
			m.away <- u
			continue
		}
		m.move(ctx, u.room, u.again(due))
		return true
	}
	return false
}

// again brings u, who is away, in again; one in loginEvery has gone altogether.
func (u *user) again(due time.Duration) waiter {
	m := u.room.mix
	if m.joined.Add(1)%loginEvery != 0 {
		return u.entering(due)
	}
	return func(ctx context.Context) error {
		u.link.leave()
		if err := u.login(ctx); err != nil {
			return err
		}
		m.took(kindRegister, due, m.at(u.link.answered))
		return u.entering(m.now())(ctx) // only now can the join be asked for
	}
}

// entering is enter, measured.
func (u *user) entering(due time.Duration) waiter {
	m, answered := u.room.mix, u.enter()
	return func(ctx context.Context) error {
		if err := answered(ctx); err != nil {
			return err
		}
		m.took(kindJoin, due, m.at(u.link.answered))
		return nil
	}
}

// comeBack lets one member lose the connection and resume.
func (m *mixer) comeBack(ctx context.Context, due time.Duration) bool {
	r := m.claim(func(r *mixRoom) bool { return r.inside() > 0 })
	if r == nil {
		return false
	}
	u := r.another(nil)
	m.move(ctx, r, func(ctx context.Context) error {
		if err := u.comeBack(ctx); err != nil {
			return err
		}
		m.took(kindResume, due, m.at(u.link.answered))
		return nil
	})
	return true
}

// crowded tells whether too many move already. The pacer alone asks, and sets them moving.
func (m *mixer) crowded() bool { return len(m.moving) == cap(m.moving) }

// claim makes a quiet room that fits busy; nil: there is none, or too many move already.
func (m *mixer) claim(fits func(*mixRoom) bool) *mixRoom {
	var claimed *mixRoom
	if !m.crowded() {
		m.some(func(r *mixRoom) bool {
			if r.claim(func() bool { return fits(r) }) {
				claimed = r
			}
			return claimed != nil
		})
	}
	return claimed
}

// move lets somebody of a room that was claimed come, go or connect anew. A failure is counted, and the room stays silent.
func (m *mixer) move(ctx context.Context, r *mixRoom, f func(context.Context) error) {
	m.moving <- struct{}{}
	m.movers.Go(func() {
		defer func() { <-m.moving }()
		ctx, cancel := context.WithTimeout(ctx, m.cfg.Stall)
		defer cancel()
		switch err := f(ctx); {
		case errors.Is(err, errRefused):
			m.faults.count(&m.faults.Refused, err)
		case err != nil && !m.closing.Load():
			m.faults.count(&m.faults.Errors, err)
		case err == nil:
			r.release()
		}
	})
}

// close ends every connection and waits until they have ended. It may be called twice.
func (m *mixer) close() {
	m.closing.Store(true)
	m.movers.Wait()
	for _, r := range m.rooms {
		for _, u := range r.users {
			if u.link != nil {
				u.link.leave()
			}
		}
	}
	m.readers.Wait()
}
