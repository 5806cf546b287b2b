package bus

import (
	"encoding/binary"
	"errors"
)

// version is the version of frames. Frames of another version are not understood, but counted: the
// fields up to the name of the sender stay as they are in every version.
const version = 1

// kind says what a frame is for.
type kind byte

const (
	kindMessage  kind = iota + 1 // payload
	kindRequest                  // id, payload
	kindResponse                 // id of the request, payload
	kindNack                     // payload: first and last number of what the sender of this missed
	kindLost                     // payload: ids of requests whose responses are lost
	// The following have no number of their own.
	kindTail // seq: the last number that was sent
	kindAck  // seq: the last number that was handled
)

// frame is what travels, in this order, integers in network byte order:
//
//	version      1 byte
//	kind         1 byte
//	incarnation  8 bytes, of the sender
//	seq          8 bytes, number in the stream from the sender to the receiver, from 1
//	id           8 bytes, of a request, chosen by the node that asks
//	name         1 byte of length, 1 to 63 bytes: the sender
//	payload      the rest
type frame struct {
	kind        kind
	incarnation uint64
	seq         uint64
	id          uint64
	from        string
	payload     []byte
}

const (
	headerSize = 27 // without the name
	maxName    = 63
)

var (
	errFrame   = errors.New("malformed frame")
	errVersion = errors.New("frame of another version")
)

func (f *frame) append(b []byte) []byte {
	b = append(b, version, byte(f.kind))
	b = binary.BigEndian.AppendUint64(b, f.incarnation)
	b = binary.BigEndian.AppendUint64(b, f.seq)
	b = binary.BigEndian.AppendUint64(b, f.id)
	b = append(b, byte(len(f.from)))
	b = append(b, f.from...)
	return append(b, f.payload...)
}

// parseFrame returns the frame in b, of which the payload stays a part. With errVersion all but the
// kind and the payload is valid.
func parseFrame(b []byte) (f frame, err error) {
	if len(b) < headerSize {
		return f, errFrame
	}
	name := int(b[headerSize-1])
	if name == 0 || name > maxName || len(b) < headerSize+name {
		return f, errFrame
	}
	f = frame{
		kind:        kind(b[1]),
		incarnation: binary.BigEndian.Uint64(b[2:]),
		seq:         binary.BigEndian.Uint64(b[10:]),
		id:          binary.BigEndian.Uint64(b[18:]),
		from:        string(b[headerSize : headerSize+name]),
		payload:     b[headerSize+name:],
	}
	if f.seq > maxSeq {
		return f, errFrame
	}
	if b[0] != version || f.kind < kindMessage || f.kind > kindAck {
		return f, errVersion
	}
	return f, nil
}

// maxSeq keeps sums of numbers from overflowing.
const maxSeq = 1 << 62

// appendSpan and parseSpan encode the payload of kindNack.
func appendSpan(b []byte, first, last uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, first), last)
}

func parseSpan(b []byte) (first, last uint64, ok bool) {
	if len(b) != 16 {
		return 0, 0, false
	}
	first, last = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	return first, last, first <= last && last <= maxSeq
}

// appendIDs and parseIDs encode the payload of kindLost.
func appendIDs(b []byte, ids []uint64) []byte {
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	return b
}

func parseIDs(b []byte) (ids []uint64, ok bool) {
	for len(b) >= 8 {
		ids = append(ids, binary.BigEndian.Uint64(b))
		b = b[8:]
	}
	return ids, len(b) == 0
}
