package relay

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// TestDifferential asks coturn and pion/turn what it asks us, and compares code, attributes and
// lifetimes of the answers. Where one of them answers otherwise than we do, the row in differences
// says how, and why we do not. A row that is no longer true of anyone fails, so that a new version
// of theirs shows.
func TestDifferential(t *testing.T) {
	peerHost(t) // says whether this system has 127.1.0.1 as well
	s := start(
		t,
		func(c *Config) { c.Addresses = []Address{loopback("127.0.0.1"), loopback("::1")} },
	)
	servers := []struct {
		name    string
		at      netip.AddrPort
		usual   func(ours string, method stun.Method) string
		special func(difference) string
	}{
		{
			"ours",
			netip.AddrPortFrom(s.addresses().listening[0], uint16(s.Port())),
			asWeDo,
			func(difference) string { return "" },
		},
		{"coturn", startCoturn(t), asCoturn, func(d difference) string { return d.coturn }},
		{"pion", startPion(t), asPion, func(d difference) string { return d.pion }},
	}
	for i, d := range differences() {
		for _, network := range transports {
			if d.over != "" && d.over != network {
				continue
			}
			t.Run(d.name+"/"+network, func(t *testing.T) {
				for _, server := range servers {
					// A source of its own, since we answer only so many strangers of one network.
					c := clientFrom(
						t,
						netip.AddrFrom4([4]byte{127, 1, byte(i), 1}),
						network,
						server.at,
					)
					c.user, c.pass = s.Credentials("t", fmt.Sprint("s", i))
					if d.before != nil {
						d.before(c)
					}
					m := d.ask(c)
					want := server.usual(d.ours, m.Type.Method)
					if special := server.special(d); special == want {
						t.Errorf("%s: %q is what it always does", server.name, want)
					} else if special != "" {
						want = special
					}
					got := describe(c, c.answerOrNothing(m, want == nothing))
					if !slices.Contains(strings.Split(want, " or "), got) {
						t.Errorf("%s answers %q, not %q", server.name, got, want)
					}
				}
			})
		}
		if (d.reason == "") != (d.coturn == "" && d.pion == "") {
			t.Errorf("%s: a difference has a reason, and a reason is for a difference", d.name)
		}
	}
}

// difference is one request, the answers to it, and the reason when they differ.
type difference struct {
	name   string
	over   string // one transport only; "" both
	before func(c *rawClient)
	ask    func(c *rawClient) *stun.Message

	// Answers as describe writes them. Theirs are empty when they differ from ours by what they
	// always do, or not at all.
	ours, coturn, pion string
	reason             string
}

func asWeDo(ours string, _ stun.Method) string { return ours }

// asCoturn: it offers no password algorithms, and signs neither 441 nor the 437 of Allocate.
func asCoturn(ours string, method stun.Method) string {
	want := drop(ours, "PASSWORD-ALGORITHMS")
	if strings.HasPrefix(want, "441") ||
		(strings.HasPrefix(want, "437") && method == stun.MethodAllocate) {
		want = drop(want, "MESSAGE-INTEGRITY")
	}
	return want
}

// asPion: it offers no password algorithms, signs no error but that of CreatePermission, and has
// FINGERPRINT in good answers to Binding and nowhere else, whatever the request had.
func asPion(ours string, method stun.Method) string {
	want := drop(drop(ours, "PASSWORD-ALGORITHMS"), "FINGERPRINT")
	good := strings.HasPrefix(want, "0")
	if !good && method != stun.MethodCreatePermission {
		want = drop(want, "MESSAGE-INTEGRITY")
	}
	if good && method == stun.MethodBinding {
		want = strings.Replace(want, "0", "0 FINGERPRINT", 1)
	}
	return want
}

func drop(answer, attribute string) string { return strings.Replace(answer, " "+attribute, "", 1) }

// clientFrom connects from an address.
func clientFrom(t testing.TB, from netip.Addr, network string, to netip.AddrPort) *rawClient {
	t.Helper()
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	if network == "tcp" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	conn, err := d.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(failSafe)); err != nil {
		t.Fatal(err)
	}
	return &rawClient{t: t, conn: conn, stream: network == "tcp"}
}

// another is a second client of the same host and session.
func (c *rawClient) another() *rawClient {
	network := c.conn.RemoteAddr().Network()
	other := clientFrom(
		c.t,
		addrPort(c.conn.LocalAddr()).Addr(),
		network,
		addrPort(c.conn.RemoteAddr()),
	)
	other.user, other.pass = c.user, c.pass
	return other
}

// answerOrNothing returns the answer to a message. With silent it does not wait: it asks for a
// Binding behind the message, and when that is answered first, there was nothing.
func (c *rawClient) answerOrNothing(m *stun.Message, silent bool) *stun.Message {
	c.t.Helper()
	c.send(m.Raw)
	probe := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
	if silent {
		c.send(probe.Raw)
	}
	for {
		raw, err := c.tryRead()
		if err != nil {
			return nil
		}
		answer := &stun.Message{Raw: raw}
		if err := answer.Decode(); err != nil {
			c.t.Fatalf("%x: %v", raw, err)
		}
		switch answer.TransactionID {
		case m.TransactionID:
			return answer
		case probe.TransactionID:
			return nil
		}
	}
}

const nothing = "nothing"

// describe writes an answer as its code (0 for success) and the names of its attributes in order,
// some with what is in them. A signature or fingerprint that is wrong is called so.
func describe(c *rawClient, m *stun.Message) string {
	if m == nil {
		return nothing
	}
	var list []string
	for _, a := range m.Attributes {
		text := a.Type.String()
		switch a.Type {
		case stun.AttrErrorCode:
			continue
		case stun.AttrLifetime:
			text += fmt.Sprint("=", binary.BigEndian.Uint32(a.Value))
		case stun.AttrUnknownAttributes:
			text += fmt.Sprintf("=%x", a.Value)
		case stun.AttrXORRelayedAddress:
			text += map[byte]string{1: "=IPv4", 2: "=IPv6"}[a.Value[1]]
		case stun.AttrMessageIntegrity:
			if stun.NewLongTermIntegrity(c.user, c.realm, c.pass).Check(m) != nil {
				text += "=wrong"
			}
		case stun.AttrMessageIntegritySHA256:
			if !slices.ContainsFunc(
				[]byte{algorithmMD5, algorithmSHA256},
				func(algorithm byte) bool {
					key := longTermKey(algorithm, c.user, c.realm, c.pass)
					return verifyMAC(m.Raw, uint16(a.Type), hmac.New(sha256.New, key), a.Value)
				},
			) {
				text += "=wrong"
			}
		case stun.AttrFingerprint:
			if stun.Fingerprint.Check(m) != nil {
				text += "=wrong"
			}
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return strings.Join(append([]string{fmt.Sprint(code(m))}, list...), " ")
}
