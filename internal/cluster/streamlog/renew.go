package streamlog

import (
	"encoding/json"
	"time"

	"github.com/ieum-rtc/ieum/internal/cluster/lease"
	"github.com/ieum-rtc/ieum/internal/cluster/mismatch"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

const (
	// takeTurns is how much later each next node declares another dead, so that one does it.
	takeTurns = 150 * time.Millisecond
)

// renew keeps this node's lease, and declares others dead.
func (l *Log) renew() {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	var held bool
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		now := lease.Now()
		if holds := l.lease.Holds(now); holds != held {
			held = holds
			l.mu.Lock()
			l.since = now + graceTime
			l.mu.Unlock()
		}
		if held {
			l.buryOthers(now)
		}
		l.renewOnce(now)
	}
}

// renewOnce stores one renewal of a node that has joined.
func (l *Log) renewOnce(now time.Duration) {
	n, member := l.cfg.Machine.Member(l.cfg.Node)
	if member.Process != l.cfg.Process || n.State == engine.Dead {
		return
	}
	e := entry{kind: kindRenew, process: l.cfg.Process, id: l.ids.Add(1)}
	l.mu.Lock()
	for id, a := range l.asked {
		if now-a.at > leaseTime {
			delete(l.asked, id) // it would come too late
		}
	}
	l.asked[e.id] = asked{now}
	l.mu.Unlock()
	var err error
	if e.payload, err = json.Marshal(renew{Node: l.cfg.Node, About: l.about()}); err == nil {
		err = l.cfg.Conn.Publish(l.subject(), e.append(nil))
	}
	if err != nil {
		l.cfg.Log.Debug("lease not renewed", "error", err)
	}
}

// buryOthers declares nodes dead whose leases have ended for sure.
func (l *Log) buryOthers(now time.Duration) {
	rank := time.Duration(0) // of this node among those that may do it
	for _, n := range l.cfg.Machine.Nodes() {
		_, member := l.cfg.Machine.Member(n.Name)
		switch {
		case n.Name == l.cfg.Node || n.State == engine.Dead:
			continue
		case n.Name < l.cfg.Node:
			rank++
		}
		l.mu.Lock()
		r := l.renewals[n.Name] // which entries alone change: it is the same on all nodes
		if r.Process != member.Process {
			r = renewal{}
		}
		seen := l.seen[n.Name]
		if seen.process != member.Process {
			// It joined and has not renewed: from now on it must.
			seen = sighting{member.Process, now}
			l.seen[n.Name] = seen
		}
		l.compare(n.Name, &r.About)
		late := now - max(seen.at, l.since)
		l.mu.Unlock()
		if late <= deadAfter+rank*takeTurns {
			continue
		}
		l.cfg.Log.Warn("node declared dead: it does not renew its lease", "other", n.Name)
		d := bury{
			Node:        n.Name,
			Incarnation: n.Incarnation,
			Process:     member.Process,
			Renewals:    r.Count,
		}
		e := entry{kind: kindBury, process: l.cfg.Process, id: l.ids.Add(1)}
		var err error
		if e.payload, err = json.Marshal(d); err == nil {
			err = l.store(l.ctx, &e)
		}
		if err != nil {
			l.cfg.Log.Debug("not declared dead", "other", n.Name, "error", err)
		}
	}
}

// compare warns of what another node has differently.
func (l *Log) compare(name string, h *about) {
	if h.Fingerprint == "" {
		return // it has not said yet
	}
	if !mismatch.ShareKey(h.Fingerprint, l.cfg.Fingerprints()) {
		l.warnings.Tell("key "+name, "another node has another license signing key. "+
			"Give all nodes the same --license-signing-key-file", "other", name)
	}
	l.warnings.Version(name, l.cfg.Version, h.Program, "other", name)
}
