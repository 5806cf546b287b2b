package bus

import (
	"encoding/binary"
	"iter"
)

// packetSize is how many bytes of frames, with their lengths, are published together. A larger
// frame is published alone.
const packetSize = 32 << 10

// pack appends frames to b, each behind its length in four bytes, until one does not fit. It
// returns the frames that are left. The first byte of a packet is always 0, since no message of
// NATS is that long: another first byte is free for other kinds of packets.
func pack(b []byte, frames [][]byte) (packet []byte, rest [][]byte) {
	for i, f := range frames {
		if i > 0 && len(b)+4+len(f) > packetSize {
			return b, frames[i:]
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return b, nil
}

// unpack yields the frames of a packet, as parts of it. What is cut off is no frame: it is yielded
// as it is.
func unpack(packet []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(packet) >= 4 {
			n := int(binary.BigEndian.Uint32(packet))
			if n > len(packet)-4 {
				break
			}
			if !yield(packet[4 : 4+n]) {
				return
			}
			packet = packet[4+n:]
		}
		if len(packet) > 0 {
			yield(nil)
		}
	}
}
