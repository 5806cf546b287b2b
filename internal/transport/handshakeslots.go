package transport

import "runtime"

// maxHandshakes is the number of handshake slots. A TLS handshake takes a processor for most of a
// millisecond. When a thousand clients reconnect at once, established sessions would wait behind
// all of them, so one processor is left for those.
func maxHandshakes() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// handshakeConn is the connection below TLS. During the handshake it acquires a slot when data has
// arrived, and releases it with the answer or to wait for more data. A slow or silent client holds
// no slot.
type handshakeConn struct {
	sniffedConn

	// Owned by the goroutine of the handshake until that ends.
	slots     chan struct{} // nil after the handshake
	holdsSlot bool

	// Owned by the reader.
	polled *socket // if set, reads do not wait
}

// releaseSlot releases the slot, if one is held.
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
	c.slots <- struct{}{} // does not wait long: a holder of a slot only computes
	c.holdsSlot = true
	return n, err
}

// Write implements net.Conn.
func (c *handshakeConn) Write(p []byte) (int, error) {
	c.releaseSlot()
	return c.Conn.Write(p)
}
