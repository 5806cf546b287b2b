package relay

// source is whom a limit by address counts.
type source struct {
	ip    [16]byte // with zeros where it is not told apart
	scope uint32
}

// sourceOf is an IPv4 address, or the /64 of an IPv6 address, since whoever has one address of it
// has all. Of link-local addresses each counts, for all of a link are in one /64.
func sourceOf(e endpoint) source {
	s := source{e.ip, e.scope}
	if e.family() == v6 && !isLinkLocal(e.ip) {
		clear(s.ip[8:])
	}
	return s
}

// prefix is the network around a source: an IPv4 /24, an IPv6 /48, a link.
func (s source) prefix() source {
	switch {
	case familyOf(s.ip) == v4:
		s.ip[15] = 0
	case isLinkLocal(s.ip):
		clear(s.ip[8:])
	default:
		clear(s.ip[6:])
	}
	return s
}

func (s source) is6() bool { return familyOf(s.ip) == v6 }
