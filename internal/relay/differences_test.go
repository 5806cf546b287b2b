package relay

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/pion/stun/v4"
)

// The table of TestDifferential, and the words it is written in.

// unknownToKnow and unknownToIgnore are attributes that nobody has defined.
const (
	unknownToKnow   = stun.AttrType(0x7abc)
	unknownToIgnore = stun.AttrType(0xfabc)

	oneAt   = "127.0.0.2:9"
	otherAt = "127.0.0.3:9"

	unauthorized = "401 NONCE PASSWORD-ALGORITHMS REALM"
	stale        = "438 NONCE PASSWORD-ALGORITHMS REALM"
	mapped       = "0 XOR-MAPPED-ADDRESS"
	done         = "0 MESSAGE-INTEGRITY"
)

// signed is an error response to a client that has proved who it is.
func signed(code int) string { return fmt.Sprint(code, " MESSAGE-INTEGRITY") }

func refreshed(
	seconds int,
) string {
	return fmt.Sprintf("0 LIFETIME=%d MESSAGE-INTEGRITY", seconds)
}

func granted(seconds int, family string) string {
	return fmt.Sprintf(
		"0 LIFETIME=%d MESSAGE-INTEGRITY XOR-MAPPED-ADDRESS XOR-RELAYED-ADDRESS=%s",
		seconds,
		family,
	)
}

func paired(family string) string {
	return "0 LIFETIME=600 MESSAGE-INTEGRITY RESERVATION-TOKEN XOR-MAPPED-ADDRESS " +
		"XOR-RELAYED-ADDRESS=" + family
}

// step brings a client where a request begins.
type step = func(c *rawClient)

func then(steps ...step) step {
	return func(c *rawClient) {
		for _, s := range steps {
			s(c)
		}
	}
}

func challenged(c *rawClient)    { c.challenge() }
func allocated(c *rawClient)     { c.allocate() }
func allocatedIPv6(c *rawClient) { c.allocate(inFamily(2)) }

func bound(c *rawClient) {
	c.allocate()
	if got := c.bind(minChannel, netip.MustParseAddrPort(oneAt)); got != 0 {
		c.t.Fatalf("channel: %d", got)
	}
}

func ended(c *rawClient) {
	c.allocate()
	if got := c.refresh(0); got != 0 {
		c.t.Fatalf("refresh: %d", got)
	}
}

func wrongPassword(c *rawClient) { c.pass = "wrong" }
func garbageNonce(c *rawClient)  { c.nonce = "0123456789abcdef" }

// as changes the user, with the right password.
func as(change func(expiry, session string) string) step {
	return func(c *rawClient) {
		expiry, session, _ := strings.Cut(c.user, ":")
		c.user = change(expiry, session)
		c.pass = RESTPassword(secret, c.user)
	}
}

func otherSession(expiry, _ string) string      { return expiry + ":t.another" }
func freshCredentials(_, session string) string { return "4000000000:" + session }
func oldCredentials(_, session string) string   { return "1700000000:" + session }
func withoutSession(expiry, _ string) string    { return expiry }
func anonymous(_, _ string) string              { return "alice" }

// request builds a message.
type request = func(c *rawClient) *stun.Message

func of(method stun.Method, attrs ...stun.Setter) request {
	return func(c *rawClient) *stun.Message { return c.signed(method, attrs...) }
}

func allocate(attrs ...stun.Setter) request {
	return of(stun.MethodAllocate, append([]stun.Setter{transport(17)}, attrs...)...)
}

func permit(attrs ...stun.Setter) request { return of(stun.MethodCreatePermission, attrs...) }

func bindTo(number uint16, to string) request {
	return of(stun.MethodChannelBind, numbered(number), at(to))
}

// plain builds a message without credentials.
func plain(class stun.MessageClass, method stun.Method, attrs ...stun.Setter) request {
	return func(*rawClient) *stun.Message {
		return stun.MustBuild(
			append([]stun.Setter{stun.TransactionID, stun.NewType(method, class)}, attrs...)...)
	}
}

// without builds an Allocate request that lacks one attribute of a signed one.
func without(missing stun.AttrType) request {
	return func(c *rawClient) *stun.Message {
		m := stun.MustBuild(
			stun.TransactionID,
			stun.NewType(stun.MethodAllocate, stun.ClassRequest),
			transport(17),
		)
		for _, a := range []struct {
			stun.AttrType
			stun.Setter
		}{
			{stun.AttrUsername, stun.NewUsername(c.user)},
			{stun.AttrRealm, stun.NewRealm(c.realm)},
			{stun.AttrNonce, stun.NewNonce(c.nonce)},
			{stun.AttrMessageIntegrity, stun.NewLongTermIntegrity(c.user, c.realm, c.pass)},
		} {
			if a.AttrType == missing {
				continue
			}
			if err := a.AddTo(m); err != nil {
				c.t.Fatal(err)
			}
		}
		return m
	}
}

// signedSHA256 builds an Allocate request with MESSAGE-INTEGRITY-SHA256.
func signedSHA256(algorithm byte, attrs ...stun.Setter) request {
	return func(c *rawClient) *stun.Message {
		m := stun.MustBuild(
			append(
				[]stun.Setter{
					stun.TransactionID,
					stun.NewType(stun.MethodAllocate, stun.ClassRequest),
					transport(17),
					stun.NewUsername(
						c.user,
					),
					stun.NewRealm(c.realm),
					stun.NewNonce(c.nonce),
				},
				attrs...)...)
		key := longTermKey(algorithm, c.user, c.realm, c.pass)
		m.Add(
			stun.AttrMessageIntegritySHA256,
			macOver(m.Raw, hmac.New(sha256.New, key), sha256.Size),
		)
		return m
	}
}

