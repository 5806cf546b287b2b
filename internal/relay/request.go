package relay

import (
	"encoding/binary"
	"time"

	"github.com/pion/stun/v4"
)

// control answers a STUN message from a client. a is the client's allocation, nil: it has none. A message that breaks the parser is
// counted and dropped.
func (w *worker) control(p *path, a *allocation, raw []byte) {
	defer func() {
		if recover() != nil {
			w.server.stats.refuse(panicked)
		}
	}()
	if !isSTUN(raw) {
		w.server.stats.refuse(malformed)
		return
	}
	m := &w.request
	m.Raw = raw
	if m.Decode() != nil || (m.Contains(stun.AttrFingerprint) && stun.Fingerprint.Check(m) != nil) {
		w.server.stats.refuse(malformed)
		return
	}
	// Answers and indications are never answered, or two servers could be made to talk to each other.
	switch m.Type.Class {
	case stun.ClassIndication:
		if m.Type.Method == stun.MethodSend && a != nil {
			w.send(a, m)
		}
	case stun.ClassRequest:
		switch m.Type.Method {
		case stun.MethodBinding:
			w.binding(p, m)
		case stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind:
			if p.via == nil || !p.via.binding {
				w.authorized(p, a, m)
			}
		}
	}
}

// stranger tells whether a client that has signed nothing gets an answer; a is its allocation, if it has one. Over a stream it has proved
// its address.
func (w *worker) stranger(p *path, a *allocation) bool {
	if p.stream != nil || w.server.limiter.allow(sourceOf(p.remote), a != nil, w.now) {
		return true
	}
	w.server.stats.refuse(unanswered)
	return false
}

// binding tells a client its address (RFC 8489 section 3).
func (w *worker) binding(p *path, m *stun.Message) {
	if !w.stranger(p, nil) {
		return
	}
	if list := w.unknown(m); list != nil {
		w.refuse(p, m, stun.CodeUnknownAttribute, nil, list)
		return
	}
	a := w.answer(m, stun.ClassSuccessResponse)
	addAddress(a, stun.AttrXORMappedAddress, p.remote)
	w.answerTo(p, finish(m, a, nil))
}

// authorized serves the requests that need credentials.
func (w *worker) authorized(p *path, a *allocation, m *stun.Message) {
	var known *credential
	if a != nil {
		known = &a.credential
	}
	c, why, code := w.authenticate(m, p, known)
	if code != 0 {
		if why != unsigned {
			w.server.stats.refuse(why)
		}
		if w.stranger(p, a) {
			w.refuse(p, m, code, nil, nil)
		}
		return
	}
	if list := w.unknown(m); list != nil {
		w.refuse(p, m, stun.CodeUnknownAttribute, &c, list)
		return
	}
	switch {
	case m.Type.Method == stun.MethodAllocate:
		if a != nil && (a.tid != m.TransactionID || a.session != c.session) {
			w.refuse(p, m, stun.CodeAllocMismatch, &c, nil)
			return
		}
		w.allocate(p, a, m, &c)
	case a == nil:
		w.refuse(p, m, stun.CodeAllocMismatch, &c, nil)
	// Fresh credentials of the same session are as good as those that it was made with.
	case a.session != c.session:
		w.server.stats.refuse(badCredentials)
		w.refuse(p, m, stun.CodeWrongCredentials, &c, nil)
	case m.Type.Method == stun.MethodRefresh:
		w.refresh(p, a, m, &c)
	case m.Type.Method == stun.MethodCreatePermission:
		w.createPermission(p, a, m, &c)
	default:
		w.channelBind(p, a, m, &c)
	}
}

// refuse answers with an error. Without a credential it is one of a stranger: 401 and 438 bring what is needed to become more.
func (w *worker) refuse(p *path, m *stun.Message, code stun.ErrorCode, c *credential, unknown []byte) {
	a := w.answer(m, stun.ClassErrorResponse)
	addCode(a, code)
	switch code {
	case stun.CodeUnauthorized, stun.CodeStaleNonce:
		a.Add(stun.AttrRealm, []byte(w.server.cfg.Realm))
		a.Add(stun.AttrNonce, w.nonces.issue(w.now, p.remote))
		a.Add(stun.AttrPasswordAlgorithms, passwordAlgorithms)
	case stun.CodeUnknownAttribute:
		a.Add(stun.AttrUnknownAttributes, unknown)
	}
	w.answerTo(p, finish(m, a, c))
}

