package socketio

import (
	"bytes"
	"errors"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// event is the name of the one event, in both directions.
const event = "knowledgetalk"

// envelope is more than a packet adds to its message: both protocols' types, the acknowledgement's id and the event's name.
const packetOverhead = 64

const (
	maxAckID     = 16 // digits: a client counts in a JavaScript number
	maxNamespace = 64
)

// Types of Engine.IO packets, the first byte of each.
const (
	enginePing    = '2'
	enginePong    = '3'
	engineMessage = '4'
	engineClose   = '1'
	engineNoop    = '6'
	// '0' open goes only to clients, '5' upgrade is a word of its own (see leg), 'b' introduces binary data
)

// Packets that are always the same.
const (
	packetPing       = "2"
	packetClose      = "1"
	packetNoop       = "6"
	packetConnected  = "40"
	packetDisconnect = "41"
	packetProbe      = "2probe"
	packetProbed     = "3probe"
	packetUpgrade    = "5"
)

// kind is the type of a Socket.IO packet (protocol 4 and 5), after the Engine.IO type.
type packetType byte

const (
	typeConnect      packetType = '0'
	typeDisconnect   packetType = '1'
	typeEvent        packetType = '2'
	typeAck          packetType = '3'
	typeConnectError packetType = '4' // CONNECT_ERROR in protocol 5, ERROR in 4: a server's word
	// '5' and '6' are events and acknowledgements with binary attachments
)

// packet is a Socket.IO packet as it came: `type[/namespace,][ack id][data]`.
type packet struct {
	typ       packetType
	namespace string // "/" when none was named
	ack       []byte // digits; nil: none
	data      []byte // JSON as it came, not looked at; may be empty
}

var (
	errMalformed = errors.New("malformed packet")
	errBinary    = errors.New("binary attachment")
)

// parsePacket takes a packet apart. It points into p and judges no JSON.
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
		name, _, _ = bytes.Cut(name, []byte{'?'}) // protocol 4 sends a query along
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

// printable keeps out what would need escaping when a name is said back to its client.
func printable(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// parseEvent finds the name and the argument in `["name",argument]`. The argument is what stands between, one JSON value or not:
// whoever reads messages finds out. Names are compared as they are written, escapes are not resolved.
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

// trim removes JSON's white space (RFC 8259, section 2).
func trimSpace(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }

// text makes an Engine.IO packet.
func newPacket(p string) *transport.Message {
	m := transport.NewMessage()
	m.B = append(m.B, p...)
	return m
}

// asEvent makes the event that carries m, and gives up the reference to m. All receivers of m share it.
func encodeEvent(m *transport.Message) *transport.Message {
	defer m.Release()
	return m.As(func(b, of []byte) []byte {
		b = append(b, `42["`+event+`",`...)
		b = append(b, of...)
		return append(b, ']')
	})
}

// asAck makes the acknowledgement with that id that carries m, and gives up the reference to m.
func encodeAck(m *transport.Message, ack []byte) *transport.Message {
	defer m.Release()
	e := transport.NewMessage()
	e.B = append(e.B, '4', byte(typeAck))
	e.B = append(e.B, ack...)
	e.B = append(e.B, '[')
	e.B = append(e.B, m.B...)
	e.B = append(e.B, ']')
	return e
}
