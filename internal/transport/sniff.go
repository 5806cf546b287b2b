package transport

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"
)

// detectedProtocol is what a connection speaks.
type detectedProtocol int

const (
	protocolUnknown detectedProtocol = iota // more bytes are needed
	protocolTLS
	protocolSTUN
	protocolHTTP // or anything else: the HTTP server knows how to refuse it
)

const (
	recordHandshake = 0x16 // RFC 8446, section 5.1
	stunHeader      = 20
	stunCookie      = "\x21\x12\xa4\x42"
	cookieAt        = 4
)

// detectProtocol judges the first bytes of a connection. It needs as few as decide, since the shortest HTTP request is shorter than a STUN
// header.
func detectProtocol(b []byte, mayBeTLS bool) detectedProtocol {
	switch {
	case len(b) == 0:
		return protocolUnknown
	case mayBeTLS && b[0] == recordHandshake:
		return protocolTLS
	case b[0] >= 0x40: // a STUN message begins with two zero bits, a method of HTTP with a letter
		return protocolHTTP
	case len(b) >= cookieAt && b[cookieAt-1]%4 != 0: // its length is a multiple of four
		return protocolHTTP
	}
	for i := range len(stunCookie) {
		if at := cookieAt + i; at < len(b) && b[at] != stunCookie[i] {
			return protocolHTTP
		}
	}
	if len(b) < stunHeader {
		return protocolUnknown
	}
	return protocolSTUN
}

// sniff reads until the kind is known and returns what it has read.
func sniff(c net.Conn, mayBeTLS bool) (head []byte, k detectedProtocol, err error) {
	buf, n := make([]byte, stunHeader), 0
	for {
		m, err := c.Read(buf[n:])
		n += m
		if k := detectProtocol(buf[:n], mayBeTLS); k != protocolUnknown {
			return buf[:n], k, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
}

// sniffedConn is a connection of which the first bytes were read already.
type sniffedConn struct {
	net.Conn
	prefix []byte // owned by the reader
}

func (c *sniffedConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		return readPrefix(&c.prefix, p), nil
	}
	return c.Conn.Read(p)
}

// NetConn is the connection below, as tls.Conn has it.
func (c *sniffedConn) NetConn() net.Conn { return c.Conn }

func readPrefix(early *[]byte, p []byte) int {
	n := copy(p, *early)
	if *early = (*early)[n:]; len(*early) == 0 {
		*early = nil // and with it the buffer
	}
	return n
}

// CloseWrite closes our side, where the connection below can.
func (c *sniffedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// SyscallConn lets others wait on the socket itself (see socket), once nothing is left that it would not bring.
func (c *sniffedConn) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok || len(c.prefix) > 0 {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}

// sniffedTLSConn is the same over TLS.
type sniffedTLSConn struct {
	*tls.Conn
	prefix []byte // owned by the reader
}

func (c *sniffedTLSConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		return readPrefix(&c.prefix, p), nil
	}
	return c.Conn.Read(p)
}
