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

// reservations are the odd ports beside the even ones that clients asked for (EVEN-PORT, RFC 8656 section 18.7). For a while only
// the holder of the token gets them.
type reservations struct {
	mu    sync.Mutex
	until map[uint16]time.Time // guarded by mu
}

func (r *reservations) purge() {
	now := time.Now()
	for port, end := range r.until {
		if !now.Before(end) {
			delete(r.until, port)
		}
	}
}

// add holds a port; false: too many are held.
func (r *reservations) add(port uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.purge()
	if len(r.until) >= maxReserved {
		return false
	}
	r.until[port] = time.Now().Add(reserveTime)
	return true
}

func (r *reservations) has(port uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	end, ok := r.until[port]
	return ok && time.Now().Before(end)
}

func (r *reservations) remove(port uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.until, port)
}

// evenPort finds an even port that is free together with the next one, and holds that. The library asks for the number first, in a
// form that looks like an allocation without a user, and for the socket afterwards.
func (s *Server) evenPort() (uint16, error) {
	for port := range s.candidates() {
		if port%2 != 0 || port == s.cfg.MaxPort || port+1 == s.port || s.reserved.has(port+1) || !s.isFree(port) || !s.isFree(port+1) {
			continue
		}
		if !s.reserved.add(port + 1) {
			break
		}
		return port, nil
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
