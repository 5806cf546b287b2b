package relay

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"

	"github.com/pion/stun/v4"
)

// A channel number can be bound and used if RFC 5766 allows it, and no other: all where a range may
// end, and samples between.
func TestChannelNumbers(t *testing.T) {
	w, d := offline(4)
	p := offlinePath(1)
	a := offlineAllocation(t, w, p)
	at := netip.MustParseAddrPort("8.8.8.8:9")
	for n := range 1 << 16 {
		if edge := n & 0xfff; edge > 4 && edge < 0xffb && n%61 != 0 { // each costs a signature
			continue
		}
		number := uint16(n)
		want := 400
		if 0x4000 <= n && n <= 0x7ffe {
			want = 0
		}
		m := stun.MustBuild(
			stun.TransactionID,
			stun.NewType(stun.MethodChannelBind, stun.ClassRequest),
			peer(at),
			stun.RawAttribute{
				Type:  stun.AttrChannelNumber,
				Value: []byte{byte(n >> 8), byte(n), 0, 0},
			},
		)
		w.signAs(m, p, "s", "")
		d.forget()
		w.fromClient(p, a, m.Raw)
		answer := &stun.Message{Raw: d.replies[0]}
		if err := answer.Decode(); err != nil || code(answer) != want {
			t.Fatalf("channel %#x: code %d, want %d (%v)", n, code(answer), want, err)
		}
		d.forget()
		w.fromClient(p, a, channelMessage(number, []byte("up")))
		if got := len(d.peerPayloads); got != 1 && want == 0 || got != 0 && want != 0 {
			t.Fatalf("channel %#x: %d packets relayed", n, got)
		}
		a.peers.Store(noPeers) // the next number is for the same peer
		a.lastUp = nil
	}
}

// What a packet or a message of a stream is follows from its first byte, whatever it is: TURN's two
// kinds of message, or nothing.
func TestEveryFirstByte(t *testing.T) {
	s := &Server{}
	s.streams.init(maxStreams)
	w, _ := offline(4)
	before := w.server.Stats().Rejected
	for first := range 256 {
		isChannel, mayBeSTUN := first >= 0x40 && first < 0x80, first < 4
		message := bytes.Clone(bindingRequest)
		if isChannel {
			message = []byte{0, 0, 0, 3, 'a', 'b', 'c', 0}
		}
		message[0] = byte(first)
		w.fromClient(offlinePath(1), nil, message)
		after := w.server.Stats().Rejected
		rejected := func(r reasonCode) bool {
			return after[reasonNames[r]] != before[reasonNames[r]]
		}
		if got := rejected(reasonNoAllocation); got != isChannel {
			t.Errorf("a packet that begins with %#x is ChannelData: %v", first, got)
		}
		if got := !rejected(reasonMalformed); got != (isChannel || mayBeSTUN) {
			t.Errorf("a packet that begins with %#x is a message: %v", first, got)
		}
		before = after
		for _, earlier := range [][]byte{nil, bindingRequest} {
			messages, err := readAll(
				newStream(
					s,
					nil,
					&scripted{rest: append(bytes.Clone(earlier), message...), piece: 7},
				),
			)
			good := mayBeSTUN || isChannel && earlier != nil
			if good &&
				(!errors.Is(err, io.EOF) || !bytes.Equal(messages[len(messages)-1], message)) ||
				!good && !errors.Is(err, errFraming) {
				t.Errorf("a stream with %#x after %d bytes: %d messages, %v",
					first, len(earlier), len(messages), err)
			}
		}
	}
}
