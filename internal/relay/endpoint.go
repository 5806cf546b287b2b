package relay

import (
	"net"
	"net/netip"
	"strconv"
	"sync"
)

// endpoint is an address and a port in a form that is quick to compare and to hash; IPv4 stands as
// IPv4-mapped IPv6.
type endpoint struct {
	ip    [16]byte
	port  uint16
	scope uint32 // the interface of a link-local address, 0 with all others
}

func endpointOf(a netip.AddrPort) endpoint {
	return endpoint{ip: a.Addr().As16(), port: a.Port(), scope: scopeOf(a.Addr().Zone())}
}

func (e endpoint) addr() netip.Addr {
	a := netip.AddrFrom16(e.ip).Unmap()
	if e.scope != 0 {
		a = a.WithZone(strconv.FormatUint(uint64(e.scope), 10))
	}
	return a
}

func isLinkLocal(ip [16]byte) bool { return ip[0] == 0xfe && ip[1]&0xc0 == 0x80 }

// scopes keeps the numbers of interfaces by the names that the net package has for them.
var scopes sync.Map

// scopeOf is the number of a zone; 0: there is none.
func scopeOf(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if n, ok := scopes.Load(zone); ok {
		return n.(uint32)
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0
	}
	scopes.Store(zone, uint32(i.Index))
	return uint32(i.Index)
}

func (e endpoint) addrPort() netip.AddrPort { return netip.AddrPortFrom(e.addr(), e.port) }

func (e endpoint) family() family { return familyOf(e.ip) }

// mappedPrefix is what IPv4-mapped addresses begin with (RFC 4291 section 2.5.5.2).
var mappedPrefix = [12]byte{10: 0xff, 11: 0xff}

// family is an index: an allocation has at most one relayed address of each.
type family int

const (
	v4 family = iota
	v6
	families
)

func familyOf(ip [16]byte) family {
	if [12]byte(ip[:12]) == mappedPrefix {
		return v4
	}
	return v6
}

func (f family) network() string {
	if f == v4 {
		return "udp4"
	}
	return "udp6"
}

// path is the 5-tuple of a client, and so the way back to it.
type path struct {
	remote endpoint
	local  endpoint  // of ours, to which the client sent: answers leave from it
	via    *listener // nil for a stream
	stream *stream   // nil for UDP
}

// lossReason is why a message to the client is lost.
func (p *path) lossReason() reasonCode {
	if p.stream != nil {
		return reasonSlowStream
	}
	return reasonUnsent
}

// allocation is the client's allocation at a worker, or nil.
func (p *path) allocation(w *worker) *allocation {
	switch {
	case p.stream != nil:
		return p.stream.allocation
	case p.via == nil:
		return nil
	}
	return w.lookup(p)
}

// key finds the allocation of a UDP client. A stream knows its own.
type key struct{ remote, local endpoint }

func (p *path) key() key { return key{p.remote, p.local} }

// listener is a UDP socket address that is listened on; each worker has a socket of its own for it.
type listener struct {
	addr  netip.AddrPort
	index int
	// wild: bound to every address, so that a packet's own destination must be asked for.
	wild bool
	// binding: nothing but Binding requests is answered.
	binding bool
}

// addrPort reads the addresses of the net package.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
