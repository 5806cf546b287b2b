package turn

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// carry lets f move packets between the parties, whose sockets nobody else may use meanwhile.
func (p *parties) carry(ctx context.Context, t *traffic, f func(carrier) error) error {
	if p.cfg.Transport == "udp" && !p.cfg.plain {
		return p.carryFast(ctx, t, f)
	}
	return p.carryPlain(ctx, t, f)
}

// plainCarrier uses the net package: a goroutine reads each socket, and one call sends one datagram, or one burst into a stream.
type plainCarrier struct {
	*parties
	*traffic
	frames []byte // a burst with its headers
	size   int    // of one of them, padding included
}

func (p *parties) carryPlain(ctx context.Context, t *traffic, f func(carrier) error) error {
	c := &plainCarrier{parties: p, traffic: t, size: channelHeader + t.cfg.Size}
	if p.cfg.Transport != "udp" {
		c.size = padTo4(c.size)
	}
	c.frames = make([]byte, c.size*t.cfg.Burst)
	for i := 0; i < len(c.frames); i += c.size {
		putChannel(c.frames[i:], t.cfg.Size)
	}
	// a stream whose server reads nothing any more blocks its writer until then
	end := time.Now().Add(t.cfg.WarmUp + t.cfg.Duration + 2*drainLimit)
	p.deadline(end)
	stop := context.AfterFunc(ctx, func() { p.deadline(time.Unix(1, 0)) })
	defer stop()
	var readers sync.WaitGroup
	if t.atClient != nil {
		for i := range p.clients {
			readers.Go(func() { c.readClient(i) })
		}
	}
	if p.peer != nil {
		readers.Go(c.readPeer)
	}
	err := f(c)
	p.deadline(time.Unix(1, 0))
	readers.Wait()
	p.deadline(time.Time{})
	return err
}

// deadline of all sockets.
func (p *parties) deadline(at time.Time) {
	for _, c := range p.clients {
		_ = c.conn.SetDeadline(at)
	}
	if p.peer != nil {
		_ = p.peer.SetDeadline(at)
	}
}

// putChannel writes the header of ChannelData (RFC 8656 section 12.4).
func putChannel(p []byte, size int) {
	binary.BigEndian.PutUint16(p, channel)
	binary.BigEndian.PutUint16(p[2:], uint16(size))
}

// channelPayload is what a frame carries, or nil when it is not ChannelData of our channel. Over UDP padding may follow.
func channelPayload(frame []byte) []byte {
	if !isChannelData(frame) || binary.BigEndian.Uint16(frame) != channel {
		return nil
	}
	n := int(binary.BigEndian.Uint16(frame[2:]))
	if channelHeader+n > len(frame) {
		return nil
	}
	return frame[channelHeader : channelHeader+n]
}

func (c *plainCarrier) send(f *flow, allocation int, measured bool) {
	now := time.Now().UnixNano()
	for i := 0; i < len(c.frames); i += c.size {
		f.stamp(c.frames[i+channelHeader:][:c.traffic.cfg.Size], allocation, measured, now)
	}
	conn := c.clients[allocation].conn
	if c.clients[allocation].frames != nil && f != c.down() {
		if _, err := conn.Write(c.frames); err != nil {
			f.unsent(c.traffic.cfg.Burst, measured, err)
		}
		return
	}
	for i := 0; i < len(c.frames); i += c.size {
		var err error
		if f == c.down() {
			_, err = c.peer.WriteToUDPAddrPort(c.frames[i+channelHeader:][:c.traffic.cfg.Size], c.clients[allocation].relayed)
		} else {
			_, err = conn.Write(c.frames[i : i+channelHeader+c.traffic.cfg.Size])
		}
		if err != nil {
			f.unsent(1, measured, err)
		}
	}
}

func (c *plainCarrier) receive(after time.Duration, _ bool) {
	if after > 0 {
		time.Sleep(after)
	}
}

func (c *plainCarrier) readPeer() {
	buf := make([]byte, largestFrame)
	for {
		n, _, err := c.peer.ReadFromUDPAddrPort(buf)
		if err != nil {
			c.ended(err)
			return
		}
		c.atThePeer(buf[:n], time.Now().UnixNano())
	}
}

func (c *plainCarrier) readClient(i int) {
	buf := make([]byte, largestFrame)
	for {
		frame, err := c.clients[i].read(buf)
		if err != nil {
			c.ended(err)
			return
		}
		if frame = channelPayload(frame); frame != nil { // else a late answer
			c.atAClient(i, frame, time.Now().UnixNano())
		}
	}
}

// ended keeps the reason why a reader ended, unless it was told to.
func (c *plainCarrier) ended(err error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		c.fail(err)
	}
}
