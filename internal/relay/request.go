package relay

import (
	"encoding/binary"
	"time"

	"github.com/pion/stun/v4"
)

// handleSTUN answers a STUN message from a client. a is the client's allocation, nil: it has none.
// A message that breaks the parser is counted and dropped.
func (w *worker) handleSTUN(p *path, a *allocation, raw []byte) {
	if !isSTUN(raw) {
		w.server.stats.reject(reasonMalformed)
		return
	}
	m := &w.request
	m.Raw = raw
	if m.Decode() != nil || (m.Contains(stun.AttrFingerprint) && stun.Fingerprint.Check(m) != nil) {
		w.server.stats.reject(reasonMalformed)
		return
	}
	// Answers and indications are never answered, or two servers could be made to talk to each
	// other.
	switch m.Type.Class {
	case stun.ClassIndication:
		if m.Type.Method == stun.MethodSend && a != nil {
			w.send(a, m)
		}
	case stun.ClassRequest:
		switch m.Type.Method {
		case stun.MethodBinding:
			w.binding(p, m)
		case stun.MethodAllocate,
			stun.MethodRefresh,
			stun.MethodCreatePermission,
			stun.MethodChannelBind:
			if p.via == nil || !p.via.binding {
				w.handleAuthenticated(p, a, m)
			}
		}
	}
}

// mayAnswer tells whether a client that has signed nothing gets an answer; a is its allocation, if
// it has one. Over a stream it has proved its address.
func (w *worker) mayAnswer(p *path, a *allocation) bool {
	if p.stream != nil || w.server.limiter.allow(sourceOf(p.remote), a != nil, w.now) {
		return true
	}
	w.server.stats.reject(reasonUnanswered)
	return false
}

// binding tells a client its address (RFC 8489 section 3).
func (w *worker) binding(p *path, m *stun.Message) {
	if !w.mayAnswer(p, nil) {
		return
	}
	if list := w.unknownAttrs(m); list != nil {
		w.respondError(p, m, stun.CodeUnknownAttribute, nil, list)
		return
	}
	a := w.newResponse(m, stun.ClassSuccessResponse)
	addAddress(a, stun.AttrXORMappedAddress, p.remote)
	w.respond(p, finishResponse(m, a, nil))
}

// handleAuthenticated serves the requests that need credentials.
func (w *worker) handleAuthenticated(p *path, a *allocation, m *stun.Message) {
	var known *credential
	if a != nil {
		known = &a.credential
	}
	c, reason, code := w.authenticate(m, p, known)
	if code != 0 {
		if reason != reasonUnsigned {
			w.server.stats.reject(reason)
		}
		if w.mayAnswer(p, a) {
			w.respondError(p, m, code, nil, nil)
		}
		return
	}
	if list := w.unknownAttrs(m); list != nil {
		w.respondError(p, m, stun.CodeUnknownAttribute, &c, list)
		return
	}
	switch {
	case m.Type.Method == stun.MethodAllocate:
		if a != nil && (a.tid != m.TransactionID || a.session != c.session) {
			w.respondError(p, m, stun.CodeAllocMismatch, &c, nil)
			return
		}
		w.allocate(p, a, m, &c)
	case a == nil:
		w.respondError(p, m, stun.CodeAllocMismatch, &c, nil)
	// Fresh credentials of the same session are as good as those that it was made with.
	case a.session != c.session:
		w.server.stats.reject(reasonBadCredentials)
		w.respondError(p, m, stun.CodeWrongCredentials, &c, nil)
	case m.Type.Method == stun.MethodRefresh:
		w.refresh(p, a, m, &c)
	case m.Type.Method == stun.MethodCreatePermission:
		w.createPermission(p, a, m, &c)
	default:
		w.channelBind(p, a, m, &c)
	}
}

// respondError answers with an error. Without a credential it is one of a stranger: 401 and 438
// bring what is needed to become more.
func (w *worker) respondError(
	p *path,
	m *stun.Message,
	code stun.ErrorCode,
	c *credential,
	unknown []byte,
) {
	a := w.newResponse(m, stun.ClassErrorResponse)
	addCode(a, code)
	switch code {
	case stun.CodeUnauthorized, stun.CodeStaleNonce:
		a.Add(stun.AttrRealm, []byte(w.server.cfg.Realm))
		a.Add(stun.AttrNonce, w.nonces.issue(w.now, p.remote))
		a.Add(stun.AttrPasswordAlgorithms, passwordAlgorithms)
	case stun.CodeUnknownAttribute:
		a.Add(stun.AttrUnknownAttributes, unknown)
	}
	w.respond(p, finishResponse(m, a, c))
}

