package transport

import (
	"crypto/tls"
	"runtime"
)

// handshakesMost is how many handshakes are computed at a time. Each takes a processor for most of a millisecond, and when a thousand
// clients come back at once, whoever has something to say would wait behind all of them. One processor is left to those who are in.
func handshakesMost() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// turnConn is what a TLS handshake is spoken over. It takes its turn when the client has said what it wants, and gives it back with the
// first bytes of the answer: between them are the key exchange and the signature, and no wait for the network, so that clients who are
// slow or silent keep nobody's turn.
type turnConn struct {
	earlyConn
	turns chan struct{}
	has   bool // owned by the goroutine of the handshake

	polled *socket // reads without waiting, if set; owned by the reader
}

// inTurn makes GetConfigForClient wait for the connection's turn; before is what it was.
func inTurn(before func(*tls.ClientHelloInfo) (*tls.Config, error)) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if c, is := hello.Conn.(*turnConn); is && !c.has {
			c.turns <- struct{}{} // soon: whoever has a turn computes
			c.has = true
		}
		if before != nil {
			return before(hello)
		}
		return nil, nil
	}
}

// done gives the turn back, if there is one.
func (c *turnConn) done() {
	if c.has {
		c.has = false
		<-c.turns
	}
}

// Read implements net.Conn.
func (c *turnConn) Read(p []byte) (int, error) {
	if c.polled != nil && len(c.early) == 0 {
		return c.polled.now(p)
	}
	return c.earlyConn.Read(p)
}

// Write implements net.Conn. After the handshake there is no turn to give back, and c is only read.
func (c *turnConn) Write(p []byte) (int, error) {
	c.done()
	return c.Conn.Write(p)
}
