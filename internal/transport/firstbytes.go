package transport

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"
)

// kind is what a connection speaks.
type kind int

const (
	kindOpen kind = iota // more bytes are needed
	kindTLS
	kindSTUN
	kindHTTP // or anything else: the HTTP server knows how to refuse it
)

const (
	recordHandshake = 0x16 // RFC 8446, section 5.1
	stunHeader      = 20
	stunCookie      = "\x21\x12\xa4\x42"
	cookieAt        = 4
)

// kindOf judges the first bytes of a connection. It needs as few as decide, since the shortest HTTP request is shorter than a STUN
// header.
func kindOf(b []byte, mayBeTLS bool) kind {
	switch {
	case len(b) == 0:
		return kindOpen
	case mayBeTLS && b[0] == recordHandshake:
		return kindTLS
	case b[0] >= 0x40: // a STUN message begins with two zero bits, a method of HTTP with a letter
		return kindHTTP
	case len(b) >= cookieAt && b[cookieAt-1]%4 != 0: // its length is a multiple of four
		return kindHTTP
	}
	for i := range len(stunCookie) {
		if at := cookieAt + i; at < len(b) && b[at] != stunCookie[i] {
			return kindHTTP
		}
	}
	if len(b) < stunHeader {
		return kindOpen
	}
	return kindSTUN
}

// readHead reads until the kind is known and returns what it has read.
func readHead(c net.Conn, mayBeTLS bool) (head []byte, k kind, err error) {
	buf, n := make([]byte, stunHeader), 0
	for {
		m, err := c.Read(buf[n:])
		n += m
		if k := kindOf(buf[:n], mayBeTLS); k != kindOpen {
			return buf[:n], k, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
}

// earlyConn is a connection of which the first bytes were read already.
type earlyConn struct {
	net.Conn
	early []byte // owned by the reader
}

func (c *earlyConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		return takeEarly(&c.early, p), nil
	}
	return c.Conn.Read(p)
}

// NetConn is the connection below, as tls.Conn has it.
func (c *earlyConn) NetConn() net.Conn { return c.Conn }

func takeEarly(early *[]byte, p []byte) int {
	n := copy(p, *early)
	if *early = (*early)[n:]; len(*early) == 0 {
		*early = nil // and with it the buffer
	}
	return n
}

// CloseWrite closes our side, where the connection below can.
func (c *earlyConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// SyscallConn lets others wait on the socket itself (see socket), once nothing is left that it would not bring.
func (c *earlyConn) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok || len(c.early) > 0 {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}

// earlyTLS is the same over TLS.
type earlyTLS struct {
	*tls.Conn
	early []byte // owned by the reader
}

func (c *earlyTLS) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		return takeEarly(&c.early, p), nil
	}
	return c.Conn.Read(p)
}
