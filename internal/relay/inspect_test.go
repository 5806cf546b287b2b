package relay

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
)

func message(t stun.MessageType, attrs ...stun.Setter) []byte {
	return stun.MustBuild(append([]stun.Setter{stun.TransactionID, t}, attrs...)...).Raw
}

func TestWhatTheLibraryGets(t *testing.T) {
	s := &Server{relays: []*relayAddress{{Address: loopback("127.0.0.1")}}}
	integrity := stun.NewLongTermIntegrity("u", "r", "p")
	allocate := stun.NewType(stun.MethodAllocate, stun.ClassRequest)
	unknown := stun.RawAttribute{Type: 0x7abc}
	for name, c := range map[string]struct {
		raw  []byte
		pass bool
		code int // of the reply, 0: none
	}{
		"Binding request":                 {message(stun.BindingRequest), true, 0},
		"Binding request, unknown":        {message(stun.BindingRequest, unknown), true, 0},
		"Binding indication":              {message(stun.NewType(stun.MethodBinding, stun.ClassIndication)), false, 0},
		"Binding response":                {message(stun.BindingSuccess), false, 0},
		"error response":                  {message(stun.BindingError), false, 0},
		"Send indication":                 {message(stun.NewType(stun.MethodSend, stun.ClassIndication)), true, 0},
		"Send indication, unknown":        {message(stun.NewType(stun.MethodSend, stun.ClassIndication), unknown), false, 0},
		"Data indication":                 {message(stun.NewType(stun.MethodData, stun.ClassIndication)), false, 0},
		"Connect":                         {message(stun.NewType(stun.MethodConnect, stun.ClassRequest)), false, 0},
		"ConnectionBind":                  {message(stun.NewType(stun.MethodConnectionBind, stun.ClassRequest)), false, 0},
		"Allocate without integrity":      {message(allocate, transport(6)), true, 0},
		"Allocate for TCP":                {message(allocate, transport(6), integrity), false, 442},
		"Allocate for UDP":                {message(allocate, transport(17), integrity), true, 0},
		"Allocate for IPv6":               {message(allocate, transport(17), family(2), integrity), false, 440},
		"a family behind the integrity":   {message(allocate, transport(17), integrity, family(2)), true, 0},
		"ChannelData":                     {[]byte{0x40, 0, 0, 1, 'x'}, true, 0},
		"padded ChannelData":              {[]byte{0x4f, 0xff, 0, 1, 'x', 0, 0, 0}, true, 0},
		"ChannelData that lies":           {[]byte{0x40, 0, 0, 2, 'x'}, false, 0},
		"short ChannelData":               {[]byte{0x40, 0, 0}, false, 0},
		"ChannelData of a reserved range": {[]byte{0x50, 0, 0, 1, 'x'}, false, 0},
		"RTP":                             {append([]byte{0x80}, make([]byte, 40)...), false, 0},
		"empty":                           {nil, false, 0},
		"no cookie":                       {make([]byte, 20), false, 0},
		"length that lies":                {append([]byte{0, 1, 0, 8}, message(stun.BindingRequest)[4:]...), false, 0},
	} {
		pass, reply := s.inspect(c.raw)
		got := 0
		if reply != nil {
			m := &stun.Message{Raw: reply}
			if err := m.Decode(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got = code(m)
			if len(reply) > len(c.raw) || !bytes.Equal(reply[8:20], c.raw[8:20]) {
				t.Errorf("%s: reply %x to %x", name, reply, c.raw)
			}
		}
		if pass != c.pass || got != c.code {
			t.Errorf("%s: pass is %v, code %d", name, pass, got)
		}
	}
}

func TestOnlyTheDenialOfAChannelIsCorrected(t *testing.T) {
	build := func(m stun.Method, code stun.ErrorCode, attrs ...stun.Setter) []byte {
		return message(stun.NewType(m, stun.ClassErrorResponse), append([]stun.Setter{stun.ErrorCodeAttribute{Code: code}}, attrs...)...)
	}
	for name, c := range map[string]struct {
		raw  []byte
		want int
	}{
		"denied channel": {build(stun.MethodChannelBind, 401), 403},
		"challenge":      {build(stun.MethodChannelBind, 401, stun.NewNonce("n"), stun.NewRealm("r")), 401},
		"bad channel":    {build(stun.MethodChannelBind, 400), 400},
		"another method": {build(stun.MethodAllocate, 401), 401},
	} {
		correct(c.raw)
		m := &stun.Message{Raw: c.raw}
		if err := m.Decode(); err != nil || code(m) != c.want {
			t.Errorf("%s: %d, %v", name, code(m), err)
		}
	}
}

func TestPayloadOfRelayedMessages(t *testing.T) {
	data := stun.NewType(stun.MethodData, stun.ClassIndication)
	attr := func(text string) stun.Setter { return stun.RawAttribute{Type: stun.AttrData, Value: []byte(text)} }
	for name, c := range map[string]struct {
		raw  []byte
		want int
	}{
		"ChannelData":                {[]byte{0x40, 0, 0, 3, 1, 2, 3, 0}, 3},
		"empty ChannelData":          {[]byte{0x40, 0, 0, 0}, 0},
		"Data indication over IPv4":  {message(data, peer(netip.MustParseAddrPort("192.0.2.1:9")), attr("hello")), 5},
		"Data indication over IPv6":  {message(data, peer(netip.MustParseAddrPort("[2001:db8::1]:9")), attr(strings.Repeat("x", 1000))), 1000},
		"Data indication of nothing": {message(data, peer(netip.MustParseAddrPort("192.0.2.1:9")), attr("")), 0},
		"without data":               {message(data, peer(netip.MustParseAddrPort("192.0.2.1:9"))), -1},
		"answer":                     {message(stun.BindingSuccess), -1},
		"nothing":                    {nil, -1},
	} {
		if got := payload(c.raw); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// FuzzInspect: nothing a stranger sends breaks the inspection; what is answered is answered smaller; what passes is of the two kinds.
func FuzzInspect(f *testing.F) {
	integrity := stun.NewLongTermIntegrity("u", "r", "p")
	f.Add(message(stun.BindingRequest))
	f.Add(message(stun.NewType(stun.MethodAllocate, stun.ClassRequest), transport(6), family(2), integrity))
	f.Add(message(stun.NewType(stun.MethodChannelBind, stun.ClassRequest),
		stun.RawAttribute{Type: stun.AttrChannelNumber, Value: []byte{0x50, 0, 0, 0}}, integrity))
	f.Add([]byte{0x40, 0, 0, 1, 'x'})
	s := &Server{relays: []*relayAddress{{Address: loopback("127.0.0.1")}}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		pass, reply := s.inspect(raw)
		if !bytes.Equal(raw, before) {
			t.Error("the message was changed")
		}
		if len(reply) > len(raw) || (pass && reply != nil) {
			t.Errorf("passed: %v, %d bytes answered with %d", pass, len(raw), len(reply))
		}
		if pass && !isChannelData(raw) && !stun.IsMessage(raw) {
			t.Error("passed something else")
		}
		if refusedBy(s, panicked) > 0 {
			t.Error("the parser broke")
		}
		if n := payload(raw); n > 0xffff || n < -1 {
			t.Errorf("payload of %d bytes", n)
		}
		correct(raw)
		if !pass || isChannelData(raw) {
			return
		}
		m := &stun.Message{Raw: raw}
		if m.Decode() != nil || (m.Type.Class != stun.ClassRequest && m.Type.Method != stun.MethodSend) {
			t.Errorf("passed %v", m)
		}
	})
}
