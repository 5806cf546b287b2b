package transport

import "runtime"

// maxHandshakes is how many handshakes may want a processor at a time. Each takes one for most of a millisecond, and when a thousand
// clients come back at once, whoever has something to say would wait behind all of them. One processor is left to those who are in.
func maxHandshakes() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// handshakeConn is what a TLS handshake is spoken over. It takes its turn when something has come, and gives it back with its answer or
// where it waits for more: clients who are slow or silent keep nobody's turn.
type handshakeConn struct {
	sniffedConn
	slots     chan struct{} // nil when the handshake is over
	holdsSlot bool          // owned by the goroutine of the handshake, as turns is until it ends

	polled *socket // reads without waiting, if set; owned by the reader
}

// releaseSlot gives the slot back, if there is one.
func (c *handshakeConn) releaseSlot() {
	if c.holdsSlot {
		c.holdsSlot = false
		<-c.slots
	}
}

// finish ends the handshake.
func (c *handshakeConn) finish() {
	c.releaseSlot()
	c.slots = nil
}

// Read implements net.Conn.
func (c *handshakeConn) Read(p []byte) (int, error) {
	if c.polled != nil && len(c.prefix) == 0 {
		return c.polled.readNow(p)
	}
	if c.slots == nil {
		return c.sniffedConn.Read(p)
	}
	c.releaseSlot()
	n, err := c.sniffedConn.Read(p)
	c.slots <- struct{}{} // soon: whoever has a turn computes
	c.holdsSlot = true
	return n, err
}

// Write implements net.Conn.
func (c *handshakeConn) Write(p []byte) (int, error) {
	c.releaseSlot()
	return c.Conn.Write(p)
}
