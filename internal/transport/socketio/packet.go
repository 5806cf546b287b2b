package socketio

import (
	"bytes"
	"errors"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// event is the name of the one event, in both directions.
const event = "knowledgetalk"

// packetOverhead is more than a packet adds to its message: the packet types of both protocols, the
// acknowledgement's id and the name of the event.
const packetOverhead = 64

const (
	maxAckID     = 16 // digits: a client counts in a JavaScript number
	maxNamespace = 64
)

// Types of Engine.IO packets, the first byte of each.
const (
	engineClose   = '1'
	enginePing    = '2'
	enginePong    = '3'
	engineMessage = '4'
	engineNoop    = '6'
	// '0' (open) goes only to clients, '5' (upgrade) only over a WebSocket that upgrades a session,
	// and 'b' introduces binary data.
)

// Packets without variable content.
const (
	packetClose      = "1"
	packetPing       = "2"
	packetProbe      = "2probe"
	packetProbed     = "3probe"
	packetConnected  = "40"
	packetDisconnect = "41"
	packetUpgrade    = "5"
	packetNoop       = "6"
)

// packetType is the type of a Socket.IO packet (protocol 4 and 5), which follows the Engine.IO
// type.
type packetType byte

const (
	typeConnect      packetType = '0'
	typeDisconnect   packetType = '1'
	typeEvent        packetType = '2'
	typeAck          packetType = '3'
	typeConnectError packetType = '4' // from the server; protocol 4 calls it ERROR
	// '5' and '6' are events and acknowledgements with binary attachments
)

// packet is a parsed Socket.IO packet: `type[/namespace,][ack id][data]`.
type packet struct {
	typ       packetType
	namespace string // "/" when the packet names none
	ack       []byte // digits; nil: none
	data      []byte // not parsed; may be empty
}

var (
	errMalformed = errors.New("malformed packet")
	errBinary    = errors.New("binary attachment")
)

// parsePacket parses a packet, but not the JSON in it. The result points into p.
func parsePacket(p []byte) (packet, error) {
	if len(p) == 0 {
		return packet{}, errMalformed
	}
	k := packet{typ: packetType(p[0]), namespace: "/"}
	switch {
	case p[0] == '5' || p[0] == '6':
		return packet{}, errBinary
	case p[0] < '0' || p[0] > '6':
		return packet{}, errMalformed
	}
	p = p[1:]
	if len(p) > 0 && p[0] == '/' {
		name, rest, _ := bytes.Cut(p, []byte{','})
		name, _, _ = bytes.Cut(name, []byte{'?'}) // protocol 4 may add a query
		if len(name) > maxNamespace || !printable(name) {
			return packet{}, errMalformed
		}
		k.namespace, p = string(name), rest
	}
	n := 0
	for n < len(p) && p[n] >= '0' && p[n] <= '9' {
		n++
	}
	if n > maxAckID {
		return packet{}, errMalformed
	}
	if n > 0 {
		k.ack = p[:n]
	}
	k.data = p[n:]
	return k, nil
}

// printable tells whether a name can be repeated to its client without escaping.
func printable(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// parseEvent finds the name and the argument in `["name",argument]`. Whether the argument is one
// JSON value is for the receiver to check. The name is returned as it is written, with its
// escapes.
func parseEvent(data []byte) (name, argument []byte, err error) {
	data = trimSpace(data)
	if len(data) < 2 || data[0] != '[' || data[len(data)-1] != ']' {
		return nil, nil, errMalformed
	}
	data = trimSpace(data[1 : len(data)-1])
	if len(data) == 0 || data[0] != '"' {
		return nil, nil, errMalformed
	}
	end := 1
	for end < len(data) && data[end] != '"' {
		if data[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(data) {
		return nil, nil, errMalformed
	}
	name, data = data[1:end], trimSpace(data[end+1:])
	if len(data) == 0 {
		return name, nil, nil
	}
	if data[0] != ',' {
		return nil, nil, errMalformed
	}
	return name, trimSpace(data[1:]), nil
}

// trimSpace removes JSON's white space (RFC 8259, section 2).
func trimSpace(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }

// newPacket returns p as a message.
func newPacket(p string) *transport.Message {
	m := transport.NewMessage()
	m.B = append(m.B, p...)
	return m
}

// encodeEvent returns the event that contains m, and releases m. All receivers of m share it.
func encodeEvent(m *transport.Message) *transport.Message {
	defer m.Release()
	return m.As(func(b, of []byte) []byte {
		b = append(b, `42["`+event+`",`...)
		b = append(b, of...)
		return append(b, ']')
	})
}

// encodeAck returns the acknowledgement of an id that contains m, and releases m.
func encodeAck(m *transport.Message, id []byte) *transport.Message {
	defer m.Release()
	e := transport.NewMessage()
	e.B = append(e.B, engineMessage, byte(typeAck))
	e.B = append(e.B, id...)
	e.B = append(e.B, '[')
	e.B = append(e.B, m.B...)
	e.B = append(e.B, ']')
	return e
}
