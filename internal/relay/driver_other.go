//go:build !linux

package relay

// openBatch and sockaddr are what the driver for Linux keeps with channels and allocations.
type (
	openBatch struct{}
	sockaddr  struct{}
)

func sockaddrOf(endpoint) sockaddr { return sockaddr{} }

func (s *Server) newDrivers() (openListeners, error) {
	return s.newNetDrivers()
}