func (w *worker) respondSuccess(
	p *path,
	m *stun.Message,
	c *credential,
	add func(a *stun.Message),
) {
	a := w.newResponse(m, stun.ClassSuccessResponse)
	if add != nil {
		add(a)
	}
	w.respond(p, finishResponse(m, a, c))
}

// allocateRequest is what an Allocate request asks for.
type allocateRequest struct {
	want    [families]bool // both: ADDITIONAL-ADDRESS-FAMILY, what there is of them
	even    bool
	reserve bool
	token   []byte
	life    time.Duration
}

// parseAllocate reads an Allocate request (RFC 8656 section 7.2).
func (s *Server) parseAllocate(
	m *stun.Message,
) (d allocateRequest, reason reasonCode, code stun.ErrorCode) {
	transport, err := m.Get(stun.AttrRequestedTransport)
	if err != nil || len(transport) != 4 {
		return d, reasonMalformed, stun.CodeBadRequest
	}
	const udp = 17
	if transport[0] != udp {
		return d, reasonBadTransport, stun.CodeUnsupportedTransProto
	}
	single, err1 := m.Get(stun.AttrRequestedAddressFamily)
	additional, err2 := m.Get(attrAdditionalAddressFamily)
	even, err3 := m.Get(stun.AttrEvenPort)
	token, err4 := m.Get(stun.AttrReservationToken)
	oneFamily, twoFamilies, hasEven, hasToken := err1 == nil, err2 == nil, err3 == nil, err4 == nil
	d.even, d.token = hasEven, token
	d.reserve = hasEven && len(even) == 1 && even[0]&0x80 != 0
	switch {
	case hasEven && len(even) != 1,
		hasToken && len(token) != tokenLength,
		oneFamily && len(single) != 4,
		twoFamilies && len(additional) != 4:
		return d, reasonMalformed, stun.CodeBadRequest
	case hasToken && (hasEven || oneFamily || twoFamilies),
		oneFamily && twoFamilies,
		d.reserve && twoFamilies,
		twoFamilies && additional[0] != 2:
		return d, reasonMalformed, stun.CodeBadRequest
	case oneFamily && (single[0] != 1 && single[0] != 2 || s.relayFor(family(single[0]-1)) == nil):
		return d, reasonBadFamily, stun.CodeAddrFamilyNotSupported
	case oneFamily:
		d.want[single[0]-1] = true
	case twoFamilies:
		d.want[v4], d.want[v6] = true, true
	default:
		// Without the attribute the relay is IPv4, whatever the client came by: then any two
		// relayed clients can reach each other. A relay that has no IPv4 gives what it has.
		d.want[v4] = s.relayFor(v4) != nil
		d.want[v6] = !d.want[v4]
	}
	d.life = allocationLife
	if asked, ok := lifetimeOf(m); ok {
		d.life = max(allocationLife, min(asked, maxAllocationLife))
	}
	return d, reasonNone, 0
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
	d, reason, code := s.parseAllocate(m)
	if code == 0 && a == nil {
		a, reason, code = w.create(p, m, c, d)
	}
	if code != 0 {
		s.stats.reject(reason)
		w.respondError(p, m, code, c, nil)
		return
	}
	w.respondSuccess(p, m, c, func(r *stun.Message) {
		for f, relay := range a.relays {
			if relay != nil {
				addAddress(r, stun.AttrXORRelayedAddress, relay.public)
			} else if code := a.absent[f]; code != 0 {
				value := []byte{byte(f + 1), 0, byte(code / 100), byte(code % 100)}
				r.Add(attrAddressErrorCode, value)
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
			w.server.stats.reject(reasonBadFamily)
			w.respondError(p, m, codeFamilyMismatch, c, nil)
			return
		}
		only = family(v[0] - 1)
	}
	a.credential = *c
	switch {
	case life > 0:
		a.expires = w.server.deadline(w.now, a.created, life)
		life = max(0, a.expires-w.now)
	case only < families && a.relays[1-only] != nil:
		// One half of a dual allocation.
		w.closeRelay(a, only)
	default:
		// Before the answer: whoever has it finds everything freed.
		w.closeAllocation(a, closedByRefresh)
	}
	w.respondSuccess(p, m, c, func(r *stun.Message) { addLifetime(r, life) })
}

// createPermission opens peers, all or none (RFC 8656 section 10.2).
func (w *worker) createPermission(p *path, a *allocation, m *stun.Message, c *credential) {
	var ips [][16]byte
	reason, code := reasonMalformed, stun.CodeBadRequest
	for _, attr := range m.Attributes {
		if attr.Type != stun.AttrXORPeerAddress {
			continue
		}
		peer, f, ok := readAddress(attr.Value, m.Raw[4:stunHeader])
		if reason, code = w.checkPeer(a, peer, f, ok); code != 0 {
			break
		}
		// No more are looked at than can be permitted: a message has room for thousands.
		if len(ips) == maxPermissions {
			reason, code = reasonTooManyPermissions, stun.CodeInsufficientCapacity
			break
		}
		ips = append(ips, peer.ip)
	}
	if code == 0 && !a.permit(w.now, ips...) {
		reason, code = reasonTooManyPermissions, stun.CodeInsufficientCapacity
	}
	if code != 0 {
		w.server.stats.reject(reason)
		w.respondError(p, m, code, c, nil)
		return
	}
	w.respondSuccess(p, m, c, nil)
}

// channelBind makes or renews a channel (RFC 8656 section 12.2).
func (w *worker) channelBind(p *path, a *allocation, m *stun.Message, c *credential) {
	peer, f, ok := peerOf(m)
	number, err := m.Get(stun.AttrChannelNumber)
	reason, code := reasonBadChannel, stun.CodeBadRequest
	// Nothing can be sent to port 0.
	if err == nil && len(number) == 4 && ok && peer.port != 0 {
		n := binary.BigEndian.Uint16(number)
		switch {
		case n < minChannel || n > maxChannel:
		default:
			if reason, code = w.checkPeer(a, peer, f, ok); code == 0 {
				switch reason = a.bindChannel(w.now, n, peer); reason {
				case reasonBadChannel:
					code = stun.CodeBadRequest
				case reasonTooManyPermissions:
					code = stun.CodeInsufficientCapacity
				}
			}
		}
	}
	if code != 0 {
		w.server.stats.reject(reason)
		w.respondError(p, m, code, c, nil)
		return
	}
	w.respondSuccess(p, m, c, nil)
}

// checkPeer decides about a peer that a client names: f is the family as it is written, before an
// IPv4 address is taken out of IPv6.
func (w *worker) checkPeer(
	a *allocation,
	peer endpoint,
	f family,
	ok bool,
) (reasonCode, stun.ErrorCode) {
	switch {
	case !ok:
		return reasonMalformed, stun.CodeBadRequest
	case !w.server.addresses().policy.allows(peer.addr()):
		return reasonDeniedPeer, stun.CodeForbidden
	// An IPv4 address in the dress of IPv6 is refused even where it is allowed: no IPv6 relay
	// reaches it.
	case f != peer.family() || a.relays[f] == nil:
		return reasonBadFamily, codeFamilyMismatch
	}
	return reasonNone, 0
}

// send serves a Send indication (RFC 8656 section 11.2).
func (w *worker) send(a *allocation, m *stun.Message) {
	data, err := m.Get(stun.AttrData)
	peer, f, ok := peerOf(m)
	if err != nil || !ok || f != peer.family() || peer.port == 0 || w.unknownAttrs(m) != nil {
		a.drop(reasonMalformed)
		return
	}
	if a.peers.Load().permission(peer.ip, w.now) == nil || a.relays[f] == nil {
		a.drop(reasonNoPermission)
		return
	}
	r := w.server.route(peer)
	if r.kind == routeExternal {
		if w.admitUp(a, len(data)) {
			w.driver.toPeerNow(a, a.relays[f], peer, data, m.Contains(stun.AttrDontFragment))
		}
		return
	}
	socket := r.socketAt(peer.port)
	if w.mayHairpin(a, socket) && w.admitUp(a, len(data)) {
		w.toClient(socket, a.relays[f].public, packet{payload: data}, a)
	}
}
