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
	opcodeBits = 0x0F
	controlBit = 0x08 // of an opcode
	maskBit    = 0x80
	maxControl = 125 // bytes of a control frame's payload (section 5.5)

	// Control frames are small frames, and so are fragments shorter than smallFrame that do not
	// end their message. Each costs work, and no limit above this package sees it. maxSmallFrames
	// is how many a client may send in a second.
	smallFrame     = 1 << 10
	maxSmallFrames = 400
)

// appendFrame appends a frame as servers send it: unmasked and unfragmented.
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

// appendClose appends a close frame. StatusNoStatusRcvd makes one without a code (section 7.4.1).
func appendClose(b []byte, code StatusCode, reason string) []byte {
	if code == StatusNoStatusRcvd {
		return appendFrame(b, opClose, nil)
	}
	payload := binary.BigEndian.AppendUint16(nil, uint16(code))
	return appendFrame(b, opClose, append(payload, reason[:min(len(reason), maxControl-2)]...))
}

// parseClose reads a close frame's payload. Without a code it returns StatusNoStatusRcvd.
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

// frameError closes the connection of the client that caused it.
type frameError struct {
	code   StatusCode
	reason string
}

func (e *frameError) Error() string { return e.reason }

var (
	errFrame         = &frameError{StatusProtocolError, "protocol error"}
	errEncoding      = &frameError{StatusInvalidFramePayloadData, "not UTF-8"}
	errTooLong       = &frameError{StatusMessageTooBig, "message too long"}
	errTooManyFrames = &frameError{StatusPolicyViolation, "too many frames"}

	// errCloseFrame ends the scan: what follows a close frame is not read.
	errCloseFrame = errors.New("close frame")
)

// frameHandler gets what a frameScanner has found. Payloads are valid until its methods return.
type frameHandler interface {
	onMessage(op byte, payload []byte)
	onControl(op byte, payload []byte) error
	onSmallFrame() error
}

// frameScanner parses what a client sends, in reads of any size, and assembles fragmented messages.
// It copies only what has arrived in part. A message that arrives whole is unmasked in place and
// handed on from there. A scanner is owned by its connection's reader.
type frameScanner struct {
	limit int // bytes of a message; static

	// Of the frame that is being read.
	head      [14]byte
	headLen   uint8  // bytes of head so far
	inPayload bool   // head is complete
	remaining int    // bytes of the payload that have not arrived
	key       uint32 // masking key, rotated so that its lowest byte is for the next byte

	op      byte     // of the fragmented message that is being read; 0: none
	message *Message // what has arrived of it; nil: nothing
	control []byte   // what has arrived of a control frame
}

// scan reads b, and changes it. After an error nothing more may be scanned.
func (f *frameScanner) scan(b []byte, h frameHandler) error {
	for {
		if !f.inPayload {
			var err error
			if b, err = f.readHeader(b, h); err != nil || !f.inPayload {
				return err
			}
		}
		part := b[:min(f.remaining, len(b))]
		b = b[len(part):]
		f.remaining -= len(part)
		f.key = unmask(part, f.key)
		// Most frames are a whole message.
		if f.remaining == 0 && f.op == 0 && f.head[0]&(finBit|controlBit) == finBit {
			f.headLen, f.inPayload = 0, false
			h.onMessage(f.head[0]&opcodeBits, part)
			continue
		}
		if err := f.readPayload(part, h); err != nil || f.remaining > 0 {
			return err
		}
		f.headLen, f.inPayload = 0, false
	}
}

// readHeader takes the header from the beginning of b, as far as it has arrived.
func (f *frameScanner) readHeader(b []byte, h frameHandler) (rest []byte, err error) {
	for need := uint8(2); ; {
		n := copy(f.head[f.headLen:max(need, f.headLen)], b)
		f.headLen += uint8(n)
		b = b[n:]
		if f.headLen < need {
			return b, nil
		}
		if need > 2 {
			return b, f.beginPayload(f.head[need-4:need], h)
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

// checkHeader checks a header's first two bytes.
func (f *frameScanner) checkHeader() error {
	op := f.head[0] & opcodeBits
	switch {
	case f.head[0]&rsvBits != 0, f.head[1]&maskBit == 0: // no extensions; clients must mask
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

// beginPayload reads the payload's length and checks it.
func (f *frameScanner) beginPayload(key []byte, h frameHandler) error {
	length := uint64(f.head[1] &^ maskBit)
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		length = binary.BigEndian.Uint64(f.head[2:])
	}
	if f.head[0]&controlBit == 0 {
		free := f.limit
		if f.message != nil {
			free -= len(f.message.B)
		}
		if length > uint64(free) {
			return errTooLong
		}
	}
	f.inPayload, f.remaining, f.key = true, int(length), binary.LittleEndian.Uint32(key)
	if length < smallFrame && f.head[0]&(finBit|controlBit) != finBit {
		return h.onSmallFrame()
	}
	return nil
}

// readPayload takes the next part of a frame's payload. f.remaining is what follows it.
func (f *frameScanner) readPayload(part []byte, h frameHandler) error {
	op, fin := f.head[0]&opcodeBits, f.head[0]&finBit != 0
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
		return h.onControl(op, part)
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
		h.onMessage(op, m.B)
		m.Release()
	}
	return nil
}

// inMessage tells whether a message has arrived in part.
func (f *frameScanner) inMessage() bool { return f.headLen > 0 || f.op != 0 }

// release releases what is kept of an unfinished message.
func (f *frameScanner) release() {
	if f.message != nil {
		f.message.Release()
		f.message = nil
	}
}

// unmask applies the masking key (section 5.3), and returns it rotated for the bytes that follow.
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
