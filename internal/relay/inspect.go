package relay

import (
	"encoding/binary"

	"github.com/pion/stun/v4"
)

// Channel numbers of RFC 8656 section 12; above them bytes are reserved (RFC 7983).
const (
	minChannel = 0x4000
	maxChannel = 0x4fff
	// stunHeader and channelHeader are the lengths of the two kinds of header.
	stunHeader    = 20
	channelHeader = 4
)

// isChannelData tells a ChannelData message, by its first byte, from a STUN message.
func isChannelData(p []byte) bool { return len(p) >= channelHeader && p[0]&0xf0 == minChannel>>8 }

// inspect looks at a message from a client before the library does. It refuses what the library would take, or break on: channel
// numbers out of range, TCP relays and their methods (RFC 6062), families we have no address for, a lifetime of zero, and whatever
// is not a request or a Send indication.
//
// pass says whether the library gets the message; reply is an answer to send instead. Requests without MESSAGE-INTEGRITY pass, to
// be answered with 401. The replies given here come before the integrity is checked; all of them are smaller than the request.
func (s *Server) inspect(p []byte) (pass bool, reply []byte) {
	defer func() {
		// The library parses what comes from strangers in a goroutine of its own: a message that breaks the parser must be found
		// here or it ends the process.
		if recover() != nil {
			s.stats.refuse(panicked)
			pass, reply = false, nil
		}
	}()
	if isChannelData(p) {
		if int(binary.BigEndian.Uint16(p[2:])) > len(p)-channelHeader {
			s.stats.refuse(malformed)
			return false, nil
		}
		return true, nil
	}
	m := stun.Message{Raw: p}
	if len(p) < stunHeader || p[0] > 3 || m.Decode() != nil {
		s.stats.refuse(malformed)
		return false, nil
	}
	switch m.Type.Class {
	case stun.ClassIndication:
		// The library would answer an indication it does not understand.
		return m.Type.Method == stun.MethodSend && understood(&m), nil
	case stun.ClassRequest:
	default:
		return false, nil
	}
	why, code := s.judge(&m)
	if why == fine {
		return true, nil
	}
	s.stats.refuse(why)
	if code == 0 {
		return false, nil
	}
	return false, errorReply(&m, code)
}

// judge finds what is wrong with a request and the code to answer with, 0 for no answer: RFC 6062 methods are not known to us, and
// unknown methods are not answered (RFC 8489 section 6.3).
func (s *Server) judge(m *stun.Message) (reason, stun.ErrorCode) {
	switch m.Type.Method {
	case stun.MethodConnect, stun.MethodConnectionBind:
		return badTransport, 0
	case stun.MethodAllocate:
		if m.Contains(stun.AttrMessageIntegrity) {
			return s.judgeAllocate(m)
		}
	case stun.MethodChannelBind:
		if number, err := m.Get(stun.AttrChannelNumber); m.Contains(stun.AttrMessageIntegrity) && err == nil && len(number) == 4 {
			if n := binary.BigEndian.Uint16(number); n < minChannel || n > maxChannel {
				return badChannel, stun.CodeBadRequest
			}
		}
	}
	return fine, 0
}

func (s *Server) judgeAllocate(m *stun.Message) (reason, stun.ErrorCode) {
	const (
		udp  = 17
		ipv4 = 1
		ipv6 = 2
	)
	if v, err := m.Get(stun.AttrRequestedTransport); err == nil && len(v) == 4 && v[0] != udp {
		return badTransport, stun.CodeUnsupportedTransProto
	}
	if v, err := m.Get(stun.AttrRequestedAddressFamily); err == nil && len(v) == 4 {
		known := v[0] == ipv4 || v[0] == ipv6
		if !known || s.relayFor(v[0] == ipv4) == nil {
			return badFamily, stun.CodeAddrFamilyNotSupported
		}
	}
	if v, err := m.Get(stun.AttrLifetime); err == nil && len(v) == 4 && binary.BigEndian.Uint32(v) == 0 {
		return malformed, stun.CodeBadRequest
	}
	return fine, 0
}

func understood(m *stun.Message) bool {
	for _, a := range m.Attributes {
		if a.Type.Required() && !a.Type.Known() {
			return false
		}
	}
	return true
}

func errorReply(m *stun.Message, code stun.ErrorCode) []byte {
	answer, err := stun.Build(
		stun.NewTransactionIDSetter(m.TransactionID),
		stun.NewType(m.Type.Method, stun.ClassErrorResponse),
		stun.ErrorCodeAttribute{Code: code},
	)
	if err != nil {
		return nil
	}
	return answer.Raw
}

// correct changes the library's answer to a ChannelBind for a denied peer from 401 to the 403 of RFC 8656 section 12.2. A 401 that
// asks for credentials carries a NONCE; this one does not. It has no integrity that a change could break.
func correct(p []byte) {
	const (
		channelBindError = 0x0119
		errorCode        = 0x0009
		codeLength       = 4
	)
	code := stunHeader + 4
	if len(p) != code+codeLength || binary.BigEndian.Uint16(p) != channelBindError || binary.BigEndian.Uint16(p[stunHeader:]) != errorCode {
		return
	}
	if p[code+2] == 4 && p[code+3] == 1 {
		p[code+3] = 3
	}
}

// payload is the length of the relayed data in a message to a client: ChannelData, or a Data indication with its two attributes.
// It is -1 for every other message.
func payload(p []byte) int {
	const (
		dataIndication = 0x0017
		data           = 0x0013
	)
	if isChannelData(p) {
		return int(binary.BigEndian.Uint16(p[2:]))
	}
	if len(p) < stunHeader || binary.BigEndian.Uint16(p) != dataIndication {
		return -1
	}
	for rest := p[stunHeader:]; len(rest) >= 4; {
		length := int(binary.BigEndian.Uint16(rest[2:]))
		if binary.BigEndian.Uint16(rest) == data {
			return length
		}
		rest = rest[min(len(rest), 4+(length+3)&^3):]
	}
	return -1
}
