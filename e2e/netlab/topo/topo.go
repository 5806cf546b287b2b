// Package topo describes the laboratory's network as data: which namespaces, cables, addresses,
// routes and packet filters stand for two homes behind their NATs and a server on the internet
// between them. It changes nothing on the machine; the caller applies the plan.
//
//	a ── lan ── nata ── cable ──┐
//	                            ├── core ── cable ── srv
//	b ── lan ── natb ── cable ──┘
//
// core is "the internet": it forwards and drops private addresses. A client without NAT (none, v6)
// has the cable itself.
package topo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// NAT is what stands between a client and the internet.
type NAT string

const (
	None NAT = "none" // a public IPv4 address, no filter
	// Port-restricted cone: one mapping for all peers, answers only from where was sent to.
	Cone     NAT = "cone"
	Full     NAT = "full"     // full cone: one mapping, anybody may answer
	Sym      NAT = "sym"      // symmetric: another random port for each peer
	UDPBlock NAT = "udpblock" // no UDP at all, TCP only to Spec.TCPPorts
	Only443  NAT = "only443"  // no UDP at all, TCP only to port 443
	Same     NAT = "same"     // only for b: a second client of a's NAT
	V6       NAT = "v6"       // a public IPv6 address and nothing else
)

// Addresses of the documentation ranges (RFC 5737, RFC 3849), so that nothing can leave by mistake.
const (
	ServerV4 = "203.0.113.10"
	ServerV6 = "2001:db8:5::10"
	publicA  = "198.51.100.1"
	publicB  = "198.51.100.2"
	v6A      = "2001:db8:a::10"
	v6B      = "2001:db8:b::10"
	coreV4   = "198.51.100.254"
	netA     = "192.168.1"
	netB     = "192.168.2"
)

// Spec says which network is wanted.
type Spec struct {
	Prefix   string        // of every namespace's name
	A, B     NAT           // what the two clients sit behind
	RTT      time.Duration // between any two of a, b and the server
	TCPPorts []int         // open to a client behind UDPBlock
}

// Cable joins a device in a namespace to one in the core. Names of namespaces are complete, with
// the prefix.
type Cable struct {
	Name            string // srv, a, b: as the control socket calls it
	NS, Dev         string
	CoreNS, CoreDev string
	Delay           time.Duration // one way
}

// Step is one thing to do, in order: a program with its input, or a kernel setting inside a
// namespace.
type Step struct {
	Argv  []string
	Input string

	SysctlNS, SysctlKey, SysctlValue string
}

// Client tells where a client is and which addresses it has.
type Client struct {
	NS      string `json:"ns"`
	NAT     NAT    `json:"nat"`
	Address string `json:"address"` // its own
	Public  string `json:"public"`  // as the internet sees it
}

// Plan is a laboratory, ready to be built: first the namespaces, then the cables' devices, then the
// steps.
type Plan struct {
	Namespaces []string
	Cables     []Cable
	Steps      []Step
	Server     string // namespace
	A, B       Client
}

// Validate reports every fault of the wish at once.
func (s Spec) Validate() error {
	var errs []error
	if s.Prefix == "" || strings.ContainsAny(s.Prefix, "/ \n*?[") {
		errs = append(errs, fmt.Errorf("prefix %q cannot begin a namespace's name", s.Prefix))
	}
	natted := []NAT{Cone, Full, Sym, UDPBlock, Only443}
	if !slices.Contains(append(natted, None, V6), s.A) {
		errs = append(
			errs,
			fmt.Errorf("a: no NAT %q: want none, cone, full, sym, udpblock, only443 or v6", s.A),
		)
	}
	if !slices.Contains(append(natted, None, V6, Same), s.B) {
		errs = append(
			errs,
			fmt.Errorf(
				"b: no NAT %q: want none, cone, full, sym, udpblock, only443, same or v6",
				s.B,
			),
		)
	}
	if s.B == Same && !slices.Contains(natted, s.A) {
		errs = append(errs, fmt.Errorf("b cannot share a's NAT: %q is none", s.A))
	}
	if s.RTT < 0 || s.RTT > 20*time.Second {
		errs = append(errs, fmt.Errorf("rtt %v: want 0 to 20s", s.RTT))
	}
	for _, p := range s.TCPPorts {
		if p < 1 || p > 65535 {
			errs = append(errs, fmt.Errorf("TCP port %d: want 1 to 65535", p))
		}
	}
	if (s.A == UDPBlock || s.B == UDPBlock) && len(s.TCPPorts) == 0 {
		errs = append(errs, errors.New("udpblock without an open TCP port reaches nobody"))
	}
	return errors.Join(errs...)
}

// New plans the laboratory.
func New(s Spec) (Plan, error) {
	if err := s.Validate(); err != nil {
		return Plan{}, err
	}
	b := &builder{spec: s, core: s.Prefix + "core"}
	b.plan.Server = b.namespace("srv")
	b.namespace("core")
	b.sysctl(b.core, "net/ipv4/ip_forward", "1")
	b.sysctl(b.core, "net/ipv6/conf/all/forwarding", "1")
	b.ip(b.core, "addr add "+coreV4+"/32 dev lo")
	b.nft(b.core, coreRules)

	b.cable("srv", b.plan.Server)
	b.public(b.plan.Server, "srv", ServerV4)
	b.publicV6(b.plan.Server, "srv", ServerV6)

	b.plan.A = b.home(home{name: "a", nat: s.A, public: publicA, v6: v6A, lan: netA})
	if s.B == Same {
		b.plan.B = b.second(b.plan.A)
	} else {
		b.plan.B = b.home(home{name: "b", nat: s.B, public: publicB, v6: v6B, lan: netB})
	}
	return b.plan, nil
}
