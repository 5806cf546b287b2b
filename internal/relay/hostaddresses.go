package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// hostAddresses is what a relay knows of its machine's addresses. It is replaced as a whole:
// addresses come and go while it runs.
type hostAddresses struct {
	relays    []*relayAddress
	listening []netip.Addr
	local     map[netip.Addr]struct{}
	policy    policy
	lost      []netip.Addr // relayed from, and no addresses of this machine any more
}

func (s *Server) addresses() *hostAddresses { return s.hostAddrs.Load() }

// refreshInterval is how often a relay looks for its addresses, when no allocation fails; then it
// looks at once, but not more often than refreshPause.
const (
	refreshInterval = 15 * time.Second
	refreshPause    = time.Second
)

// newHostAddresses is that of a relay which relays from some addresses, on a machine that has all.
func (s *Server) newHostAddresses(relays []*relayAddress, all []netip.Addr) *hostAddresses {
	p := &hostAddresses{relays: relays, local: map[netip.Addr]struct{}{}}
	host := s.host
	for _, a := range all {
		p.local[a] = struct{}{}
		if !host.IsValid() || host == netip.IPv4Unspecified() && a.Is4() {
			p.listening = append(p.listening, a)
		}
	}
	if host.IsValid() && !host.IsUnspecified() {
		p.listening, p.local[host] = []netip.Addr{host}, struct{}{}
	}
	var addresses []Address
	for _, r := range relays {
		addresses = append(addresses, r.Address)
	}
	local := make([]netip.Addr, 0, len(p.local))
	for a := range p.local {
		local = append(local, a)
	}
	p.policy = newPolicy(s.cfg.AllowPeers, addresses, local)
	return p
}

// RefreshAddresses looks for this machine's addresses again. Where nobody has said which to relay
// from, others take the place of those that are gone, and a family that there was not is added.
// Allocations at an address that is gone stay until their clients give them up.
func (s *Server) RefreshAddresses() error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	all, err := localAddresses()
	if err != nil {
		return err
	}
	old := s.addresses()
	var kept []*relayAddress
	var lost []netip.Addr
	for _, r := range old.relays {
		// One that cannot be bound though it is there is kept: perhaps there is no descriptor left.
		// Another table of its sockets in place of this one would keep the clients there from
		// reaching each other.
		if r.probe() == nil || slices.Contains(all, r.Private) {
			kept = append(kept, r)
		} else {
			lost = append(lost, r.Private)
		}
	}
	relays := old.relays
	if s.autoDetected {
		relays = s.withReplacements(kept, all)
		if len(relays) == 0 { // there is nothing better
			relays = old.relays
		}
		lost = slices.DeleteFunc(lost, func(a netip.Addr) bool {
			return !slices.ContainsFunc(
				relays,
				func(r *relayAddress) bool { return r.Private == a },
			)
		})
	}
	next := s.newHostAddresses(relays, all)
	next.lost = lost
	s.hostAddrs.Store(next)
	s.logAddressChange(old, next)
	return nil
}

// withReplacements adds an address for each family that none of the kept ones has.
func (s *Server) withReplacements(kept []*relayAddress, all []netip.Addr) []*relayAddress {
	relays := slices.Clone(kept)
	for _, a := range selectAddresses(all) {
		same := func(r *relayAddress) bool { return r.Public.Is4() == a.Public.Is4() }
		if !slices.ContainsFunc(relays, same) && a.probe() == nil {
			relays = append(relays, newRelayAddress(a, s.cfg.MinPort, s.cfg.MaxPort))
		}
	}
	return relays
}

// logAddressChange logs what has changed.
func (s *Server) logAddressChange(old, next *hostAddresses) {
	if !slices.Equal(old.relays, next.relays) {
		var from []Address
		for _, r := range next.relays {
			from = append(from, r.Address)
		}
		s.cfg.Log.Warn("relay addresses have changed", "relayFrom", fmt.Sprint(from))
	}
	switch {
	case slices.Equal(old.lost, next.lost):
	case len(next.lost) > 0:
		s.cfg.Log.Error("relay address lost: no allocation can be made there until it is back",
			"addresses", fmt.Sprint(next.lost))
	default:
		s.cfg.Log.Info("relay addresses are back")
	}
}

// lostError says which addresses are lost, if any are.
func (p *hostAddresses) lostError() error {
	if len(p.lost) == 0 {
		return nil
	}
	var names []string
	for _, a := range p.lost {
		names = append(names, a.String())
	}
	return errors.New(
		"the relay's address " + strings.Join(
			names,
			", ",
		) + " is no address of this machine any more",
	)
}

// requestRefresh has the addresses looked at soon, since no socket could be opened. It does not
// wait.
func (s *Server) requestRefresh() {
	select {
	case s.refreshRequests <- struct{}{}:
	default:
	}
}

// watchAddresses looks for the addresses until the server is done.
func (s *Server) watchAddresses() {
	every := time.NewTicker(refreshInterval)
	defer every.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-every.C:
		case <-s.refreshRequests:
		}
		if err := s.RefreshAddresses(); err != nil {
			s.cfg.Log.Warn("addresses not looked at", "error", err)
		}
		pause := time.NewTimer(refreshPause)
		select {
		case <-s.done:
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}
