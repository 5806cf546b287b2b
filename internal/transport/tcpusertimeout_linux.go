package transport

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setTCPUserTimeout has the system end a connection whose client has not acknowledged what was sent for so long. Pings find a silent client
// after a minute; a client whose cable was pulled during a call is found as soon as somebody speaks to it, and those who are left behind
// are told when its time to come back is over. Where the connection is no TCP socket it stays as it is.
func setTCPUserTimeout(c net.Conn, after time.Duration) {
	raw := rawConnOf(c)
	if raw == nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// An old kernel does without.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
	})
}

// rawOf finds the socket below TLS and what has read its first bytes.
func rawConnOf(c net.Conn) syscall.RawConn {
	for {
		switch x := c.(type) {
		case syscall.Conn:
			raw, err := x.SyscallConn()
			if err != nil {
				return nil
			}
			return raw
		case interface{ NetConn() net.Conn }:
			c = x.NetConn()
		default:
			return nil
		}
	}
}
