package relay

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// rate is a number of answers a second, and how many at once after a pause.
type rate struct{ perSecond, burst int }

// Answers to clients without an allocation. What comes from an address may be forged, so that the answers go to somebody who did not ask:
// few for an address, and not many for its network, though anybody can use those up. Addresses that are known do not share them: a registered
// session has come from there over a connection, or a nonce has, which only reached that address.
var (
	strangerRate = rate{100, 200}   // of an IPv4 address or IPv6 /64
	aroundRate   = rate{1000, 2000} // of the IPv4 /24 or IPv6 /48 around it, for its strangers together
	knownRate    = rate{500, 1000}  // of a known address: an office may sit behind it
)

func (r rate) take(b *bucket, now time.Duration) bool {
	cost := time.Second / time.Duration(r.perSecond)
	return b.take(now, cost, time.Duration(r.burst)*cost)
}

// limiterSlots is a power of two.
const limiterSlots = 1 << 14

// limiter bounds what is sent to sources that have proved nothing. It has a fixed size, so that forged sources cost nothing; those that
// meet in one slot share it, and which ones meet cannot be foreseen.
type limiter struct {
	seed      maphash.Seed
	strangers [limiterSlots]bucket
	around    [limiterSlots]bucket
	known     [limiterSlots]bucket
	proven    [limiterSlots]atomic.Int64 // until when an address counts as proved
	sessions  [limiterSlots]atomic.Int32 // how many registered sessions there are
}

func (l *limiter) slot(s source) int {
	b := binary.BigEndian.AppendUint32(append(make([]byte, 0, 20), s.ip[:]...), s.scope)
	return int(maphash.Bytes(l.seed, b) % limiterSlots)
}

// allow tells whether a source gets one more answer; known: it is known in another way.
func (l *limiter) allow(s source, known bool, now time.Duration) bool {
	at := l.slot(s)
	if known || l.sessions[at].Load() > 0 || l.proven[at].Load() > int64(now) {
		return knownRate.take(&l.known[at], now)
	}
	return strangerRate.take(&l.strangers[at], now) && aroundRate.take(&l.around[l.slot(s.prefix())], now)
}

// prove notes that a source has shown a nonce that was sent to it.
func (l *limiter) prove(s source, now time.Duration) {
	l.proven[l.slot(s)].Store(int64(now + nonceLife))
}

// Expect notes that n sessions more, or less, are registered from an address: its clients get their answers however many others of its
// network ask. It may be called at any time.
func (s *Server) Expect(addr netip.Addr, n int) {
	s.limiter.sessions[s.limiter.slot(sourceOf(endpointOf(netip.AddrPortFrom(addr, 0))))].Add(int32(n))
}
