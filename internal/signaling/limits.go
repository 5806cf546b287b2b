package signaling

// Limits bound what users may do in a minute, which begins with the first that they do. The zero value of a number means its default,
// a negative one no limit.
type Limits struct {
	// Takeovers are those of one user id without its session's own secret, default 3: two pages could throw each other out for ever.
	Takeovers int
}

func (l *Limits) defaults() {
	for _, of := range []struct {
		n     *int
		value int
	}{
		{&l.Takeovers, 3},
	} {
		if *of.n == 0 {
			*of.n = of.value
		}
	}
}

// tallies count for one node what the limits bound.
type tallies struct {
	takeovers *tally[userKey]
}

func newTallies(l Limits) tallies {
	return tallies{takeovers: newTally[userKey](l.Takeovers)}
}

// LimitsHit counts refusals by the names that docs/operating.md lists.
func (h *Hub) LimitsHit() map[string]uint64 {
	return map[string]uint64{
		"messages":   h.counters.flooded.Load(),
		"login_time": h.counters.late.Load(),
		"outbox":     h.counters.overflowed.Load(),
		"takeovers":  h.takeovers.hits.Load(),
	}
}
