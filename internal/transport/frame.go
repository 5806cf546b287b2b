package transport

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"unicode/utf8"
)

// Opcodes of frames (RFC 6455, section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	finBit     = 0x80
	rsvBits    = 0x70
	controlBit = 0x08 // of an opcode
	maskBit    = 0x80
	maxControl = 125 // bytes of a control frame's payload (section 5.5)

	// Control frames, and pieces of a message that have fewer bytes than this and are not its last, count as small: each costs
	// work, and nothing above this package sees it. A client may send so many a second.
	smallFrame     = 1 << 10
	maxSmallFrames = 400
)

// appendFrame appends a whole frame as servers send it: not masked, not in pieces.
func appendFrame(b []byte, op byte, payload []byte) []byte {
	b = append(b, finBit|op)
	switch n := len(payload); {
	case n <= maxControl:
		b = append(b, byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

// appendClose appends a close frame; 1005 means none, and is not said (section 7.4.1).
func appendClose(b []byte, code StatusCode, reason string) []byte {
	if code == StatusNoStatusRcvd {
		return appendFrame(b, opClose, nil)
	}
	payload := binary.BigEndian.AppendUint16(nil, uint16(code))
	return appendFrame(b, opClose, append(payload, reason[:min(len(reason), maxControl-2)]...))
}

// parseClose reads a close frame's payload. A frame without a code means 1005.
func parseClose(payload []byte) (code StatusCode, err error) {
	if len(payload) == 0 {
		return StatusNoStatusRcvd, nil
	}
	if len(payload) == 1 {
		return 0, errFrame
	}
	code = StatusCode(binary.BigEndian.Uint16(payload))
	switch {
	case !code.valid():
		return 0, errFrame
	case !utf8.Valid(payload[2:]):
		return 0, errEncoding
	}
	return code, nil
}

// frameFault is what a client is closed for.
type frameError struct {
	code   StatusCode
	reason string
}

func (f *frameError) Error() string { return f.reason }

var (
	errFrame         = &frameError{StatusProtocolError, "protocol error"}
	errEncoding      = &frameError{StatusInvalidFramePayloadData, "not UTF-8"}
	errTooLong       = &frameError{StatusMessageTooBig, "message too long"}
	errTooManyFrames = &frameError{StatusPolicyViolation, "too many frames"}

	errCloseFrame = errors.New("close frame") // what comes after it is not read
)

// sink takes what frames have brought. The bytes are valid until it returns.
type frameHandler interface {
	onMessage(op byte, payload []byte)
	onControl(op byte, payload []byte) error
	onSmallFrame() error // there is a small frame; see smallFrame
}

// frames takes apart what a client sends, in whatever pieces it comes, and puts messages together. It keeps bytes only of what has
// come in part: a message that comes whole is unmasked where it stands, and handed on from there.
type frameScanner struct {
	limit int // bytes of a message

	head      [14]byte // of the frame that is being read
	headLen   uint8    // bytes of head
	inPayload bool     // head is complete, payload follows
	remaining int      // bytes of it still to come
	key       uint32   // turned so that its lowest byte is for the next one

	op      byte     // of the message that is being read in pieces; 0: none is
	message *Message // what has come of it
	control []byte   // what has come of a control frame
}

// feed reads b, and changes it. After an error nothing more may be fed.
func (f *frameScanner) scan(b []byte, to frameHandler) error {
	for {
		if !f.inPayload {
			var err error
			if b, err = f.readHeader(b, to); err != nil || !f.inPayload {
				return err
			}
		}
		part := b[:min(f.remaining, len(b))]
		b = b[len(part):]
		f.remaining -= len(part)
		f.key = unmask(part, f.key)
		if f.remaining == 0 && f.op == 0 && f.head[0]&(finBit|controlBit) == finBit { // a whole message: most are
			f.headLen, f.inPayload = 0, false
			to.onMessage(f.head[0]&0x0F, part)
			continue
		}
		if err := f.readPayload(part, to); err != nil || f.remaining > 0 {
			return err
		}
		f.headLen, f.inPayload = 0, false
	}
}

// header takes the header from the beginning of b, as far as it is there.
func (f *frameScanner) readHeader(b []byte, to frameHandler) (rest []byte, err error) {
	for need := uint8(2); ; {
		n := copy(f.head[f.headLen:max(need, f.headLen)], b)
		f.headLen += uint8(n)
		b = b[n:]
		if f.headLen < need {
			return b, nil
		}
		if need > 2 {
			return b, f.beginPayload(f.head[need-4:need], to)
		}
		if err := f.checkHeader(); err != nil {
			return b, err
		}
		switch f.head[1] &^ maskBit {
		case 126:
			need += 2
		case 127:
			need += 8
		}
		need += 4
	}
}

// check judges a header's first two bytes.
func (f *frameScanner) checkHeader() error {
	op := f.head[0] & 0x0F
	switch {
	case f.head[0]&rsvBits != 0, f.head[1]&maskBit == 0: // no extension was agreed on; clients must mask
		return errFrame
	case op == opText, op == opBinary:
		if f.op != 0 {
			return errFrame
		}
	case op == opContinuation:
		if f.op == 0 {
			return errFrame
		}
	case op == opClose, op == opPing, op == opPong:
		if f.head[0]&finBit == 0 || f.head[1]&^maskBit > maxControl {
			return errFrame
		}
	default:
		return errFrame
	}
	return nil
}

// open begins the payload.
func (f *frameScanner) beginPayload(key []byte, to frameHandler) error {
	length := uint64(f.head[1] &^ maskBit)
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		length = binary.BigEndian.Uint64(f.head[2:])
	}
	if f.head[0]&controlBit == 0 {
		room := f.limit
		if f.message != nil {
			room -= len(f.message.B)
		}
		if length > uint64(room) {
			return errTooLong
		}
	}
	f.inPayload, f.remaining, f.key = true, int(length), binary.LittleEndian.Uint32(key)
	if length < smallFrame && f.head[0]&(finBit|controlBit) != finBit {
		return to.onSmallFrame()
	}
	return nil
}

// payload takes the next part of a frame's payload; f.left says how much is still to come.
func (f *frameScanner) readPayload(part []byte, to frameHandler) error {
	op, fin := f.head[0]&0x0F, f.head[0]&finBit != 0
	whole := f.remaining == 0
	if op >= opClose {
		if !whole || len(f.control) > 0 {
			f.control = append(f.control, part...)
			part = f.control
		}
		if !whole {
			return nil
		}
		f.control = nil
		return to.onControl(op, part)
	}
	if op != opContinuation {
		f.op = op
	}
	if f.message == nil {
		f.message = NewMessage()
	}
	f.message.B = append(f.message.B, part...)
	if whole && fin {
		op, m := f.op, f.message
		f.op, f.message = 0, nil
		to.onMessage(op, m.B)
		m.Release()
	}
	return nil
}

// waiting tells whether the rest of a message is still to come.
func (f *frameScanner) inMessage() bool { return f.headLen > 0 || f.op != 0 }

// drop gives back what is kept of a message whose end will not come.
func (f *frameScanner) release() {
	if f.message != nil {
		f.message.Release()
		f.message = nil
	}
}

// unmask applies the key (section 5.3), and returns it turned for the bytes that follow.
func unmask(b []byte, key uint32) uint32 {
	wide := uint64(key)<<32 | uint64(key)
	for len(b) >= 32 {
		p := b[:32:32]
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
		binary.LittleEndian.PutUint64(p[8:], binary.LittleEndian.Uint64(p[8:])^wide)
		binary.LittleEndian.PutUint64(p[16:], binary.LittleEndian.Uint64(p[16:])^wide)
		binary.LittleEndian.PutUint64(p[24:], binary.LittleEndian.Uint64(p[24:])^wide)
		b = b[32:]
	}
	for i := range b {
		b[i] ^= byte(key)
		key = bits.RotateLeft32(key, -8)
	}
	return key
}
