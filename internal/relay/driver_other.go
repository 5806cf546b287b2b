//go:build !linux

package relay

import "net/netip"

// openBatch and sockaddr are what the driver for Linux keeps with channels and allocations.
type (
	openBatch struct{}
	sockaddr  struct{}
)

func sockaddrOf(endpoint) sockaddr { return sockaddr{} }

func (s *Server) newDrivers() (func(host netip.Addr, port uint16, binding bool) (uint16, error), error) {
	return s.newNetDrivers()
}
