package streamlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ieum-rtc/ieum/internal/cluster/directory"
	"github.com/ieum-rtc/ieum/internal/cluster/lease"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

const (
	openTimeout = 2 * time.Second
	againAfter  = 250 * time.Millisecond
	// A server that is silent for two heartbeats is asked anew.
	heartbeat = time.Second
	pullTime  = 3 * time.Second
	pullSize  = 512
	// forgetAfter is how long the server keeps the place of a node that is gone.
	forgetAfter = 10 * time.Second
	maxEntry    = 1 << 20
	replicas    = 3
)

var errGap = errors.New("entries are missing")

// run follows the stream until Close.
func (l *Log) run() {
	for {
		err := l.follow()
		if l.ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		l.ready = false
		l.mu.Unlock()
		l.warnings.Tell("stream", "NATS JetStream does not answer; trying again", "error", err)
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(againAfter):
		}
	}
}

// follow applies what is stored, until something fails.
func (l *Log) follow() error {
	stream, err := l.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(l.ctx, openTimeout)
	defer cancel()
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       l.applied + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: forgetAfter,
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(pullSize),
		jetstream.PullExpiry(pullTime), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return err
	}
	defer messages.Stop()
	defer context.AfterFunc(l.ctx, messages.Stop)()
	if consumer.CachedInfo().NumPending == 0 {
		if err := l.caughtUp(); err != nil {
			return err
		}
	}
	for {
		m, err := messages.Next()
		if err != nil {
			return err
		}
		at, err := m.Metadata()
		switch {
		case err != nil:
			return err
		case at.Sequence.Stream <= l.applied:
			continue
		case at.Sequence.Stream > l.applied+1:
			return errGap
		}
		l.applied = at.Sequence.Stream
		l.apply(m.Data())
		if at.NumPending == 0 {
			if err := l.caughtUp(); err != nil {
				return err
			}
		}
		l.save(stream)
	}
}

// open finds or makes the stream, and brings the state to a place from which it can be followed.
func (l *Log) open() (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(l.ctx, openTimeout)
	defer cancel()
	stream, err := l.js.Stream(ctx, l.cfg.Prefix)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = l.create(ctx)
	}
	if err != nil {
		return nil, err
	}
	info := stream.CachedInfo()
	lost := !l.created.IsZero() &&
		(!info.Created.Equal(l.created) || info.State.LastSeq < l.applied)
	if lost {
		l.cfg.Log.Warn("the stream of the cluster is lost; nodes claim what they have again")
		if err := l.startOver(); err != nil {
			return nil, err
		}
	}
	l.created = info.Created
	if l.applied+1 < info.State.FirstSeq {
		return stream, l.load(ctx)
	}
	return stream, nil
}

// create makes the stream, on three servers where there are as many.
func (l *Log) create(ctx context.Context) (stream jetstream.Stream, err error) {
	for _, n := range []int{replicas, 1} {
		stream, err = l.js.CreateStream(ctx, jetstream.StreamConfig{
			Name:       l.cfg.Prefix,
			Subjects:   []string{l.subject()},
			Storage:    jetstream.FileStorage,
			MaxMsgSize: maxEntry,
			Replicas:   n,
		})
		var refused *jetstream.APIError
		if !errors.As(err, &refused) || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			break
		}
	}
	return stream, err
}

// startOver forgets the state. Who waits for a result does not learn it.
func (l *Log) startOver() error {
	l.mu.Lock()
	l.lease.End()
	l.renewals = map[string]renewal{}
	clear(l.seen)
	clear(l.asked)
	for id, result := range l.waiting {
		delete(l.waiting, id)
		close(result)
	}
	l.mu.Unlock()
	l.applied, l.saved = 0, 0
	return l.cfg.Machine.Restore(nil)
}

// caughtUp is called when everything that was stored has been applied. The first node founds the
// cluster. Its numbers begin above those of an earlier stream, which nodes may still have: so many
// microseconds had not passed when that one was made.
func (l *Log) caughtUp() error {
	l.mu.Lock()
	founded := l.cfg.Machine.Cluster() != 0
	l.ready = founded
	l.mu.Unlock()
	if founded {
		return nil
	}
	first := directory.FoundAfter(rand.Uint64()|1, uint64(l.created.UnixMicro()))
	e := entry{kind: kindCommand, process: l.cfg.Process, id: l.ids.Add(1), payload: first}
	return l.store(l.ctx, &e) // applied like any other, after which this is called again
}

// apply carries out an entry.
func (l *Log) apply(b []byte) {
	e, err := parseEntry(b)
	if err != nil {
		l.cfg.Log.Warn("an entry of the stream is not understood", "error", err)
		return
	}
	switch e.kind {
	case kindCommand:
		answer := l.cfg.Machine.Apply(e.payload)
		if e.process == l.cfg.Process {
			l.answer(e.id, answer)
		}
	case kindRenew:
		var r renew
		if json.Unmarshal(e.payload, &r) == nil {
			l.renewed(&e, &r)
		}
	case kindBury:
		var d bury
		if json.Unmarshal(e.payload, &d) == nil && l.stillSilent(&d) {
			l.cfg.Machine.Apply(directory.Dead(d.Node, d.Incarnation))
			l.forget(d.Node)
		}
	}
}

func (l *Log) answer(id uint64, answer []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if result := l.waiting[id]; result != nil {
		delete(l.waiting, id)
		result <- answer
	}
}

// renewed counts a renewal of a node that is not dead.
func (l *Log) renewed(e *entry, r *renew) {
	n, member := l.cfg.Machine.Member(r.Node)
	l.mu.Lock()
	defer l.mu.Unlock()
	own, mine := l.asked[e.id]
	if e.process != l.cfg.Process {
		mine = false
	} else {
		delete(l.asked, e.id)
	}
	if member.Process != e.process || n.State == engine.Dead {
		return
	}
	was := l.renewals[r.Node]
	if was.Process != e.process {
		was = renewal{Process: e.process}
	}
	was.Count++
	if l.ready { // the entry is new
		l.warnings.Clock(r.Node, r.About.Time, "other", r.Node)
	}
	was.About = r.About
	l.renewals[r.Node] = was
	l.seen[r.Node] = sighting{e.process, lease.Now()}
	if mine {
		l.lease.Extend(own.at + leaseTime)
	}
}

// stillSilent tells whether a node has not renewed its lease since another one wanted it buried.
func (l *Log) stillSilent(d *bury) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.renewals[d.Node]
	if r.Process != d.Process {
		r.Count = 0
	}
	_, member := l.cfg.Machine.Member(d.Node)
	return member.Process == d.Process && r.Count == d.Renewals
}

// forget has the renewals of a node count from 0: when it joins again, its silence begins then.
func (l *Log) forget(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.renewals, node)
	delete(l.seen, node)
}

// load restores the state from the last snapshot.
func (l *Log) load(ctx context.Context) error {
	store, err := l.js.ObjectStore(ctx, l.bucket())
	if err != nil {
		return fmt.Errorf("%w: %w", errGap, err)
	}
	at, name, err := l.lastSave(ctx, store)
	if err != nil || at <= l.applied {
		return errors.Join(errGap, err)
	}
	b, err := store.GetBytes(ctx, name)
	if err != nil {
		return err
	}
	s, err := parseSave(b)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.renewals = map[string]renewal{}
	maps.Copy(l.renewals, s.Renewals)
	clear(l.seen)
	l.mu.Unlock()
	if err := l.cfg.Machine.Restore(s.Directory); err != nil {
		return err
	}
	l.applied, l.saved = at, at
	return nil
}
