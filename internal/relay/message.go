package relay

import (
	"encoding/binary"
	"time"

	"github.com/pion/stun/v4"
)

// Channel numbers of RFC 5766 section 11. RFC 8656 section 12 leaves a quarter of them, since what
// begins with 0x50 to 0x7f may become something else where TURN shares a socket with other
// protocols (RFC 7983). Nothing else comes to our port, and there are clients, coturn's among them,
// that take any number of the older range.
const (
	minChannel = 0x4000
	maxChannel = 0x7ffe
	// stunHeader and channelHeader are the lengths of the two kinds of header.
	stunHeader    = 20
	channelHeader = 4
	magicCookie   = 0x2112a442
)

// Attributes and codes of RFC 8656 that the codec has no names for.
const (
	attrAdditionalAddressFamily = stun.AttrType(0x8000)
	attrAddressErrorCode        = stun.AttrType(0x8001)

	codeFamilyMismatch = stun.ErrorCode(443)
)

// isChannelData tells a ChannelData message, by its first two bits, from a STUN message.
func isChannelData(p []byte) bool { return len(p) >= channelHeader && p[0]&0xc0 == minChannel>>8 }

// isSTUN tells whether a message can be STUN: two zero bits, the cookie, and a length that fits.
func isSTUN(p []byte) bool {
	return len(p) >= stunHeader && p[0] < 4 && binary.BigEndian.Uint32(p[4:]) == magicCookie &&
		int(binary.BigEndian.Uint16(p[2:]))+stunHeader == len(p) && len(p)%4 == 0
}

// isKnownAttr are the comprehension-required attributes that mean something to us. DONT-FRAGMENT is
// judged apart.
func isKnownAttr(t stun.AttrType) bool {
	switch t {
	case stun.AttrMappedAddress,
		stun.AttrUsername,
		stun.AttrMessageIntegrity,
		stun.AttrErrorCode,
		stun.AttrUnknownAttributes,
		stun.AttrRealm,
		stun.AttrNonce,
		stun.AttrXORMappedAddress,
		stun.AttrMessageIntegritySHA256,
		stun.AttrPasswordAlgorithm,
		stun.AttrChannelNumber,
		stun.AttrLifetime,
		stun.AttrXORPeerAddress,
		stun.AttrData,
		stun.AttrXORRelayedAddress,
		stun.AttrRequestedAddressFamily,
		stun.AttrEvenPort,
		stun.AttrRequestedTransport,
		stun.AttrReservationToken,
		// ICE agents put these into what they send to a STUN server as well (RFC 8445 section
		// 16.1).
		stun.AttrPriority,
		stun.AttrUseCandidate:
		return true
	}
	return t.Optional()
}

// unknownAttrs collects the attributes for a 420, as UNKNOWN-ATTRIBUTES lists them (RFC 8489
// section 14.13).
func (w *worker) unknownAttrs(m *stun.Message) []byte {
	var list []byte
	const most = 16
	for _, a := range m.Attributes {
		if isKnownAttr(a.Type) || (a.Type == stun.AttrDontFragment && w.driver.fragments()) {
			continue
		}
		if list = binary.BigEndian.AppendUint16(list, uint16(a.Type)); len(list) == 2*most {
			break
		}
	}
	return list
}

// newResponse begins an answer to a request in the worker's buffer.
func (w *worker) newResponse(m *stun.Message, class stun.MessageClass) *stun.Message {
	a := &w.reply
	a.Reset()
	a.Type = stun.NewType(m.Type.Method, class)
	a.TransactionID = m.TransactionID
	a.WriteHeader()
	return a
}

// finishResponse signs the answer and adds a FINGERPRINT when the request had one.
func finishResponse(m, a *stun.Message, c *credential) []byte {
	if c != nil {
		c.sign(a)
	}
	if m.Contains(stun.AttrFingerprint) {
		_ = stun.Fingerprint.AddTo(a) // it has room: our answers are short
	}
	return a.Raw
}

func addCode(a *stun.Message, code stun.ErrorCode) {
	a.Add(stun.AttrErrorCode, []byte{0, 0, byte(code / 100), byte(code % 100)})
}

func addLifetime(a *stun.Message, d time.Duration) {
	a.Add(
		stun.AttrLifetime,
		binary.BigEndian.AppendUint32(nil, uint32((d+time.Second-1)/time.Second)),
	)
}

// addAddress adds an address XORed with cookie and transaction (RFC 8489 section 14.2).
func addAddress(a *stun.Message, attr stun.AttrType, e endpoint) {
	b := appendAddress(make([]byte, 0, 20), e, a.Raw[4:stunHeader])
	a.Add(attr, b)
}

// appendAddress writes the value of an XOR- address attribute; mask is the header from the cookie
// on.
func appendAddress(b []byte, e endpoint, mask []byte) []byte {
	ip, kind := e.ip[:], byte(2)
	if e.family() == v4 {
		ip, kind = e.ip[12:], 1
	}
	b = append(b, 0, kind, byte(e.port>>8)^mask[0], byte(e.port)^mask[1])
	for i, c := range ip {
		b = append(b, c^mask[i])
	}
	return b
}

// readAddress reads the value of an XOR- address attribute. An IPv4-mapped address is the IPv4
// address that it stands for.
func readAddress(value, mask []byte) (e endpoint, f family, ok bool) {
	if len(value) < 4 {
		return e, f, false
	}
	e.port = (uint16(value[2]) ^ uint16(mask[0])) << 8
	e.port |= uint16(value[3] ^ mask[1])
	ip := e.ip[:]
	switch {
	case value[1] == 1 && len(value) == 8:
		copy(ip, mappedPrefix[:])
		ip = ip[12:]
	case value[1] == 2 && len(value) == 20:
		f = v6
	default:
		return e, f, false
	}
	for i := range ip {
		ip[i] = value[4+i] ^ mask[i]
	}
	return e, f, true
}

// peerOf reads the first XOR-PEER-ADDRESS.
func peerOf(m *stun.Message) (endpoint, family, bool) {
	value, err := m.Get(stun.AttrXORPeerAddress)
	if err != nil {
		return endpoint{}, v4, false
	}
	return readAddress(value, m.Raw[4:stunHeader])
}

// appendData writes a Data indication (RFC 8656 section 11.4).
func appendData(b []byte, from endpoint, payload []byte, tid *[12]byte) []byte {
	start := len(b)
	b = append(b, 0, 0x17, 0, 0, 0x21, 0x12, 0xa4, 0x42)
	b = append(b, tid[:]...)
	mask := b[start+4 : start+stunHeader]
	size := 8
	if from.family() == v6 {
		size = 20
	}
	b = append(b, 0, byte(stun.AttrXORPeerAddress), 0, byte(size))
	b = appendAddress(b, from, mask)
	b = append(b, 0, byte(stun.AttrData))
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, payload...)
	for len(b)%4 != start%4 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start-stunHeader))
	return b
}
