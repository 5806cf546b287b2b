package config

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/transport"
)

const secretOfTwo = "a secret that two machines have"

func TestLimitsThatAdmitNobodyAreErrors(t *testing.T) {
	c := Server{
		Dev: true,
		TrustedProxies: []string{
			"0.0.0.0/0", "::/0", "proxy.example", "::ffff:10.0.0.1", "fe80::1%eth0",
		},
		Limits: LimitSettings{
			Unregistered:          new(0),
			Connections:           new(-2),
			FailedLogins:          new(0),
			Takeovers:             new(-3),
			RoomsPerUser:          new(0),
			SessionsPerAddress:    new(0),
			RoomsPerAddress:       new(-2),
			Candidates:            new(0),
			Joins:                 new(0),
			FailedJoins:           new(0),
			FailedJoinsPerAddress: new(0),
			QueuedBytes:           new(0),
		},
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"--max-unregistered-per-address: must be at least 1",
		"--max-connections: must be at least 1",
		"--max-failed-logins: must",
		"--max-takeovers: must",
		"--max-rooms-per-user: must",
		"--max-sessions-per-address: must",
		"--max-rooms-per-address: must",
		"--max-candidates: must",
		"--max-joins: must",
		"--max-failed-joins: must",
		"--max-failed-joins-per-address: must",
		"--max-queued-bytes: must",
		`"0.0.0.0/0" is every address`,
		`"::/0" is every address`,
		`"proxy.example" is neither`, `"::ffff:10.0.0.1" is neither`, `"fe80::1%eth0" is neither`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said in %v", want, err)
		}
	}
	c.TrustedProxies = []string{"10.0.0.7", "10.1.2.3/16", "2001:db8::/32", "::1"}
	c.Limits = LimitSettings{Unregistered: new(-1), Connections: new(-1)}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestEachLimitIsTheOneThatWasSet(t *testing.T) {
	p, err := Server{Dev: true, Limits: LimitSettings{
		Connections:           new(1),
		Unregistered:          new(2),
		RoomsPerUser:          new(3),
		FailedLogins:          new(4),
		Joins:                 new(5),
		FailedJoins:           new(6),
		FailedJoinsPerAddress: new(7),
		Candidates:            new(8),
		Takeovers:             new(-1),
		SessionsPerAddress:    new(9),
		RoomsPerAddress:       new(10),
		QueuedBytes:           new(9),
	}}.Plan(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	conns := transport.ConnLimiterConfig{Connections: 1, Unregistered: 2}
	if !reflect.DeepEqual(p.ConnLimits, conns) {
		t.Errorf("%+v, want %+v", p.ConnLimits, conns)
	}
	want := signaling.Limits{
		Rooms:                3,
		FailedLogins:         4,
		Joins:                5,
		FailedJoins:          6,
		FailedJoinsOfAddress: 7,
		Candidates:           8,
		Takeovers:            -1,
		AddressSessions:      9,
		AddressRooms:         10,
	}
	if p.Limits != want {
		t.Errorf("%+v, want %+v", p.Limits, want)
	}
	if got := p.Config.Limits.Queued(); got != 9 {
		t.Errorf("%d bytes may wait, want 9", got)
	}
}

func TestSecondSTUNPort(t *testing.T) {
	for name, c := range map[string]struct {
		stun, listen, want string
		invalid            bool
	}{
		"default":                       {"", ":7102", ":3478", false},
		"deinvalid beside an address":   {"", "10.0.0.9:443", "10.0.0.9:3478", false},
		"deinvalid beside IPv6":         {"", "[::1]:443", "[::1]:3478", false},
		"the relay has it":              {"", ":3478", "", false},
		"off":                           {"off", ":7102", "", false},
		"another":                       {"10.0.0.8:5000", ":7102", "10.0.0.8:5000", false},
		"the relay's own":               {":3478", ":3478", "", true},
		"no address":                    {"x", ":3478", "", true},
		"any port beside any other one": {"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", false},
	} {
		got, err := RelaySettings{STUNListen: c.stun}.secondSTUN(c.listen)
		if (err != nil) != c.invalid || (err == nil && got != c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestPublicHost(t *testing.T) {
	for host, ok := range map[string]bool{
		"":                      true,
		"calls.example":         true,
		"203.0.113.7":           true,
		"2001:db8::7":           true,
		"[2001:db8::7]":         true,
		"calls.example:443":     false,
		"https://calls.example": false,
		"a b":                   false,
		".":                     false,
		"x?y":                   false,
	} {
		if err := (Server{Dev: true, PublicHost: host}).Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", host, err)
		}
	}
}

func TestErrorsOfExternalRelays(t *testing.T) {
	for _, u := range []string{
		"", "a.example", "turn:", "turn:?transport=udp", "http:a.example", "stuns:a.example",
		"stun:a.example?transport=udp", "turn://a.example", "turn:a.example?transport=tls",
		"turn:a.example?x", "turns:a.example?transport=udp", "turn:a.example:0", "turn:a.example:x",
		"turn:2001:db8::1", "turn:user@a.example",
	} {
		c := Server{
			Dev:           true,
			RelayExternal: []string{u},
			Relay:         RelaySettings{Secret: secretOfTwo},
		}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "--relay-external") {
			t.Errorf("%q: %v", u, err)
		}
	}
	for what, c := range map[string]Server{
		"without a secret":   {},
		"and a port of ours": {RelayListen: ":1", Relay: RelaySettings{Secret: secretOfTwo}},
	} {
		c.Dev, c.RelayExternal = true, []string{"turn:[2001:db8::1]:3478?transport=udp"}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "--relay-external") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRatesThatAllowNoMessageAreErrors(t *testing.T) {
	for _, c := range []Server{
		{SessionBurst: 0.5},
		{SessionBurst: math.NaN()},
		{SessionBurst: -1},
		{SessionRate: math.NaN()},
		{SessionRate: -1},
	} {
		c.Dev = true
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "--session-") {
			t.Errorf("rate %v, burst %v: %v", c.SessionRate, c.SessionBurst, err)
		}
	}
}