// fingerprinted adds the FINGERPRINT behind the signature.
func fingerprinted(build request) request {
	return func(c *rawClient) *stun.Message {
		m := build(c)
		if err := stun.Fingerprint.AddTo(m); err != nil {
			c.t.Fatal(err)
		}
		return m
	}
}

// damaged changes a bit of a message: at counts from the end when it is negative.
func damaged(build request, at int) request {
	return func(c *rawClient) *stun.Message {
		m := build(c)
		m.Raw[(at+len(m.Raw))%len(m.Raw)] ^= 1
		return m
	}
}

// repeated sends a request that succeeds, and gives it again.
func repeated(build request) request {
	return func(c *rawClient) *stun.Message {
		m := build(c)
		c.send(m.Raw)
		if got := code(c.answerTo(m)); got != 0 {
			c.t.Fatalf("code %d", got)
		}
		return m
	}
}

// withToken builds an Allocate request with the token that another client got, after so many others
// have used it.
func withToken(owner step, uses int, attrs ...stun.Setter) request {
	return func(c *rawClient) *stun.Message {
		first := c.another()
		owner(first)
		first.challenge()
		answer := first.ask(stun.MethodAllocate, transport(17), evenPort())
		reserved, err := answer.Get(stun.AttrReservationToken)
		if err != nil {
			c.t.Fatalf("nothing is reserved: %v", answer)
		}
		for range uses {
			c.another().allocate(token(reserved))
		}
		return c.signed(
			stun.MethodAllocate,
			append([]stun.Setter{transport(17), token(reserved)}, attrs...)...)
	}
}

func itself(*rawClient) {}

func attr(t stun.AttrType, value ...byte) stun.Setter {
	return stun.RawAttribute{Type: t, Value: value}
}

func at(to string) stun.Setter { return peer(netip.MustParseAddrPort(to)) }

func numbered(channel uint16) stun.Setter {
	return attr(stun.AttrChannelNumber, binary.BigEndian.AppendUint32(nil, uint32(channel)<<16)...)
}

func algorithms(list ...byte) stun.Setter { return attr(stun.AttrPasswordAlgorithms, list...) }

func algorithm(a byte) stun.Setter { return attr(stun.AttrPasswordAlgorithm, 0, a, 0, 0) }

