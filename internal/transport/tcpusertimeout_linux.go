package transport

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setTCPUserTimeout makes the kernel close a connection whose client has not acknowledged sent data
// for so long. Pings find a silent client after a minute. This finds one whose cable was pulled
// during a call as soon as something is sent to it, and the other members learn of it when its
// resume window is over. A connection that is not over TCP is left as it is.
func setTCPUserTimeout(c net.Conn, after time.Duration) {
	raw := rawConnOf(c)
	if raw == nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		ms := int(after.Milliseconds())
		// An error means an old kernel, which does without.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
	})
}

// rawConnOf returns the socket below TLS and sniffedConn; nil: there is none.
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
