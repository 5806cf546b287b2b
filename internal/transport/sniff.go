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
	recordHandshake  = 0x16 // RFC 8446, section 5.1
	stunHeaderSize   = 20   // RFC 8489, section 5
	stunCookie       = "\x21\x12\xa4\x42"
	stunCookieOffset = 4
)

// detectProtocol looks at the first bytes of a connection. It decides by as few of them as
// possible, since the shortest HTTP request is shorter than a STUN header.
func detectProtocol(b []byte, mayBeTLS bool) detectedProtocol {
	switch {
	case len(b) == 0:
		return protocolUnknown
	case mayBeTLS && b[0] == recordHandshake:
		return protocolTLS
	case b[0] >= 0x40: // a STUN message begins with two zero bits, an HTTP method with a letter
		return protocolHTTP
	case len(b) >= stunCookieOffset && b[stunCookieOffset-1]%4 != 0: // no length of a STUN message
		return protocolHTTP
	}
	for i := range len(stunCookie) {
		if at := stunCookieOffset + i; at < len(b) && b[at] != stunCookie[i] {
			return protocolHTTP
		}
	}
	if len(b) < stunHeaderSize {
		return protocolUnknown
	}
	return protocolSTUN
}

// sniff reads until the protocol is known, and returns the bytes it has read.
func sniff(c net.Conn, mayBeTLS bool) (prefix []byte, p detectedProtocol, err error) {
	buf, n := make([]byte, stunHeaderSize), 0
	for {
		m, err := c.Read(buf[n:])
		n += m
		if p := detectProtocol(buf[:n], mayBeTLS); p != protocolUnknown {
			return buf[:n], p, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
}

// sniffedConn is a connection whose first bytes have been read already.
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

// NetConn returns the underlying connection, as that of tls.Conn does.
func (c *sniffedConn) NetConn() net.Conn { return c.Conn }

func readPrefix(prefix *[]byte, p []byte) int {
	n := copy(p, *prefix)
	if *prefix = (*prefix)[n:]; len(*prefix) == 0 {
		*prefix = nil // frees the buffer
	}
	return n
}

// CloseWrite closes the writing side, if the underlying connection can do that.
func (c *sniffedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// SyscallConn gives access to the socket (see type socket), once the prefix has been read.
func (c *sniffedConn) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok || len(c.prefix) > 0 {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}

// sniffedTLSConn is a TLS connection whose first decrypted bytes have been read already.
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
