package topo

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func spec(a, b NAT) Spec {
	return Spec{Prefix: "lab7-", A: a, B: b, RTT: 40 * time.Millisecond, TCPPorts: []int{80, 3478}}
}

func TestRefused(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"unknown NAT for a":         func(s *Spec) { s.A = "wide" },
		"unknown NAT for b":         func(s *Spec) { s.B = "wide" },
		"same for a":                func(s *Spec) { s.A = Same },
		"same without a NAT at a":   func(s *Spec) { s.A, s.B = None, Same },
		"same beside IPv6 only":     func(s *Spec) { s.A, s.B = V6, Same },
		"negative round trip":       func(s *Spec) { s.RTT = -1 },
		"round trip without end":    func(s *Spec) { s.RTT = time.Hour },
		"port zero":                 func(s *Spec) { s.TCPPorts = []int{0} },
		"blocked and no port open":  func(s *Spec) { s.A, s.TCPPorts = UDPBlock, nil },
		"no prefix":                 func(s *Spec) { s.Prefix = "" },
		"prefix that names a path":  func(s *Spec) { s.Prefix = "../x" },
		"prefix that is a wildcard": func(s *Spec) { s.Prefix = "ieum*" },
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(Cone, Cone)
			change(&s)
			if p, err := New(s); err == nil {
				t.Errorf("planned %+v", p)
			}
		})
	}
}

func TestAllErrorsAreReportedTogether(t *testing.T) {
	err := Spec{Prefix: "p", A: "x", B: "y", RTT: -1}.Validate()
	for _, want := range []string{"a: no NAT", "b: no NAT", "rtt"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %q", want, err)
		}
	}
}

var kinds = []NAT{None, Cone, Full, Sym, UDPBlock, Only443, V6}

// Two laboratories on one machine must not fight: whatever a step touches lies inside a namespace
// of the prefix.
func TestEveryStepStaysInsideItsPrefix(t *testing.T) {
	for _, a := range kinds {
		for _, b := range append(slices.Clone(kinds), Same) {
			p, err := New(spec(a, b))
			if err != nil {
				if b == Same && (a == None || a == V6) {
					continue
				}
				t.Fatalf("%s, %s: %v", a, b, err)
			}
			own := func(ns string) bool {
				return slices.Contains(p.Namespaces, ns) && strings.HasPrefix(ns, "lab7-")
			}
			for _, s := range p.Steps {
				switch {
				case s.SysctlKey != "":
					if !own(s.SysctlNS) {
						t.Errorf("%s, %s: sysctl in %q", a, b, s.SysctlNS)
					}
				case slices.Equal(s.Argv[:2], []string{"ip", "-n"}):
					if !own(s.Argv[2]) {
						t.Errorf("%s, %s: %v", a, b, s.Argv)
					}
				case slices.Equal(s.Argv[:3], []string{"ip", "netns", "exec"}):
					if !own(s.Argv[3]) {
						t.Errorf("%s, %s: %v", a, b, s.Argv)
					}
				case slices.Equal(s.Argv[:3], []string{"ip", "link", "add"}):
					if s.Argv[4] != "netns" || !own(s.Argv[5]) || s.Argv[11] != "netns" ||
						!own(s.Argv[12]) {
						t.Errorf("%s, %s: %v", a, b, s.Argv)
					}
				default:
					t.Errorf("%s, %s: unknown step %v", a, b, s.Argv)
				}
			}
			for _, c := range p.Cables {
				if !own(c.NS) || !own(c.CoreNS) || len(c.Dev) > 15 || len(c.CoreDev) > 15 {
					t.Errorf("%s, %s: cable %+v", a, b, c)
				}
				if c.Delay != 10*time.Millisecond {
					t.Errorf(
						"%s, %s: cable %s delays %v; two cables, twice, are to make 40ms",
						a,
						b,
						c.Name,
						c.Delay,
					)
				}
			}
			if !own(p.Server) || !own(p.A.NS) || !own(p.B.NS) {
				t.Errorf("%s, %s: %+v", a, b, p)
			}
		}
	}
}

func TestRulesOfEachNAT(t *testing.T) {
	for _, c := range []struct {
		kind          NAT
		with, without []string
	}{
		{
			kind:    Cone,
			with:    []string{" masquerade\n"},
			without: []string{"fully-random", "dnat to", "udp drop"},
		},
		{
			kind:    Full,
			with:    []string{" masquerade\n", "udp dport 1024-65535 dnat to 192.168.1.10"},
			without: []string{"fully-random", "udp drop"},
		},
		{
			kind:    Sym,
			with:    []string{"masquerade fully-random"},
			without: []string{"dnat to", "udp drop"},
		},
		{
			kind:    Only443,
			with:    []string{"meta l4proto udp drop", "tcp dport != { 443 }"},
			without: []string{"fully-random", "dnat to"},
		},
		{
			kind:    UDPBlock,
			with:    []string{"meta l4proto udp drop", "tcp dport != { 80, 3478 }"},
			without: []string{"fully-random", "dnat to"},
		},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			p, err := New(spec(c.kind, Same))
			if err != nil {
				t.Fatal(err)
			}
			var rules string
			for _, s := range p.Steps {
				if strings.Contains(s.Input, "table ip nat0") {
					rules += s.Input
				}
			}
			if n := strings.Count(rules, "table ip nat0"); n != 1 {
				t.Fatalf("%d NATs for two clients of one home", n)
			}
			for _, w := range c.with {
				if !strings.Contains(rules, w) {
					t.Errorf("no %q in\n%s", w, rules)
				}
			}
			for _, w := range c.without {
				if strings.Contains(rules, w) {
					t.Errorf("%q in\n%s", w, rules)
				}
			}
			if p.A.Public != p.B.Public || p.A.Address == p.B.Address {
				t.Errorf("a %+v, b %+v: want one public address and two private ones", p.A, p.B)
			}
		})
	}
}
