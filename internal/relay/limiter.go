package relay

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/limit"
)

// Answers to clients without an allocation. What comes from an address may be forged, so that the
// answers go to somebody who did not ask: few for an address, and not many for its network, though
// anybody can use those up. Addresses that are known do not share them: a registered session has
// come from there over a connection, or a nonce has, which only reached that address.
var (
	unverifiedRate = limit.NewRate(100, 200) // of an IPv4 address or IPv6 /64
	// Of the IPv4 /24 or IPv6 /48 around it, for its strangers together.
	prefixRate   = limit.NewRate(1000, 2000)
	verifiedRate = limit.NewRate(500, 1000) // of a known address: an office may sit behind it
)

// limiterSlots is a power of two.
const limiterSlots = 1 << 14

// limiter bounds what is sent to sources that have proved nothing. It has a fixed size but for
// addresses with registered sessions, so that forged sources cost nothing; those that meet in one
// slot share its budget, and which ones meet cannot be foreseen. Being known is not shared: whoever
// has many addresses, or many sessions, would make every forged source a known one.
type limiter struct {
	seed       maphash.Seed
	unverified [limiterSlots]limit.GCRA
	byPrefix   [limiterSlots]limit.GCRA
	verified   [limiterSlots]limit.GCRA
	proofs     [limiterSlots]atomic.Uint64 // the last source that has proved its address, see proof

	mu       sync.RWMutex
	sessions map[source]int // guarded by mu: how many registered sessions there are, without zeros
}

func (l *limiter) hash(s source) uint64 {
	ip := s.addr.Addr().As16()
	b := append(make([]byte, 0, 20), ip[:]...)
	return maphash.Bytes(l.seed, binary.BigEndian.AppendUint32(b, s.scope))
}

// proof is the half of a source's hash that says nothing of its slot, and until when it counts, in
// seconds.
func proof(hash uint64, until time.Duration) uint64 {
	return hash>>32<<32 | uint64(uint32(until/time.Second))
}

// allow tells whether a source gets one more answer; known: it is known in another way.
func (l *limiter) allow(s source, known bool, now time.Duration) bool {
	hash := l.hash(s)
	at := hash % limiterSlots
	proven := l.proofs[at].Load()
	if known || (proven>>32 == hash>>32 && proven > proof(hash, now)) || l.hasSession(s) {
		return l.verified[at].Take(now, verifiedRate, 1)
	}
	return l.unverified[at].Take(now, unverifiedRate, 1) &&
		l.byPrefix[l.hash(s.prefix())%limiterSlots].Take(now, prefixRate, 1)
}

// hasSession tells whether a session is registered from a source.
func (l *limiter) hasSession(s source) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.sessions[s] > 0
}

// prove notes that a source has shown a nonce that was sent to it.
func (l *limiter) prove(s source, now time.Duration) {
	hash := l.hash(s)
	l.proofs[hash%limiterSlots].Store(proof(hash, now+nonceLife))
}

// Expect notes that n sessions more, or less, are registered from an address: its clients get their
// answers however many others of its network ask. It may be called at any time.
func (s *Server) Expect(addr netip.Addr, n int) {
	of, l := sourceOf(endpointOf(netip.AddrPortFrom(addr, 0))), &s.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sessions == nil {
		l.sessions = map[source]int{}
	}
	if l.sessions[of] += n; l.sessions[of] == 0 {
		delete(l.sessions, of)
	}
}
