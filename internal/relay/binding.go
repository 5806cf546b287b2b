package relay

import (
	"net"
	"net/netip"

	"github.com/pion/stun/v4"
)

// listenSTUN opens the second port, which answers Binding requests only, so that clients can tell how their NAT maps.
func (s *Server) listenSTUN() error {
	if s.cfg.STUN == "" {
		return nil
	}
	host, port, err := parseListen(s.cfg.STUN)
	if err != nil {
		return err
	}
	var bind net.IP
	network := "udp"
	if host.IsValid() {
		bind, network = host.AsSlice(), udpNetwork(host)
	}
	if s.stun, err = net.ListenUDP(network, &net.UDPAddr{IP: bind, Port: int(port)}); err != nil {
		return err
	}
	s.quiet.Go(s.answerBinding)
	return nil
}

func (s *Server) answerBinding() {
	p := make([]byte, 1600)
	for {
		n, from, err := s.receive(s.stun, p)
		if err != nil {
			return
		}
		if answer := bindingAnswer(p[:n], from); answer != nil {
			_, _ = s.stun.WriteToUDPAddrPort(answer, from)
		}
	}
}

func bindingAnswer(p []byte, from netip.AddrPort) []byte {
	m := stun.Message{Raw: p}
	if len(p) < stunHeader || p[0] > 3 || m.Decode() != nil || m.Type != stun.BindingRequest {
		return nil
	}
	answer, err := stun.Build(
		stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess,
		&stun.XORMappedAddress{IP: from.Addr().Unmap().AsSlice(), Port: int(from.Port())},
	)
	if err != nil {
		return nil
	}
	return answer.Raw
}

// STUNPort is the number of the second port; 0: none.
func (s *Server) STUNPort() int {
	if s.stun == nil {
		return 0
	}
	return s.stun.LocalAddr().(*net.UDPAddr).Port
}
