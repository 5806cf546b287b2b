package room

// Move tells the room that a member's session is on another node now; it is the same session, and
// the member stays as it is. All nodes are told Moved, no client is.
type Move struct {
	User  string
	To    Address
	Epoch uint64
}

func (Move) command() {}

// move is called with r.mu held.
func (r *room) move(c Move, g *Registry) error {
	i := r.index(c.User)
	if i < 0 || r.members[i].Address.Session != c.To.Session {
		return ErrNotIn
	}
	m := &r.members[i]
	from := m.Address
	if m.Epoch > c.Epoch {
		return ErrStale
	}
	m.Address, m.Epoch = c.To, c.Epoch
	if t, runs := r.kickTimers[from]; runs && from != c.To {
		t.Stop()
		delete(r.kickTimers, from)
		r.startKickTimer(*m, t.at, g)
	}
	r.send(g.sink, append(r.others(""), from), Event{Kind: Moved, Key: r.key, Member: *m})
	return nil
}
