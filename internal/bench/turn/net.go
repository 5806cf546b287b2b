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

// withIO calls f with what moves packets between the parties. Meanwhile f alone uses their sockets.
func (p *parties) withIO(ctx context.Context, t *traffic, f func(packetIO) error) error {
	if p.cfg.Transport == "udp" && !p.cfg.portable {
		return p.withMmsgIO(ctx, t, f)
	}
	return p.withNetIO(ctx, t, f)
}

// netIO uses package net: a goroutine reads each socket, and one call sends one datagram, or one
// burst over a stream.
type netIO struct {
	*parties
	*traffic
	frames []byte // a burst with its headers
	size   int    // of one of them, padding included
}

func (p *parties) withNetIO(ctx context.Context, t *traffic, f func(packetIO) error) error {
	c := &netIO{parties: p, traffic: t, size: channelHeader + t.cfg.Size}
	if p.cfg.Transport != "udp" {
		c.size = padTo4(c.size)
	}
	c.frames = make([]byte, c.size*t.cfg.Burst)
	for i := 0; i < len(c.frames); i += c.size {
		putChannel(c.frames[i:], t.cfg.Size)
	}
	// a stream blocks its writer until then if the server stops reading
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

// channelPayload is the payload of ChannelData of our channel, and nil for other frames. Over UDP
// padding may follow.
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

func (c *netIO) send(f *flow, allocation int, measured bool) {
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
			_, err = c.peer.WriteToUDPAddrPort(
				c.frames[i+channelHeader:][:c.traffic.cfg.Size],
				c.clients[allocation].relayed,
			)
		} else {
			_, err = conn.Write(c.frames[i : i+channelHeader+c.traffic.cfg.Size])
		}
		if err != nil {
			f.unsent(1, measured, err)
		}
	}
}

func (c *netIO) receive(after time.Duration, _ bool) {
	if after > 0 {
		time.Sleep(after)
	}
}

func (c *netIO) readPeer() {
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

func (c *netIO) readClient(i int) {
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

// ended records why a reader ended, unless it was stopped.
func (c *netIO) ended(err error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		c.fail(err)
	}
}
