package relay

import (
	"bytes"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
)

func dontFragment() stun.Setter { return stun.RawAttribute{Type: stun.AttrDontFragment} }

// DONT-FRAGMENT is honoured, or refused with 420 (RFC 8656 section 7.2): never taken and ignored.
func TestDontFragment(t *testing.T) {
	s := start(t, nil)
	far := udpPeer(t, peerHost(t))
	c := dial(t, s, "udp", "t", "s")
	c.challenge()
	answer := c.ask(stun.MethodAllocate, transport(17), dontFragment())
	honoured := s.workers[0].driver.fragments()
	if honoured {
		if got := code(answer); got != 0 {
			t.Fatalf("Allocate: %d", got)
		}
	} else {
		unknown, err := answer.Get(stun.AttrUnknownAttributes)
		if got := code(answer); got != 420 || err != nil || !bytes.Equal(unknown, []byte{0, 0x1a}) {
			t.Fatalf("Allocate: %d, unknown %x, %v", got, unknown, err)
		}
		c.allocate()
	}
	c.permit(localOf(far).Addr())
	m := stun.MustBuild(
		stun.TransactionID,
		stun.NewType(stun.MethodSend, stun.ClassIndication),
		peer(localOf(far)),
		dontFragment(),
		stun.RawAttribute{Type: stun.AttrData, Value: []byte("whole")},
	)
	c.send(m.Raw)
	c.indicate(localOf(far), "in any form")
	if data, _ := receiveAt(t, far); honoured != (data == "whole") {
		t.Errorf("honoured is %v, peer got %q", honoured, data)
	}
	if got := refusedBy(s, reasonMalformed); honoured != (got == 0) {
		t.Errorf("honoured is %v, %d dropped", honoured, got)
	}
}

// Packets far larger than a link takes go through all buffers, on every way.
func TestLargePackets(t *testing.T) {
	s := start(t, nil)
	far := udpPeer(t, peerHost(t))
	for _, network := range transports {
		c, b := dial(t, s, network, "t", "s"), dial(t, s, network, "t", "b")
		relayed, atB := c.allocate(), b.allocate()
		if one, two, three := c.bind(
			0x4000, localOf(far),
		), c.bind(0x4001, atB), b.permit(relayed.Addr()); one != 0 ||
			two != 0 ||
			three != 0 {
			t.Fatalf("channels: %d, %d, permission: %d", one, two, three)
		}
		for _, size := range []int{
			0, 1, 2, 3, 1200, 1472, 1473, frameSize - 5, frameSize - 4, frameSize - 3, frameSize,
			frameSize + 1, 4096, 8192,
		} {
			data := string(bytes.Repeat([]byte{byte(size)}, size))
			c.channelData(0x4000, data)
			if got, from := receiveAt(t, far); got != data || from != relayed {
				t.Errorf("%s, %d up: %d from %v", network, size, len(got), from)
			}
			sendFrom(t, far, relayed, data)
			if got, _ := c.receive(); got != data {
				t.Errorf("%s, %d down: %d", network, size, len(got))
			}
			c.channelData(0x4001, data)
			if got, from := b.receive(); got != data || from != relayed {
				t.Errorf("%s, %d inside: %d from %v", network, size, len(got), from)
			}
			b.indicate(relayed, data)
			if got, _ := c.receive(); got != data {
				t.Errorf("%s, %d back: %d", network, size, len(got))
			}
		}
	}
}

// A payload that fills a ChannelData message does not fit into a Data indication. It is lost: with
// a length of 16 bits its end would be read as messages of their own.
func TestPayloadTooLargeForADataIndicationIsLost(t *testing.T) {
	s := start(t, nil)
	from, to := dial(t, s, "tcp", "t", "a"), dial(t, s, "tcp", "t", "b")
	fromAt, toAt := from.allocate(), to.allocate()
	if got := to.permit(fromAt.Addr()); got != 0 {
		t.Fatalf("permission: %d", got)
	}
	if got := from.bind(minChannel, toAt); got != 0 {
		t.Fatalf("channel: %d", got)
	}
	// XOR-PEER-ADDRESS has 12 bytes, the header of DATA 4.
	const most = math.MaxUint16&^3 - 12 - 4
	for _, size := range []int{most + 1, math.MaxUint16} {
		from.channelData(minChannel, strings.Repeat("x", size))
		from.channelData(minChannel, "end")
		if data, _ := to.receive(); data != "end" {
			t.Errorf("after %d bytes the client got %d", size, len(data))
		}
	}
	from.channelData(minChannel, strings.Repeat("x", most))
	if _, err := io.ReadFull(to.conn, make([]byte, stunHeader+12+4+most)); err != nil {
		t.Error(err)
	}
	to.ask(stun.MethodBinding)
	if got := refusedBy(s, reasonUnsent); got != 2 || len(to.data) != 0 {
		t.Errorf("%d lost, %d messages left", got, len(to.data))
	}
}
