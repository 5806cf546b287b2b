package transport

import "runtime"

// shakingMost is how many handshakes may want a processor at a time. Each takes one for most of a millisecond, and when a thousand
// clients come back at once, whoever has something to say would wait behind all of them. One processor is left to those who are in.
func shakingMost() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// turnConn is what a TLS handshake is spoken over. It takes its turn when something has come, and gives it back with its answer or
// where it waits for more: clients who are slow or silent keep nobody's turn.
type turnConn struct {
	earlyConn
	turns chan struct{} // nil when the handshake is over
	has   bool          // owned by the goroutine of the handshake, as turns is until it ends

	polled *socket // reads without waiting, if set; owned by the reader
}

// done gives the turn back, if there is one.
func (c *turnConn) done() {
	if c.has {
		c.has = false
		<-c.turns
	}
}

// over ends the handshake.
func (c *turnConn) over() {
	c.done()
	c.turns = nil
}

// Read implements net.Conn.
func (c *turnConn) Read(p []byte) (int, error) {
	if c.polled != nil && len(c.early) == 0 {
		return c.polled.now(p)
	}
	if c.turns == nil {
		return c.earlyConn.Read(p)
	}
	c.done()
	n, err := c.earlyConn.Read(p)
	c.turns <- struct{}{} // soon: whoever has a turn computes
	c.has = true
	return n, err
}

// Write implements net.Conn.
func (c *turnConn) Write(p []byte) (int, error) {
	c.done()
	return c.Conn.Write(p)
}
