package signaling

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/room"
)

// What is kept: one record for each session and each room. After a restart every session is
// disconnected, its resume window counted from the start, and every room is as it was; who does not
// come back in time leaves, as after any lost connection.

const (
	sessionPrefix = "session/"
	roomPrefix    = "room/"
)

// recordVersion is the format of a sessionRecord. Format 0 called the location a seat.
const recordVersion = 1

type sessionRecord struct {
	Version      int
	Location     Location
	Tenant, User string
	Name, Device string
	Features     []string
	Identity     string
	Origin       origin
	Grant        license.Grant
}

// UnmarshalJSON also reads format 0.
func (r *sessionRecord) UnmarshalJSON(b []byte) error {
	type record sessionRecord // without this method
	var v struct {
		record
		Seat Location // format 0
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*r = sessionRecord(v.record)
	switch r.Version {
	case recordVersion:
		return nil
	case 0:
		r.Version, r.Location = recordVersion, v.Seat
		return nil
	}
	return fmt.Errorf("session record: unknown format %d", r.Version)
}

// sessionChanged has the record of a session written, here and on the successor.
func (h *Hub) sessionChanged(s *session) {
	h.replicateSession(s)
	if h.cfg.Keeper == nil {
		return
	}
	h.cfg.Keeper.Keep(sessionPrefix+s.id, func() []byte {
		if h.session(s.id) != s {
			return nil
		}
		return encode(s.record())
	})
}

// record does not wait for op, under which whole commands run.
func (s *session) record() sessionRecord {
	name, _ := s.name.Load().(string)
	return sessionRecord{
		Version:  recordVersion,
		Location: s.location,
		Tenant:   s.tenant,
		User:     s.user,
		Name:     name,
		Device:   s.device,
		Features: s.features,
		Identity: s.identity,
		Origin:   s.origin,
		Grant:    s.grant,
	}
}

// roomChanged is sessionChanged for a room.
func (h *Hub) roomChanged(key room.Key) {
	h.replicateRoom(key)
	if h.cfg.Keeper == nil {
		return
	}
	h.cfg.Keeper.Keep(recordOf(key), func() []byte {
		if snap, ok := h.rooms.Snapshot(key); ok {
			return encode(snap)
		}
		return nil
	})
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // cannot happen: strings, numbers and times
		return nil
	}
	return b
}

// restore brings back what was kept. A record that cannot be used is forgotten, with a word in the
// log: one bad record must not keep a server from starting.
func (h *Hub) restore() error {
	if h.cfg.Keeper == nil {
		return nil
	}
	all, err := h.cfg.Keeper.Load()
	if err != nil {
		return err
	}
	sessions, rooms := 0, 0
	forget := func(key string, err error) {
		kind, _, _ := strings.Cut(key, "/")
		h.cfg.Log.Warn("record not restored", "node", h.cfg.Node, "kind", kind, "error", err)
		h.cfg.Keeper.Keep(key, func() []byte { return nil })
	}
	kept := map[string]sessionRecord{}
	for key, value := range all {
		id, ok := strings.CutPrefix(key, sessionPrefix)
		if !ok {
			continue
		}
		var rec sessionRecord
		if err := json.Unmarshal(value, &rec); err != nil {
			forget(key, err)
			continue
		}
		kept[id] = rec
	}
	// Of two sessions of a user, which a crash may leave behind, the newer one has the id.
	newest := func(a, b string) int {
		return cmp.Compare(kept[b].Location.Epoch, kept[a].Location.Epoch)
	}
	for _, id := range slices.SortedFunc(maps.Keys(kept), newest) {
		if err := h.restoreSession(id, kept[id]); err != nil {
			forget(sessionPrefix+id, err)
			continue
		}
		sessions++
	}
	for key, value := range all {
		if !strings.HasPrefix(key, roomPrefix) {
			continue
		}
		var snap room.Snapshot
		if err := json.Unmarshal(value, &snap); err != nil {
			forget(key, err)
			continue
		}
		if err := h.restoreRoom(snap); err != nil {
			forget(key, err)
			continue
		}
		rooms++
	}
	h.cfg.Log.Info("restored", "node", h.cfg.Node, "sessions", sessions, "rooms", rooms)
	return nil
}

func (h *Hub) restoreSession(id string, rec sessionRecord) error {
	if rec.Location.Node != h.cfg.Node || rec.Location.Session != id || rec.User == "" {
		return fmt.Errorf("record of another node")
	}
	if err := h.licenseError(rec.Grant, time.Now()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := h.cfg.Directory.ClaimUser(
		ctx, rec.Tenant, rec.User, rec.Location, rec.Grant.MaxUser,
	)
	if err != nil {
		return err
	}
	h.addDetached(h.sessionOf(rec))
	return nil
}

func (h *Hub) restoreRoom(snap room.Snapshot) error {
	key := snap.State.Key
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	unlock, err := h.ownership.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	owner, err := h.cfg.Directory.ClaimRoom(ctx, key.Tenant, key.Room, Owner{Node: h.cfg.Node})
	if err != nil {
		return err
	}
	if owner.Node != h.cfg.Node {
		return errors.New("another node holds the room by now")
	}
	h.owners.hold(key, owner.Term)
	here := func(m room.Member) bool {
		s := h.session(m.Address.Session)
		if s == nil || s.address() != m.Address {
			return false
		}
		// In both as kept, when the crash came as it went from one to the other.
		_, elsewhere := s.roomKey()
		return !elsewhere
	}
	if err := h.rooms.Restore(snap, here); err != nil {
		return err
	}
	back, _ := h.rooms.Snapshot(key)
	for _, m := range back.State.Members {
		if s := h.session(m.Address.Session); s != nil {
			ro := h.enterRoster(&back.State, h.own(key))
			s.mu.Lock()
			s.roster = ro
			s.mu.Unlock()
		}
	}
	return nil
}
