package topo

import "strings"

type home struct {
	name            string
	nat             NAT
	public, v6, lan string // lan: the first three numbers of the home's network
}

type builder struct {
	spec Spec
	core string
	plan Plan
}

func (b *builder) namespace(name string) string {
	ns := b.spec.Prefix + name
	b.plan.Namespaces = append(b.plan.Namespaces, ns)
	b.ip(ns, "link set lo up")
	return ns
}

func (b *builder) ip(ns, line string) {
	b.plan.Steps = append(
		b.plan.Steps,
		Step{Argv: append([]string{"ip", "-n", ns}, strings.Fields(line)...)},
	)
}

func (b *builder) nft(ns, rules string) {
	b.plan.Steps = append(
		b.plan.Steps,
		Step{Argv: []string{"ip", "netns", "exec", ns, "nft", "-f", "-"}, Input: rules},
	)
}

func (b *builder) sysctl(ns, key, value string) {
	b.plan.Steps = append(b.plan.Steps, Step{SysctlNS: ns, SysctlKey: key, SysctlValue: value})
}

// up sets a device up without a link-local IPv6 address: a client has exactly the addresses it is
// meant to have.
func (b *builder) up(ns, dev string) {
	b.ip(ns, "link set "+dev+" addrgenmode none")
	b.ip(ns, "link set "+dev+" up")
}

// cable joins a namespace's device wan to the core. Half of the way between two ends is one cable,
// and each is passed twice in a round trip.
func (b *builder) cable(name, ns string) {
	c := Cable{
		Name:    name,
		NS:      ns,
		Dev:     "wan",
		CoreNS:  b.core,
		CoreDev: "to-" + name,
		Delay:   b.spec.RTT / 4,
	}
	b.plan.Cables = append(b.plan.Cables, c)
	b.up(ns, c.Dev)
	b.up(b.core, c.CoreDev)
}

func (b *builder) public(ns, cable, addr string) {
	b.ip(ns, "addr add "+addr+"/32 dev wan")
	b.ip(ns, "route add default dev wan")
	b.ip(b.core, "route add "+addr+"/32 dev to-"+cable)
}

func (b *builder) publicV6(ns, cable, addr string) {
	b.ip(ns, "addr add "+addr+"/128 dev wan nodad")
	b.ip(ns, "-6 route add default dev wan")
	b.ip(b.core, "-6 route add "+addr+"/128 dev to-"+cable)
}

func (b *builder) home(h home) Client {
	c := Client{NS: b.namespace(h.name), NAT: h.nat}
	switch h.nat {
	case None:
		b.cable(h.name, c.NS)
		b.public(c.NS, h.name, h.public)
		c.Address, c.Public = h.public, h.public
	case V6:
		b.cable(h.name, c.NS)
		b.publicV6(c.NS, h.name, h.v6)
		c.Address, c.Public = h.v6, h.v6
	default:
		nat := b.namespace("nat" + h.name)
		b.cable(h.name, nat)
		b.public(nat, h.name, h.public)
		b.sysctl(nat, "net/ipv4/ip_forward", "1")
		// The LAN is a bridge. Its own traffic must not meet the forward chain, or two clients of
		// one home would not reach each other.
		b.sysctl(nat, "net/bridge/bridge-nf-call-iptables", "0")
		b.ip(nat, "link add lan0 type bridge")
		b.ip(nat, "addr add "+h.lan+".1/24 dev lan0")
		b.up(nat, "lan0")
		c.Address, c.Public = h.lan+".10", h.public
		b.plug(nat, c.NS, h.lan, c.Address)
		b.nft(nat, natRules(h.nat, h.lan+".0/24", c.Address, b.spec.TCPPorts))
	}
	return c
}

// second is another client on a's LAN.
func (b *builder) second(first Client) Client {
	c := Client{NS: b.namespace("b"), NAT: Same, Address: netA + ".11", Public: first.Public}
	b.plug(b.spec.Prefix+"nata", c.NS, netA, c.Address)
	return c
}

func (b *builder) plug(nat, ns, lan, addr string) {
	port := "p" + addr[strings.LastIndexByte(addr, '.')+1:]
	b.plan.Steps = append(b.plan.Steps, Step{Argv: []string{
		"ip", "link", "add", port, "netns", nat,
		"type", "veth", "peer", "name", "eth0", "netns", ns,
	}})
	b.ip(nat, "link set "+port+" master lan0")
	b.up(nat, port)
	b.ip(ns, "addr add "+addr+"/24 dev eth0")
	b.up(ns, "eth0")
	b.ip(ns, "route add default via "+lan+".1")
}