// differences is the table: at most 256 rows, see the clients' addresses.
func differences() []difference {
	offered := algorithms(passwordAlgorithms...)
	ipv4, ipv6 := granted(600, "IPv4"), granted(600, "IPv6")
	dontFragment := difference{
		name:   "Allocate with DONT-FRAGMENT",
		before: challenged,
		ask:    allocate(attr(stun.AttrDontFragment)),
		ours:   ipv4,
		pion:   "420 UNKNOWN-ATTRIBUTES=001a",
		reason: "who cannot honour it does not know it (RFC 8656 section 7.2)",
	}
	if plainDriver {
		dontFragment.ours = "420 MESSAGE-INTEGRITY UNKNOWN-ATTRIBUTES=001a"
		dontFragment.coturn, dontFragment.pion = ipv4, ""
	}
	return []difference{
		{name: "Binding", ask: of(stun.MethodBinding), ours: mapped},
		{
			name: "Binding with FINGERPRINT",
			ask:  of(stun.MethodBinding, stun.Fingerprint),
			ours: "0 FINGERPRINT XOR-MAPPED-ADDRESS",
		},
		{
			name:   "Binding with credentials",
			before: challenged,
			ask:    of(stun.MethodBinding),
			ours:   mapped,
		},
		{
			name:   "Binding with a wrong FINGERPRINT",
			ask:    damaged(of(stun.MethodBinding, stun.Fingerprint), -1),
			ours:   nothing,
			pion:   "0 FINGERPRINT XOR-MAPPED-ADDRESS",
			reason: "a wrong one makes it no STUN (RFC 8489 section 7)",
		},
		{
			name: "Binding with an attribute to know",
			ask:  of(stun.MethodBinding, attr(unknownToKnow)),
			ours: "420 UNKNOWN-ATTRIBUTES=7abc",
		},
		{
			name: "Binding with an attribute to ignore",
			ask:  of(stun.MethodBinding, attr(unknownToIgnore)),
			ours: mapped,
		},
		{
			name: "Binding of an ICE agent",
			ask: of(
				stun.MethodBinding,
				attr(stun.AttrPriority, 1, 2, 3, 4),
				attr(stun.AttrUseCandidate),
			),
			ours:   mapped,
			coturn: "420 UNKNOWN-ATTRIBUTES=0025",
			reason: "a check may reach the server by mistake, and both attributes are defined " +
				"(RFC 8445 section 16.1)",
		},
		{
			name:   "Binding with CHANGE-REQUEST",
			ask:    of(stun.MethodBinding, attr(0x0003, 0, 0, 0, 6)),
			ours:   "420 UNKNOWN-ATTRIBUTES=0003",
			coturn: "420",
			reason: "coturn's list is empty: it knows the attribute and has no second address " +
				"(RFC 5780 section 6.1)",
		},
		{
			name: "Binding indication",
			ask:  plain(stun.ClassIndication, stun.MethodBinding),
			ours: nothing,
		},
		{
			name: "Binding answer",
			ask:  plain(stun.ClassSuccessResponse, stun.MethodBinding),
			ours: nothing,
		},
		{name: "unknown method", ask: plain(stun.ClassRequest, 0x00f), ours: nothing,
			coturn: "401 NONCE REALM", reason: "a method that is not supported is dropped (RFC " +
				"8489 section 6.3)"},
		{name: "unknown method, signed", before: challenged, ask: of(0x00f), ours: nothing,
			coturn: signed(
				400,
			), reason: "a method that is not supported is dropped (RFC 8489 section 6.3)"},

		// Credentials
		{name: "Allocate unsigned", ask: allocate(), ours: unauthorized},
		{
			name: "Allocate unsigned, without transport",
			ask:  of(stun.MethodAllocate),
			ours: unauthorized,
		},
		{
			name: "Allocate unsigned, with FINGERPRINT",
			ask:  allocate(stun.Fingerprint),
			ours: "401 FINGERPRINT NONCE PASSWORD-ALGORITHMS REALM",
		},
		{
			name:   "Allocate unsigned, with an attribute to know",
			ask:    allocate(attr(unknownToKnow)),
			ours:   unauthorized,
			pion:   "420 UNKNOWN-ATTRIBUTES=7abc",
			reason: "attributes are looked at after the credentials (RFC 8489 section 6.3)",
		},
		{name: "Refresh unsigned", ask: of(stun.MethodRefresh), ours: unauthorized},
		{name: "CreatePermission unsigned", ask: permit(at(oneAt)), ours: unauthorized},
		{name: "ChannelBind unsigned", ask: bindTo(0x4000, oneAt), ours: unauthorized},
		{name: "no USERNAME", before: challenged, ask: without(stun.AttrUsername), ours: "400"},
		{name: "no REALM", before: challenged, ask: without(stun.AttrRealm), ours: "400"},
		{name: "no NONCE", before: challenged, ask: without(stun.AttrNonce), ours: "400"},
		{
			name:   "no MESSAGE-INTEGRITY",
			before: challenged,
			ask:    without(stun.AttrMessageIntegrity),
			ours:   unauthorized,
		},
		{
			name:   "wrong MESSAGE-INTEGRITY",
			before: challenged,
			ask:    damaged(allocate(), -1),
			ours:   unauthorized,
			pion:   "400",
			reason: "what is wrong about it is the password (RFC 8489 section 9.2.4)",
		},
		{
			name:   "changed on the way",
			before: challenged,
			ask:    damaged(allocate(), stunHeader+4+3),
			ours:   unauthorized,
			pion:   "400",
			reason: "the signature is wrong (RFC 8489 section 9.2.4)",
		},
		{
			name:   "wrong password",
			before: then(challenged, wrongPassword),
			ask:    allocate(),
			ours:   unauthorized,
			pion:   "400",
			reason: "a client that is told 400 does not ask for a password (RFC 8489 section " +
				"9.2.4)",
		},
		{
			name:   "unknown user",
			before: then(challenged, as(anonymous)),
			ask:    allocate(),
			ours:   unauthorized,
			pion:   "400",
			reason: "a user that is not valid gets 401 (RFC 8489 section 9.2.4)",
		},
		{
			name:   "expired user",
			before: then(challenged, as(oldCredentials)),
			ask:    allocate(),
			ours:   unauthorized,
			pion:   "400",
			reason: "a user that is not valid any more gets 401 (RFC 8489 section 9.2.4)",
		},
		{
			name:   "user without session",
			before: then(challenged, as(withoutSession)),
			ask:    allocate(),
			ours:   unauthorized,
			coturn: ipv4,
			pion:   ipv4,
			reason: "the form expiry:tenant.session is ours; they take any name behind the expiry",
		},
		{
			name:   "wrong realm",
			before: then(challenged, func(c *rawClient) { c.realm = "elsewhere" }),
			ask:    allocate(),
			ours:   unauthorized,
			coturn: "437",
			pion:   ipv4,
			reason: "a user is valid in a realm (RFC 8489 section 9.2.4); pion believes the " +
				"client's realm",
		},
		{
			name:   "garbage for a nonce",
			before: then(challenged, garbageNonce),
			ask:    allocate(),
			ours:   stale,
		},
		{
			name:   "garbage for a nonce, and wrong password",
			before: then(challenged, garbageNonce, wrongPassword),
			ask:    allocate(),
			ours:   stale,
		},
		{name: "another client's nonce", before: then(challenged, func(c *rawClient) {
			other := c.another()
			other.challenge()
			c.nonce = other.nonce
		}), ask: allocate(), ours: stale, pion: ipv4, reason: "a nonce may be bound to the " +
			"client's address (RFC 8489 section 9.2); pion's is not"},
		{
			name:   "SHA-256",
			before: challenged,
			ask:    signedSHA256(algorithmSHA256, offered, algorithm(algorithmSHA256)),
			ours: "0 LIFETIME=600 MESSAGE-INTEGRITY-SHA256 XOR-MAPPED-ADDRESS " +
				"XOR-RELAYED-ADDRESS=IPv4",
			coturn: "401 NONCE REALM",
			pion:   "401 NONCE REALM",
			reason: "they do not know RFC 8489 section 14.6",
		},
		{
			name:   "SHA-256 for the signature only",
			before: challenged,
			ask:    signedSHA256(algorithmMD5),
			ours: "0 LIFETIME=600 MESSAGE-INTEGRITY-SHA256 XOR-MAPPED-ADDRESS " +
				"XOR-RELAYED-ADDRESS=IPv4",
			coturn: "401 NONCE REALM",
			pion:   "401 NONCE REALM",
			reason: "they do not know RFC 8489 section 14.6",
		},
		{
			name:   "MD5 named",
			before: challenged,
			ask:    allocate(offered, algorithm(algorithmMD5)),
			ours:   ipv4,
			coturn: "420 MESSAGE-INTEGRITY UNKNOWN-ATTRIBUTES=001d",
			reason: "coturn does not know RFC 8489 section 14.12",
		},
		{
			name:   "algorithm without the list",
			before: challenged,
			ask:    allocate(algorithm(algorithmMD5)),
			ours:   "400",
			coturn: "420 MESSAGE-INTEGRITY UNKNOWN-ATTRIBUTES=001d",
			pion:   ipv4,
			reason: "both or neither (RFC 8489 section 9.2.4)",
		},
		{
			name:   "list without the algorithm",
			before: challenged,
			ask:    allocate(offered),
			ours:   "400",
			coturn: ipv4,
			pion:   ipv4,
			reason: "both or neither (RFC 8489 section 9.2.4)",
		},
		{
			name:   "list that was made worse",
			before: challenged,
			ask:    allocate(algorithms(0, algorithmMD5, 0, 0), algorithm(algorithmMD5)),
			ours:   "400",
			coturn: "420 MESSAGE-INTEGRITY UNKNOWN-ATTRIBUTES=001d",
			pion:   ipv4,
			reason: "bid-down protection (RFC 8489 section 9.2.4)",
		},
		{
			name:   "algorithm that was not offered",
			before: challenged,
			ask:    allocate(offered, algorithm(3)),
			ours:   "400",
			coturn: "420 MESSAGE-INTEGRITY UNKNOWN-ATTRIBUTES=001d",
			pion:   ipv4,
			reason: "it must be one of the list (RFC 8489 section 9.2.4)",
		},

		// Allocate
		{name: "Allocate", before: challenged, ask: allocate(), ours: ipv4},
		{name: "Allocate with FINGERPRINT", before: challenged, ask: fingerprinted(allocate()),
			ours: "0 FINGERPRINT LIFETIME=600 MESSAGE-INTEGRITY XOR-MAPPED-ADDRESS " +
				"XOR-RELAYED-ADDRESS=IPv4"},
		{name: "Allocate for 0 s", before: challenged, ask: allocate(life(0)), ours: ipv4,
			pion: "508", reason: "less than the default is the default (RFC 8656 section 7.2)"},
		{name: "Allocate for 60 s", before: challenged, ask: allocate(life(60)), ours: ipv4,
			pion: granted(
				60,
				"IPv4",
			), reason: "less than the default is the default (RFC 8656 section 7.2)"},
		{
			name:   "Allocate for 1200 s",
			before: challenged,
			ask:    allocate(life(1200)),
			ours:   granted(1200, "IPv4"),
		},
		{
			name:   "Allocate for 7200 s",
			before: challenged,
			ask:    allocate(life(7200)),
			ours:   granted(3600, "IPv4"),
			pion:   ipv4,
			reason: "what is too much is cut to the maximum, not to the default (RFC 8656 " +
				"section 7.2)",
		},
		{
			name:   "Allocate without transport",
			before: challenged,
			ask:    of(stun.MethodAllocate),
			ours:   signed(400),
		},
		{
			name:   "Allocate with a short transport",
			before: challenged,
			ask:    of(stun.MethodAllocate, attr(stun.AttrRequestedTransport, 17)),
			ours:   signed(400),
		},
		{
			name:   "Allocate TCP, by UDP",
			over:   "udp",
			before: challenged,
			ask:    of(stun.MethodAllocate, transport(6)),
			ours:   signed(442),
			coturn: signed(
				400,
			),
			pion:   "508",
			reason: "only UDP is relayed (RFC 8656 section 7.2); they know RFC 6062",
		},
		{
			name:   "Allocate TCP, by TCP",
			over:   "tcp",
			before: challenged,
			ask:    of(stun.MethodAllocate, transport(6)),
			ours:   signed(442),
			coturn: ipv4,
			pion:   "508",
			reason: "only UDP is relayed (RFC 8656 section 7.2); they know RFC 6062",
		},
		{
			name:   "Allocate ICMP",
			before: challenged,
			ask:    of(stun.MethodAllocate, transport(1)),
			ours:   signed(442),
			coturn: signed(
				400,
			),
			reason: "a transport that is not supported is 442 (RFC 8656 section 7.2)",
		},
		{
			name:   "Allocate with an attribute to know",
			before: challenged,
			ask:    allocate(attr(unknownToKnow)),
			ours:   "420 MESSAGE-INTEGRITY UNKNOWN-ATTRIBUTES=7abc",
		},
		{
			name:   "Allocate with an attribute to ignore",
			before: challenged,
			ask:    allocate(attr(unknownToIgnore)),
			ours:   ipv4,
		},
		dontFragment,
		{
			name:   "Allocate an even port",
			before: challenged,
			ask:    allocate(attr(stun.AttrEvenPort, 0)),
			ours:   ipv4,
			pion: paired(
				"IPv4",
			),
			reason: "a port is reserved when the R bit asks for it (RFC 8656 section 7.2)",
		},
		{
			name:   "Allocate a pair",
			before: challenged,
			ask:    allocate(evenPort()),
			ours:   paired("IPv4"),
		},
		{
			name:   "Allocate an IPv6 pair",
			before: challenged,
			ask:    allocate(inFamily(2), evenPort()),
			ours:   paired("IPv6"),
		},
		{
			name:   "Allocate with an empty EVEN-PORT",
			before: challenged,
			ask:    allocate(attr(stun.AttrEvenPort)),
			ours:   signed(400),
			coturn: ipv4,
			pion:   ipv4,
			reason: "it has one byte (RFC 8656 section 18.7); they take it as absent",
		},
		{name: "Allocate by token", before: challenged, ask: withToken(itself, 0), ours: ipv4},
		{
			name:   "Allocate by an unknown token",
			before: challenged,
			ask:    allocate(token([]byte("unknown!"))),
			ours:   signed(508),
			coturn: signed(404),
			reason: "a token that is not valid is 508 (RFC 8656 section 7.2)",
		},
		{
			name:   "Allocate by a token of zeros",
			before: challenged,
			ask:    allocate(token(make([]byte, tokenLength))),
			ours:   signed(508),
			coturn: ipv4,
			reason: "a token that is not valid is 508 (RFC 8656 section 7.2); coturn takes zero " +
				"as none",
		},
		{
			name:   "Allocate by a used token",
			before: challenged,
			ask:    withToken(itself, 1),
			ours:   signed(508),
			coturn: signed(404),
			reason: "a token that is not valid is 508 (RFC 8656 section 7.2)",
		},
		{
			name:   "Allocate by another session's token",
			before: challenged,
			ask:    withToken(as(otherSession), 0),
			ours:   signed(508),
			coturn: ipv4,
			pion:   ipv4,
			reason: "ours is for the session that reserved",
		},
		{
			name:   "Allocate by a short token",
			before: challenged,
			ask:    allocate(token(make([]byte, 4))),
			ours:   signed(400),
			pion:   ipv4,
			reason: "it has eight bytes (RFC 8656 section 18.9); pion takes it as absent",
		},
		{
			name:   "Allocate by token and an even port",
			before: challenged,
			ask:    withToken(itself, 0, evenPort()),
			ours:   signed(400),
		},
		{
			name:   "Allocate by token and family",
			before: challenged,
			ask:    withToken(itself, 0, inFamily(1)),
			ours:   signed(400),
		},
		{
			name:   "Allocate by token and another family",
			before: challenged,
			ask:    withToken(itself, 0, additionally(2)),
			ours:   signed(400),
			coturn: ipv4,
			pion:   ipv4,
			reason: "a token is for one address (RFC 8656 section 7.2); they do not know the " +
				"attribute",
		},
		{name: "Allocate IPv4", before: challenged, ask: allocate(inFamily(1)), ours: ipv4},
		{name: "Allocate IPv6", before: challenged, ask: allocate(inFamily(2)), ours: ipv6},
		{
			name:   "Allocate family 0",
			before: challenged,
			ask:    allocate(inFamily(0)),
			ours:   signed(440),
		},
		{
			name:   "Allocate family 3",
			before: challenged,
			ask:    allocate(inFamily(3)),
			ours:   signed(440),
		},
		{
			name:   "Allocate a short family",
			before: challenged,
			ask:    allocate(attr(stun.AttrRequestedAddressFamily, 1)),
			ours:   signed(400),
			coturn: signed(440),
			reason: "it is malformed, no family",
		},
		{name: "Allocate both", before: challenged, ask: allocate(additionally(2)),
			ours: "0 LIFETIME=600 MESSAGE-INTEGRITY XOR-MAPPED-ADDRESS " +
				"XOR-RELAYED-ADDRESS=IPv4 XOR-RELAYED-ADDRESS=IPv6",
			coturn: ipv4, pion: ipv4, reason: "they do not know ADDITIONAL-ADDRESS-FAMILY (RFC " +
				"8656 section 18.11)"},
		{
			name:   "Allocate even ports of both",
			before: challenged,
			ask:    allocate(attr(stun.AttrEvenPort, 0), additionally(2)),
			ours: "0 LIFETIME=600 MESSAGE-INTEGRITY XOR-MAPPED-ADDRESS " +
				"XOR-RELAYED-ADDRESS=IPv4 XOR-RELAYED-ADDRESS=IPv6",
			coturn: ipv4,
			pion:   paired("IPv4"),
			reason: "they do not know ADDITIONAL-ADDRESS-FAMILY (RFC 8656 section 18.11)",
		},
		{
			name:   "Allocate pairs of both",
			before: challenged,
			ask:    allocate(evenPort(), additionally(2)),
			ours:   signed(400),
			coturn: paired(
				"IPv4",
			),
			pion:   paired("IPv4"),
			reason: "one token cannot stand for two ports (RFC 8656 section 7.2)",
		},
		{
			name:   "Allocate IPv4 in addition",
			before: challenged,
			ask:    allocate(additionally(1)),
			ours:   signed(400),
			coturn: ipv4,
			pion:   ipv4,
			reason: "only IPv6 is in addition (RFC 8656 section 7.2)",
		},
		{
			name:   "Allocate a family and both",
			before: challenged,
			ask:    allocate(inFamily(1), additionally(2)),
			ours:   signed(400),
			coturn: ipv4,
			pion:   ipv4,
			reason: "one or the other (RFC 8656 section 7.2)",
		},
		{name: "Allocate repeated", before: challenged, ask: repeated(allocate()), ours: ipv4},
		{name: "Allocate again", before: allocated, ask: allocate(), ours: signed(437)},
		{
			name:   "Allocate again, without transport",
			before: allocated,
			ask:    of(stun.MethodAllocate),
			ours:   signed(437),
		},
		{
			name:   "Allocate again as another",
			before: then(allocated, as(otherSession)),
			ask:    allocate(),
			ours:   signed(437),
		},
		{name: "Allocate after the end", before: ended, ask: allocate(), ours: ipv4,
			coturn: "437 or " +
				ipv4, reason: "coturn ends an allocation some time after it has said so (RFC " +
				"8656 section 8.2)"},

		// Refresh
		{
			name:   "Refresh without allocation",
			before: challenged,
			ask:    of(stun.MethodRefresh),
			ours:   signed(437),
			pion:   nothing,
			reason: "no allocation is 437 (RFC 8656 section 5)",
		},
		{
			name:   "Refresh without allocation as another",
			before: then(challenged, as(otherSession)),
			ask:    of(stun.MethodRefresh),
			ours:   signed(437),
			pion:   nothing,
			reason: "no allocation is 437 (RFC 8656 section 5)",
		},
		{name: "Refresh", before: allocated, ask: of(stun.MethodRefresh), ours: refreshed(600)},
		{
			name:   "Refresh with FINGERPRINT",
			before: allocated,
			ask:    fingerprinted(of(stun.MethodRefresh)),
			ours:   "0 FINGERPRINT LIFETIME=600 MESSAGE-INTEGRITY",
		},
		{
			name:   "Refresh for 0 s",
			before: allocated,
			ask:    of(stun.MethodRefresh, life(0)),
			ours:   refreshed(0),
		},
		{
			name:   "Refresh for 30 s",
			before: allocated,
			ask:    of(stun.MethodRefresh, life(30)),
			ours:   refreshed(600),
			pion: refreshed(
				30,
			),
			reason: "less than the default is the default (RFC 8656 section 8.2)",
		},
		{
			name:   "Refresh for 1200 s",
			before: allocated,
			ask:    of(stun.MethodRefresh, life(1200)),
			ours:   refreshed(1200),
		},
		{
			name:   "Refresh for 7200 s",
			before: allocated,
			ask:    of(stun.MethodRefresh, life(7200)),
			ours:   refreshed(3600),
			pion: refreshed(
				600,
			),
			reason: "what is too much is cut to the maximum, not to the default (RFC 8656 " +
				"section 8.2)",
		},
		{
			name:   "Refresh after the end",
			before: ended,
			ask:    of(stun.MethodRefresh),
			ours:   signed(437),
			coturn: refreshed(
				600,
			) + " or " + signed(
				437,
			),
			pion: nothing,
			reason: "coturn ends an allocation some time after it has said so (RFC 8656 section " +
				"8.2)",
		},
		{
			name:   "Refresh as another",
			before: then(allocated, as(otherSession)),
			ask:    of(stun.MethodRefresh),
			ours:   signed(441),
			pion:   nothing,
			reason: "the credentials are good, and not those of the allocation (RFC 8656 section " +
				"5)",
		},
		{
			name:   "Refresh with fresh credentials",
			before: then(allocated, as(freshCredentials)),
			ask:    of(stun.MethodRefresh, life(0)),
			ours:   refreshed(0),
			coturn: "441",
			reason: "the session is the same, and the user name only the time of its " +
				"credentials; coturn compares the names (RFC 8656 section 5)",
		},
		{
			name:   "Refresh with a wrong password",
			before: then(allocated, wrongPassword),
			ask:    of(stun.MethodRefresh),
			ours:   unauthorized,
			pion:   "400",
			reason: "a client that is told 400 does not ask for a password (RFC 8489 section " +
				"9.2.4)",
		},
		{
			name:   "Refresh with garbage for a nonce",
			before: then(allocated, garbageNonce),
			ask:    of(stun.MethodRefresh),
			ours:   stale,
		},
		{
			name:   "Refresh with its family",
			before: allocated,
			ask:    of(stun.MethodRefresh, inFamily(1)),
			ours:   refreshed(600),
		},
		{
			name:   "Refresh with another family",
			before: allocated,
			ask:    of(stun.MethodRefresh, inFamily(2)),
			ours:   signed(443),
		},
		{
			name:   "Refresh with family 3",
			before: allocated,
			ask:    of(stun.MethodRefresh, inFamily(3)),
			ours:   signed(443),
		},
		{
			name:   "Refresh with an attribute to know",
			before: allocated,
			ask:    of(stun.MethodRefresh, attr(unknownToKnow)),
			ours:   "420 MESSAGE-INTEGRITY UNKNOWN-ATTRIBUTES=7abc",
		},

		// CreatePermission
		{
			name:   "CreatePermission without allocation",
			before: challenged,
			ask:    permit(at(oneAt)),
			ours:   signed(437),
			coturn: signed(
				400,
			),
			pion:   nothing,
			reason: "no allocation is 437 (RFC 8656 section 5)",
		},
		{name: "CreatePermission", before: allocated, ask: permit(at(oneAt)), ours: done},
		{
			name:   "CreatePermission for a peer at port 0",
			before: allocated,
			ask:    permit(at("127.0.0.2:0")),
			ours:   done,
		},
		{
			name:   "CreatePermission for several",
			before: allocated,
			ask:    permit(at(oneAt), at(otherAt), at(oneAt)),
			ours:   done,
		},
		{name: "CreatePermission for nobody", before: allocated, ask: permit(), ours: signed(400)},
		{
			name:   "CreatePermission for IPv6",
			before: allocated,
			ask:    permit(at("[::1]:9")),
			ours:   signed(443),
		},
		{
			name:   "CreatePermission for IPv4, of an IPv6 relay",
			before: allocatedIPv6,
			ask:    permit(at(oneAt)),
			ours:   signed(443),
		},
		{
			name:   "CreatePermission for one of IPv6",
			before: allocated,
			ask:    permit(at(oneAt), at("[::1]:9")),
			ours:   signed(443),
		},
		{
			name:   "CreatePermission for a mapped address",
			before: allocated,
			ask:    permit(at("[::ffff:127.0.0.2]:9")),
			ours:   signed(443),
			pion:   done,
			reason: "it is written as IPv6 (RFC 8656 section 10.2)",
		},
		{
			name:   "CreatePermission for a mapped address, of an IPv6 relay",
			before: allocatedIPv6,
			ask:    permit(at("[::ffff:127.0.0.2]:9")),
			ours:   signed(443),
			coturn: done,
			reason: "it is an IPv4 address, and no IPv6 relay reaches it",
		},
		{
			name:   "CreatePermission for a short address",
			before: allocated,
			ask:    permit(attr(stun.AttrXORPeerAddress, 0, 1, 2, 3)),
			ours:   signed(400),
			coturn: done,
			reason: "it is malformed (RFC 8656 section 10.2)",
		},
		{
			name:   "CreatePermission for an unknown family",
			before: allocated,
			ask:    permit(attr(stun.AttrXORPeerAddress, 0, 3, 2, 3, 1, 2, 3, 4)),
			ours:   signed(400),
			coturn: done,
			reason: "it is malformed (RFC 8656 section 10.2)",
		},
		{
			name:   "CreatePermission with one malformed",
			before: allocated,
			ask:    permit(at(oneAt), attr(stun.AttrXORPeerAddress, 0, 1, 2, 3)),
			ours:   signed(400),
			coturn: done,
			reason: "all or none (RFC 8656 section 10.2)",
		},
		{
			name:   "CreatePermission for multicast",
			before: allocated,
			ask:    permit(at("224.0.0.1:9")),
			ours:   signed(403),
		},
		{
			name:   "CreatePermission with one of multicast",
			before: allocated,
			ask:    permit(at(oneAt), at("224.0.0.1:9")),
			ours:   signed(403),
		},
		{
			name:   "CreatePermission as another",
			before: then(allocated, as(otherSession)),
			ask:    permit(at(oneAt)),
			ours:   signed(441),
			pion:   nothing,
			reason: "the credentials are good, and not those of the allocation (RFC 8656 section " +
				"5)",
		},

		// ChannelBind
		{
			name:   "ChannelBind without allocation",
			before: challenged,
			ask:    bindTo(0x4000, oneAt),
			ours:   signed(437),
			coturn: signed(
				400,
			),
			pion:   nothing,
			reason: "no allocation is 437 (RFC 8656 section 5)",
		},
		{
			name:   "ChannelBind of the first number",
			before: allocated,
			ask:    bindTo(0x4000, oneAt),
			ours:   done,
		},
		{
			name:   "ChannelBind of the last number of RFC 8656",
			before: allocated,
			ask:    bindTo(0x4fff, oneAt),
			ours:   done,
		},
		{
			name:   "ChannelBind of the first number of RFC 5766 alone",
			before: allocated,
			ask:    bindTo(0x5000, oneAt),
			ours:   done,
		},
		{
			name:   "ChannelBind of the last number of RFC 5766",
			before: allocated,
			ask:    bindTo(0x7ffe, oneAt),
			ours:   done,
		},
		{
			name:   "ChannelBind below",
			before: allocated,
			ask:    bindTo(0x3fff, oneAt),
			ours:   signed(400),
			pion:   done,
			reason: "numbers begin at 0x4000 (RFC 8656 section 12)",
		},
		{
			name:   "ChannelBind above",
			before: allocated,
			ask:    bindTo(0x7fff, oneAt),
			ours:   signed(400),
			coturn: done,
			pion:   done,
			reason: "numbers ended at 0x7ffe (RFC 5766 section 11.2)",
		},
		{
			name:   "ChannelBind far above",
			before: allocated,
			ask:    bindTo(0x8000, oneAt),
			ours:   signed(400),
			pion:   done,
			reason: "numbers ended at 0x7ffe (RFC 5766 section 11.2)",
		},
		{
			name:   "ChannelBind without number",
			before: allocated,
			ask:    of(stun.MethodChannelBind, at(oneAt)),
			ours:   signed(400),
		},
		{
			name:   "ChannelBind of a short number",
			before: allocated,
			ask:    of(stun.MethodChannelBind, attr(stun.AttrChannelNumber, 0x40, 0), at(oneAt)),
			ours:   signed(400),
			coturn: done,
			reason: "it has four bytes (RFC 8656 section 18.1)",
		},
		{
			name:   "ChannelBind to nobody",
			before: allocated,
			ask:    of(stun.MethodChannelBind, numbered(0x4000)),
			ours:   signed(400),
		},
		{
			name:   "ChannelBind to a short address",
			before: allocated,
			ask: of(
				stun.MethodChannelBind,
				numbered(0x4000),
				attr(stun.AttrXORPeerAddress, 0, 1, 2, 3),
			),
			ours: signed(400),
		},
		{
			name:   "ChannelBind to port 0",
			before: allocated,
			ask:    bindTo(0x4000, "127.0.0.2:0"),
			ours:   signed(400),
			pion:   done,
			reason: "no rule is against it (RFC 8656 section 12.2), but nothing can be sent there",
		},
		{
			name:   "ChannelBind to two",
			before: allocated,
			ask:    of(stun.MethodChannelBind, numbered(0x4000), at(oneAt), at(otherAt)),
			ours:   done,
		},
		{name: "ChannelBind again", before: bound, ask: bindTo(0x4000, oneAt), ours: done},
		{
			name:   "ChannelBind to another peer",
			before: bound,
			ask:    bindTo(0x4000, otherAt),
			ours:   signed(400),
		},
		{
			name:   "ChannelBind to another port",
			before: bound,
			ask:    bindTo(0x4000, "127.0.0.2:10"),
			ours:   signed(400),
		},
		{
			name:   "ChannelBind of another number",
			before: bound,
			ask:    bindTo(0x4001, oneAt),
			ours:   signed(400),
		},
		{
			name:   "ChannelBind of another number to another port",
			before: bound,
			ask:    bindTo(0x4001, "127.0.0.2:10"),
			ours:   done,
		},
		{
			name:   "ChannelBind to IPv6",
			before: allocated,
			ask:    bindTo(0x4000, "[::1]:9"),
			ours:   signed(443),
		},
		{
			name:   "ChannelBind to a mapped address",
			before: allocated,
			ask:    bindTo(0x4000, "[::ffff:127.0.0.2]:9"),
			ours:   signed(443),
			pion:   done,
			reason: "it is written as IPv6 (RFC 8656 section 12.2)",
		},
		{
			name:   "ChannelBind to multicast",
			before: allocated,
			ask:    bindTo(0x4000, "224.0.0.1:9"),
			ours:   signed(403),
			pion:   "401",
			reason: "a peer that is not allowed is 403 (RFC 8656 section 12.2)",
		},
		{
			name:   "ChannelBind as another",
			before: then(allocated, as(otherSession)),
			ask:    bindTo(0x4000, oneAt),
			ours:   signed(441),
			pion:   nothing,
			reason: "the credentials are good, and not those of the allocation (RFC 8656 section " +
				"5)",
		},

		// What is no request, or none of ours
		{name: "Connect unsigned", ask: of(stun.MethodConnect, at(oneAt)), ours: nothing,
			coturn: "401 NONCE REALM", pion: "401 NONCE REALM", reason: "we do not know RFC " +
				"6062, and drop it as any unknown method (RFC 8489 section 6.3)"},
		{name: "Connect", before: allocated, ask: of(stun.MethodConnect, at(oneAt)), ours: nothing,
			coturn: signed(
				403,
			), pion: "447", reason: "we do not know RFC 6062, and drop it as any unknown method " +
				"(RFC 8489 section 6.3)"},
		{
			name:   "Allocate as an indication",
			before: challenged,
			ask:    plain(stun.ClassIndication, stun.MethodAllocate, transport(17)),
			ours:   nothing,
		},
		{
			name:   "Allocate as an answer",
			before: challenged,
			ask:    plain(stun.ClassSuccessResponse, stun.MethodAllocate, transport(17)),
			ours:   nothing,
		},
		{
			name:   "Refresh as an indication",
			before: allocated,
			ask:    plain(stun.ClassIndication, stun.MethodRefresh, life(0)),
			ours:   nothing,
		},
		{
			name:   "Send without allocation",
			before: challenged,
			ask:    plain(stun.ClassIndication, stun.MethodSend, at(oneAt), attr(stun.AttrData, 1)),
			ours:   nothing,
		},
		{
			name:   "Send without permission",
			before: allocated,
			ask:    plain(stun.ClassIndication, stun.MethodSend, at(oneAt), attr(stun.AttrData, 1)),
			ours:   nothing,
		},
		{
			name:   "Send without data",
			before: bound,
			ask:    plain(stun.ClassIndication, stun.MethodSend, at(oneAt)),
			ours:   nothing,
		},
		{
			name:   "Send to nobody",
			before: bound,
			ask:    plain(stun.ClassIndication, stun.MethodSend, attr(stun.AttrData, 1)),
			ours:   nothing,
		},
		{
			name:   "Send as a request",
			before: allocated,
			ask:    of(stun.MethodSend, at(oneAt), attr(stun.AttrData, 1)),
			ours:   nothing,
			coturn: signed(
				400,
			),
			reason: "Send is an indication only (RFC 8656 section 17), and any other an unknown " +
				"method (RFC 8489 section 6.3)",
		},
		{
			name:   "Data from a client",
			before: allocated,
			ask:    plain(stun.ClassIndication, stun.MethodData, at(oneAt), attr(stun.AttrData, 1)),
			ours:   nothing,
		},
	}
}
