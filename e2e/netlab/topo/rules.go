package topo

import (
	"strconv"
	"strings"
)

// Nothing private may cross the internet, else a call could take a way that no real network has.
const coreRules = `table ip core {
	chain crossing {
		type filter hook forward priority 0; policy accept;
		ip saddr { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 } drop
		ip daddr { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 } drop
	}
}
`

// natRules makes a home router of the given kind for the network lan; client is its first host.
//
// Linux's masquerade keeps the source port and lets only those answer who were asked: a
// port-restricted cone. With fully-random each connection gets a port of its own: symmetric. A port
// forward of everything to the one client makes it a full cone.
func natRules(kind NAT, lan, client string, tcpPorts []int) string {
	masquerade, before, blocked := "masquerade", "", ""
	switch kind {
	case Sym:
		masquerade = "masquerade fully-random"
	case Full:
		before = "iifname \"wan\" udp dport 1024-65535 dnat to " + client
	case UDPBlock, Only443:
		if kind == Only443 {
			tcpPorts = []int{443}
		}
		ports := make([]string, len(tcpPorts))
		for i, p := range tcpPorts {
			ports[i] = strconv.Itoa(p)
		}
		blocked = "meta l4proto udp drop\n\t\ttcp dport != { " + strings.Join(
			ports,
			", ",
		) + " } ct state new drop"
	}
	return `table ip nat0 {
	chain before {
		type nat hook prerouting priority dstnat; policy accept;
		` + before + `
	}
	chain after {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" ip saddr ` + lan + ` ` + masquerade + `
	}
	chain crossing {
		type filter hook forward priority 0; policy drop;
		` + blocked + `
		ct state established,related accept
		oifname "wan" accept
		ct status dnat accept
	}
	# An unsolicited packet must die here, unconfirmed. Accepted, it would leave a conntrack entry
	# that pushes the client's later flow to another port: no cone NAT any more.
	chain arriving {
		type filter hook input priority 0; policy drop;
		ct state established,related accept
		iifname "lan0" accept
	}
}
`
}