func (w *worker) succeed(p *path, m *stun.Message, c *credential, add func(a *stun.Message)) {
	a := w.answer(m, stun.ClassSuccessResponse)
	if add != nil {
		add(a)
	}
	w.answerTo(p, finish(m, a, c))
}

// demand is what an Allocate request asks for.
type demand struct {
	want    [families]bool // both: ADDITIONAL-ADDRESS-FAMILY, what there is of them
	even    bool
	reserve bool
	token   []byte
	life    time.Duration
}

// demandOf reads an Allocate request (RFC 8656 section 7.2).
func (s *Server) demandOf(m *stun.Message) (d demand, why reason, code stun.ErrorCode) {
	transport, err := m.Get(stun.AttrRequestedTransport)
	if err != nil || len(transport) != 4 {
		return d, malformed, stun.CodeBadRequest
	}
	const udp = 17
	if transport[0] != udp {
		return d, badTransport, stun.CodeUnsupportedTransProto
	}
	single, err1 := m.Get(stun.AttrRequestedAddressFamily)
	additional, err2 := m.Get(attrAdditionalAddressFamily)
	even, err3 := m.Get(stun.AttrEvenPort)
	token, err4 := m.Get(stun.AttrReservationToken)
	oneFamily, twoFamilies, hasEven, hasToken := err1 == nil, err2 == nil, err3 == nil, err4 == nil
	d.even, d.token = hasEven, token
	d.reserve = hasEven && len(even) == 1 && even[0]&0x80 != 0
	switch {
	case hasEven && len(even) != 1, hasToken && len(token) != tokenLength, oneFamily && len(single) != 4, twoFamilies && len(additional) != 4:
		return d, malformed, stun.CodeBadRequest
	case hasToken && (hasEven || oneFamily || twoFamilies), oneFamily && twoFamilies, d.reserve && twoFamilies, twoFamilies && additional[0] != 2:
		return d, malformed, stun.CodeBadRequest
	case oneFamily && (single[0] != 1 && single[0] != 2 || s.relayFor(family(single[0]-1)) == nil):
		return d, badFamily, stun.CodeAddrFamilyNotSupported
	case oneFamily:
		d.want[single[0]-1] = true
	case twoFamilies:
		d.want[v4], d.want[v6] = true, true
	default:
		// Without the attribute the relay is IPv4, whatever the client came by: then any two relayed clients can reach each other.
		// A relay that has no IPv4 gives what it has.
		d.want[v4] = s.relayFor(v4) != nil
		d.want[v6] = !d.want[v4]
	}
	d.life = allocationLife
	if asked, ok := lifetimeOf(m); ok {
		d.life = max(allocationLife, min(asked, maxAllocationLife))
	}
	return d, fine, 0
}

func lifetimeOf(m *stun.Message) (time.Duration, bool) {
	v, err := m.Get(stun.AttrLifetime)
	if err != nil || len(v) != 4 {
		return 0, false
	}
	return time.Duration(binary.BigEndian.Uint32(v)) * time.Second, true
}

// allocate serves an Allocate request; a is the allocation that the same request has made before.
func (w *worker) allocate(p *path, a *allocation, m *stun.Message, c *credential) {
	s := w.server
	d, why, code := s.demandOf(m)
	if code == 0 && a == nil {
		a, why, code = w.open(p, m, c, d)
	}
	if code != 0 {
		s.stats.refuse(why)
		w.refuse(p, m, code, c, nil)
		return
	}
	w.succeed(p, m, c, func(r *stun.Message) {
		for f, relay := range a.relays {
			if relay != nil {
				addAddress(r, stun.AttrXORRelayedAddress, relay.public)
			} else if code := a.absent[f]; code != 0 {
				r.Add(attrAddressErrorCode, []byte{byte(f + 1), 0, byte(code / 100), byte(code % 100)})
			}
		}
		addLifetime(r, a.expires-w.now)
		if a.reserved != nil {
			r.Add(stun.AttrReservationToken, a.reserved)
		}
		addAddress(r, stun.AttrXORMappedAddress, p.remote)
	})
}

