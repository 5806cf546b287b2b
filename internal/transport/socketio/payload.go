package socketio

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// separator stands between the packets of a payload in Engine.IO 4. No packet contains one: JSON
// writes it as an escape.
const separator = '\x1e'

var errPayload = errors.New("malformed payload")

// appendPayload appends packets as the body of one response. Engine.IO 4 separates them. Engine.IO
// 3 puts the length before each, in UTF-16 code units, as JavaScript counts.
func appendPayload(b []byte, version int, packets []*transport.Message) []byte {
	for i, p := range packets {
		if version == 3 {
			b = strconv.AppendInt(b, int64(utf16Len(p.B)), 10)
			b = append(b, ':')
		} else if i > 0 {
			b = append(b, separator)
		}
		b = append(b, p.B...)
	}
	return b
}

// utf16Len is the length of valid UTF-8 in UTF-16 code units.
func utf16Len(b []byte) int {
	n := 0
	for _, c := range b {
		switch {
		case c < 0x80 || c >= 0xC0 && c < 0xF0: // the first byte of a character of one unit
			n++
		case c >= 0xF0:
			n += 2
		}
	}
	return n
}

// nextPacket cuts the first packet off a payload, which is valid UTF-8. Errors are an empty packet,
// a malformed length, and a length that ends within a character.
func nextPacket(payload []byte, version int) (packet, rest []byte, err error) {
	if version != 3 {
		packet, rest, more := bytes.Cut(payload, []byte{separator})
		if len(packet) == 0 || more && len(rest) == 0 {
			return nil, nil, errPayload
		}
		return packet, rest, nil
	}
	digits, rest, ok := bytes.Cut(payload, []byte{':'})
	if !ok || len(digits) == 0 || len(digits) > 7 || digits[0] < '1' || digits[0] > '9' {
		return nil, nil, errPayload
	}
	want, err := strconv.Atoi(string(digits))
	if err != nil || want > len(rest) { // a character has at least as many bytes as units
		return nil, nil, errPayload
	}
	n := 0
	for want > 0 {
		if n >= len(rest) {
			return nil, nil, errPayload
		}
		_, size := utf8.DecodeRune(rest[n:])
		n += size
		want--
		if size == 4 {
			want--
		}
	}
	if want < 0 {
		return nil, nil, errPayload
	}
	return rest[:n], rest[n:], nil
}
