package streamlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

const (
	// saveEvery is how many entries there are between two snapshots; trailing, how many before a
	// snapshot stay, for nodes that are a little late.
	saveEvery   = 8192
	lookEvery   = 256
	trailing    = 2048
	saveTimeout = 30 * time.Second
)

func (l *Log) bucket() string { return l.cfg.Prefix + "-snapshots" }

// objectName names the snapshot at an entry of a stream that was made at a time.
func objectName(created time.Time, at uint64) string {
	return fmt.Sprintf("%d-%d", created.UnixNano(), at)
}

// parseObjectName returns the entry. Ok is false for a snapshot of another stream.
func parseObjectName(created time.Time, name string) (at uint64, ok bool) {
	text, ok := strings.CutPrefix(name, strconv.FormatInt(created.UnixNano(), 10)+"-")
	if !ok {
		return 0, false
	}
	at, err := strconv.ParseUint(text, 10, 64)
	return at, err == nil
}

// save saves the state when it is due and this node is the one to do it: the first by name.
func (l *Log) save(stream jetstream.Stream) {
	if l.applied-l.saved < saveEvery || l.applied%lookEvery != 0 || l.Quorum() != nil ||
		!l.isFirst() {
		return
	}
	select {
	case l.saving <- struct{}{}:
	default:
		return // the last one is still being saved
	}
	l.saved = l.applied
	b, err := l.state()
	at, created := l.applied, l.created
	l.wg.Go(func() {
		defer func() { <-l.saving }()
		if err == nil {
			err = l.put(stream, created, at, b)
		}
		if err != nil && l.ctx.Err() == nil {
			l.cfg.Log.Warn("state of the cluster not saved", "error", err)
		}
	})
}

func (l *Log) isFirst() bool {
	for _, n := range l.cfg.Machine.Nodes() { // by name
		if n.State != engine.Dead {
			return n.Name == l.cfg.Node
		}
	}
	return false
}

// state encodes what the entries so far have made.
func (l *Log) state() ([]byte, error) {
	table, err := l.cfg.Machine.Snapshot()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := save{Renewals: maps.Clone(l.renewals), Directory: table}
	return s.encode()
}

// put stores a snapshot, and removes what it replaces.
func (l *Log) put(stream jetstream.Stream, created time.Time, at uint64, b []byte) error {
	ctx, cancel := context.WithTimeout(l.ctx, saveTimeout)
	defer cancel()
	store, err := l.js.ObjectStore(ctx, l.bucket())
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		store, err = l.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
			Bucket:   l.bucket(),
			Replicas: stream.CachedInfo().Config.Replicas,
		})
	}
	if err != nil {
		return err
	}
	if _, err := store.PutBytes(ctx, objectName(created, at), b); err != nil {
		return err
	}
	all, err := store.List(ctx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if other, ok := parseObjectName(created, o.Name); !ok || other < at {
			if err := store.Delete(ctx, o.Name); err != nil {
				return err
			}
		}
	}
	if at <= trailing {
		return nil
	}
	return stream.Purge(ctx, jetstream.WithPurgeSequence(at-trailing))
}

// lastSave finds the latest snapshot of the stream.
func (l *Log) lastSave(
	ctx context.Context, store jetstream.ObjectStore,
) (at uint64, name string, err error) {
	all, err := store.List(ctx)
	if err != nil {
		return 0, "", err
	}
	for _, o := range all {
		if n, ok := parseObjectName(l.created, o.Name); ok && n > at {
			at, name = n, o.Name
		}
	}
	if name == "" {
		return 0, "", errGap
	}
	return at, name, nil
}
