package relay

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// reserveTime is how long the library knows a reservation token.
	reserveTime = 30 * time.Second
	// maxReserved bounds the ports held so, and with them the tokens and timers that the library keeps.
	maxReserved = 256
)

// reservations are the even ports that clients asked for (EVEN-PORT, RFC 8656 section 18.7) until they are bound, and the odd ones
// beside them, which for a while only the holder of the token gets.
type reservations struct {
	mu    sync.Mutex
	until map[uint16]time.Time // guarded by mu
}

// add holds a port and the next one unless one of them is held already; full: too many are.
func (r *reservations) add(port uint16) (ok, full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for held, end := range r.until {
		if !now.Before(end) {
			delete(r.until, held)
		}
	}
	if len(r.until)+2 > maxReserved {
		return false, true
	}
	for _, p := range []uint16{port, port + 1} {
		if _, held := r.until[p]; held {
			return false, false
		}
	}
	r.until[port], r.until[port+1] = now.Add(reserveTime), now.Add(reserveTime)
	return true, false
}

func (r *reservations) has(port uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	end, ok := r.until[port]
	return ok && time.Now().Before(end)
}

func (r *reservations) remove(ports ...uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, port := range ports {
		delete(r.until, port)
	}
}

// evenPort finds an even port that is free together with the next one, and holds both. The library asks for the number first, in a
// form that looks like an allocation without a user, and for the socket afterwards.
func (s *Server) evenPort() (uint16, error) {
	tries := 0
	for port := range s.candidates() {
		if port%2 != 0 || port == s.cfg.MaxPort || port+1 == s.port {
			continue
		}
		ok, full := s.reserved.add(port)
		if full {
			break
		}
		if !ok {
			continue
		}
		if s.isFree(port) && s.isFree(port+1) {
			return port, nil
		}
		s.reserved.remove(port, port+1)
		if tries++; tries == maxBinds {
			break
		}
	}
	return 0, errNoPort
}

// isFree tries to bind a port on every address we relay from, since the library does not say for which family it asks.
func (s *Server) isFree(port uint16) bool {
	for _, r := range s.relays {
		if r.isLive(port) {
			return false
		}
		conn, err := net.ListenUDP(udpNetwork(r.Private), net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.Private, port)))
		if err != nil {
			return false
		}
		_ = conn.Close()
	}
	return true
}

// noSocket stands for the socket of a port that was only looked for.
type noSocket struct{ net.PacketConn }

func (noSocket) Close() error { return nil }