// refresh renews an allocation or ends it (RFC 8656 section 8.2).
func (w *worker) refresh(p *path, a *allocation, m *stun.Message, c *credential) {
	life := allocationLife
	if asked, ok := lifetimeOf(m); ok && asked == 0 {
		life = 0
	} else if ok {
		life = max(allocationLife, min(asked, maxAllocationLife))
	}
	only := families
	if v, err := m.Get(stun.AttrRequestedAddressFamily); err == nil {
		if len(v) != 4 || v[0] < 1 || v[0] > 2 || a.relays[v[0]-1] == nil {
			w.server.stats.refuse(badFamily)
			w.refuse(p, m, codeFamilyMismatch, c, nil)
			return
		}
		only = family(v[0] - 1)
	}
	a.credential = *c
	switch {
	case life > 0:
		a.expires = w.server.deadline(w.now, a.made, life)
		life = max(0, a.expires-w.now)
	case only < families && a.relays[1-only] != nil:
		// One half of a dual allocation.
		w.closeRelay(a, only)
	default:
		// Before the answer: whoever has it finds everything freed.
		w.end(a, endRefresh)
	}
	w.succeed(p, m, c, func(r *stun.Message) { addLifetime(r, life) })
}

// createPermission opens peers, all or none (RFC 8656 section 10.2).
func (w *worker) createPermission(p *path, a *allocation, m *stun.Message, c *credential) {
	var ips [][16]byte
	why, code := malformed, stun.CodeBadRequest
	for _, attr := range m.Attributes {
		if attr.Type != stun.AttrXORPeerAddress {
			continue
		}
		peer, f, ok := readAddress(attr.Value, m.Raw[4:stunHeader])
		if why, code = w.judge(a, peer, f, ok); code != 0 {
			break
		}
		ips = append(ips, peer.ip)
	}
	if code == 0 && !a.permit(w.now, ips...) {
		why, code = manyPermissions, stun.CodeInsufficientCapacity
	}
	if code != 0 {
		w.server.stats.refuse(why)
		w.refuse(p, m, code, c, nil)
		return
	}
	w.succeed(p, m, c, nil)
}

// channelBind makes or renews a channel (RFC 8656 section 12.2).
func (w *worker) channelBind(p *path, a *allocation, m *stun.Message, c *credential) {
	peer, f, ok := peerOf(m)
	number, err := m.Get(stun.AttrChannelNumber)
	why, code := badChannel, stun.CodeBadRequest
	// Nothing can be sent to port 0.
	if err == nil && len(number) == 4 && ok && peer.port != 0 {
		n := binary.BigEndian.Uint16(number)
		switch {
		case n < minChannel || n > maxChannel:
		default:
			if why, code = w.judge(a, peer, f, ok); code == 0 {
				switch why = a.bind(w.now, n, peer); why {
				case badChannel:
					code = stun.CodeBadRequest
				case manyPermissions:
					code = stun.CodeInsufficientCapacity
				}
			}
		}
	}
	if code != 0 {
		w.server.stats.refuse(why)
		w.refuse(p, m, code, c, nil)
		return
	}
	w.succeed(p, m, c, nil)
}

// judge decides about a peer that a client names: f is the family as it is written, before an IPv4 address is taken out of IPv6.
func (w *worker) judge(a *allocation, peer endpoint, f family, ok bool) (reason, stun.ErrorCode) {
	switch {
	case !ok:
		return malformed, stun.CodeBadRequest
	case !w.server.place().policy.allowed(peer.addr()):
		return deniedPeer, stun.CodeForbidden
	// An IPv4 address in the dress of IPv6 is refused even where it is allowed: no IPv6 relay reaches it.
	case f != peer.family() || a.relays[f] == nil:
		return badFamily, codeFamilyMismatch
	}
	return fine, 0
}

// send serves a Send indication (RFC 8656 section 11.2).
func (w *worker) send(a *allocation, m *stun.Message) {
	data, err := m.Get(stun.AttrData)
	peer, f, ok := peerOf(m)
	if err != nil || !ok || f != peer.family() || peer.port == 0 || w.unknown(m) != nil {
		a.drop(malformed)
		return
	}
	if a.peers.Load().permission(peer.ip, w.now) == nil || a.relays[f] == nil {
		a.drop(noPermission)
		return
	}
	if r := w.server.route(peer); r.kind == wire {
		if w.admit(a, &a.up, len(data)) {
			w.driver.toPeer(a, a.relays[f], peer, data, m.Contains(stun.AttrDontFragment))
		}
	} else if far := w.far(a, r, peer.port); far != nil && w.admit(a, &a.up, len(data)) {
		w.toAllocation(far, a.relays[f].public, packet{payload: data}, a)
	}
}
