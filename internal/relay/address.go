package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Address is one that is relayed from. Clients are told Public; sockets are bound to Private. They
// differ behind a 1:1 NAT.
type Address struct{ Public, Private netip.Addr }

// String has the form that ParseAddress reads.
func (a Address) String() string {
	if a.Public == a.Private {
		return a.Public.String()
	}
	return a.Public.String() + "/" + a.Private.String()
}

// ParseAddress reads "203.0.113.7" or, for a 1:1 NAT, "203.0.113.7/10.0.0.7" (public/private).
func ParseAddress(s string) (Address, error) {
	public, private, ok := strings.Cut(s, "/")
	if !ok {
		private = public
	}
	var a Address
	var err error
	if a.Public, err = netip.ParseAddr(public); err != nil {
		return Address{}, fmt.Errorf("%q is not an IP address", public)
	}
	if a.Private, err = netip.ParseAddr(private); err != nil {
		return Address{}, fmt.Errorf("%q is not an IP address", private)
	}
	a.Public, a.Private = a.Public.Unmap(), a.Private.Unmap()
	if err := a.validate(); err != nil {
		return Address{}, err
	}
	return a, nil
}

func (a Address) validate() error {
	for _, half := range []netip.Addr{a.Public, a.Private} {
		switch {
		case !half.IsValid():
			return errors.New("a relay address needs both halves")
		case half.Zone() != "", half.IsUnspecified(), half.IsMulticast(),
			half.IsLinkLocalUnicast(), half.Is4In6(), isNeverPeer(half):
			return fmt.Errorf("nothing can be relayed from %s", half)
		}
	}
	if a.Public.Is4() != a.Private.Is4() {
		return fmt.Errorf("%s mixes IPv4 and IPv6", a)
	}
	return nil
}

// probe checks that sockets can be bound to the private half.
func (a Address) probe() error {
	conn, err := openUDP(a.Private, 0)
	if err != nil {
		return fmt.Errorf(
			"%s is no address of this machine (behind a 1:1 NAT write public/private): %w",
			a.Private,
			err,
		)
	}
	return conn.Close()
}

// openUDP binds a socket at start. An IPv6 address that is new on its interface cannot be bound
// before the kernel has made sure that no neighbour has it (RFC 4862 section 5.4), which takes a
// second or two: wait for that, as for nothing else.
func openUDP(a netip.Addr, port uint16) (*net.UDPConn, error) {
	const (
		pause = 100 * time.Millisecond
		tries = 40
	)
	for try := 1; ; try++ {
		conn, err := net.ListenUDP(
			familyOf(a.As16()).network(),
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)),
		)
		if err == nil || !errors.Is(err, syscall.EADDRNOTAVAIL) || a.Is4() || try == tries {
			return conn, err
		}
		if all, err := localAddresses(); err != nil || !slices.Contains(all, a) {
			return nil, syscall.EADDRNOTAVAIL
		}
		time.Sleep(pause)
	}
}

// FindAddresses picks the address to relay from, one of each family at most: a public one where
// there is one, and among equals the one that the default route uses. Loopback and link-local
// addresses are not taken.
func FindAddresses() ([]Address, error) {
	all, err := localAddresses()
	if err != nil {
		return nil, err
	}
	list := selectAddresses(all)
	if len(list) == 0 {
		return nil, errors.New(
			"this machine has no address but loopback; name the one to relay from",
		)
	}
	return list, nil
}

func selectAddresses(all []netip.Addr) []Address {
	return selectFrom(
		all,
		[]netip.Addr{routeSource("udp4", "198.51.100.1:9"), routeSource("udp6", "[2001:db8::1]:9")},
	)
}

// selectFrom is the pure part of FindAddresses; routed are the sources of the default routes.
func selectFrom(all, routed []netip.Addr) []Address {
	rank := func(a netip.Addr) int {
		n := 0
		if !isGlobal(a) {
			n += 2
		}
		if !slices.Contains(routed, a) {
			n++
		}
		return n
	}
	var list []Address
	for _, v4 := range []bool{true, false} {
		var best netip.Addr
		for _, a := range all {
			if a.Is4() != v4 || a.IsLoopback() || a.IsLinkLocalUnicast() {
				continue
			}
			if !best.IsValid() || rank(a) < rank(best) {
				best = a
			}
		}
		if best.IsValid() {
			list = append(list, Address{Public: best, Private: best})
		}
	}
	return list
}

// routeSource asks the kernel which source address it would use. Connecting a UDP socket sends
// nothing.
func routeSource(network, to string) netip.Addr {
	conn, err := net.Dial(network, to)
	if err != nil {
		return netip.Addr{}
	}
	defer func() { _ = conn.Close() }()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}

// localAddresses are the unicast addresses of the interfaces that are up, link-local ones left out:
// no candidate names them.
func localAddresses() ([]netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		// An interface that goes away in between is no fault.
		list, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, entry := range list {
			network, ok := entry.(*net.IPNet)
			if !ok {
				continue
			}
			a, ok := netip.AddrFromSlice(network.IP)
			a = a.Unmap()
			if ok && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() &&
				!slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all, nil
}
