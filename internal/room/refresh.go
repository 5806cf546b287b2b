package room

// Refresh brings the members on a node up to date after events for them were lost on the way.
// Members are those whom the node takes to be in the room: whoever is not is told Removed, unless
// the session is in the room from another node by now. The others are told Refreshed, with what was
// said after Seen.
type Refresh struct {
	Node    string
	Members []Actor
	Seen    uint64
}

func (Refresh) command() {}

// refresh is called with r.mu held.
func (r *room) refresh(c Refresh, sink Sink) {
	for _, a := range c.Members {
		i := r.index(a.User)
		if i < 0 || r.members[i].Address.Session != a.Address.Session {
			gone := Member{ID: a.User, Address: a.Address}
			e := Event{Kind: Removed, Key: r.key, Seq: r.seq, Member: gone}
			sink.Deliver([]Address{a.Address}, e)
		}
	}
	var to []Address
	for _, m := range r.members {
		if m.Address.Node == c.Node {
			to = append(to, m.Address)
		}
	}
	e := Event{Kind: Refreshed, Key: r.key, Seq: r.seq, State: r.state()}
	for _, said := range r.backlog {
		if said.Seq > c.Seen {
			e.Missed = append(e.Missed, said)
		}
	}
	r.send(sink, to, e)
}
