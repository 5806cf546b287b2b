package turn

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/pion/stun/v4"
)

const (
	channel       = 0x4000 // the only one of each allocation (RFC 8656 section 12)
	channelHeader = 4
	stunHeader    = 20
	largestFrame  = 2048
)

// client holds one allocation with one channel.
type client struct {
	conn           net.Conn
	frames         *bufio.Reader // over a stream; nil over UDP
	user, password string
	realm, nonce   string // of the server's challenge; empty before
	key            stun.MessageIntegrity
	relayed        netip.AddrPort
}

// refusal is an error response.
type refusal struct {
	method stun.Method
	code   stun.ErrorCode
	reason string
}

func (r refusal) Error() string {
	return fmt.Sprintf("%s: refused with %d %s", r.method, r.code, r.reason)
}

// allocate asks for a relayed UDP address of the family of peer.
func (c *client) allocate(ctx context.Context, peer netip.Addr) error {
	attrs := []stun.Setter{
		stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}},
	}
	if peer.Is6() {
		attrs = append(
			attrs,
			stun.RawAttribute{Type: stun.AttrRequestedAddressFamily, Value: []byte{2, 0, 0, 0}},
		)
	}
	answer, err := c.ask(ctx, stun.MethodAllocate, attrs...)
	if err != nil {
		return err
	}
	var relayed stun.XORMappedAddress
	if err := relayed.GetFromAs(answer, stun.AttrXORRelayedAddress); err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	a, _ := netip.AddrFromSlice(relayed.IP)
	c.relayed = netip.AddrPortFrom(a.Unmap(), uint16(relayed.Port))
	return nil
}

// bind binds the channel to the peer, which installs a permission too.
func (c *client) bind(ctx context.Context, peer netip.AddrPort) error {
	number := binary.BigEndian.AppendUint32(nil, channel<<16)
	_, err := c.ask(
		ctx,
		stun.MethodChannelBind,
		stun.RawAttribute{Type: stun.AttrChannelNumber, Value: number},
		peerAddress(peer),
	)
	return err
}

// release deletes the allocation.
func (c *client) release(ctx context.Context) error {
	_, err := c.ask(
		ctx,
		stun.MethodRefresh,
		stun.RawAttribute{Type: stun.AttrLifetime, Value: make([]byte, 4)},
	)
	return err
}

type peerAddress netip.AddrPort

func (p peerAddress) AddTo(m *stun.Message) error {
	a := netip.AddrPort(p)
	x := stun.XORMappedAddress{IP: a.Addr().AsSlice(), Port: int(a.Port())}
	return x.AddToAs(m, stun.AttrXORPeerAddress)
}

// ask sends a request, answers challenges (RFC 8489 section 9.2) and returns the success response.
func (c *client) ask(
	ctx context.Context,
	method stun.Method,
	attrs ...stun.Setter,
) (*stun.Message, error) {
	for range 3 {
		setters := append(
			[]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)},
			attrs...)
		if c.nonce != "" {
			setters = append(
				setters,
				stun.NewUsername(c.user),
				stun.NewRealm(c.realm),
				stun.NewNonce(c.nonce),
				c.key,
			)
		}
		m, err := stun.Build(setters...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", method, err)
		}
		answer, err := c.exchange(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", method, err)
		}
		if answer.Type.Class == stun.ClassSuccessResponse {
			if err := c.key.Check(answer); c.nonce != "" && err != nil {
				return nil, fmt.Errorf("%s: the answer: %w", method, err)
			}
			return answer, nil
		}
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(answer); err != nil {
			return nil, fmt.Errorf("%s: refused without a code: %w", method, err)
		}
		unauthorized := code.Code == stun.CodeUnauthorized && c.nonce == ""
		if !unauthorized && code.Code != stun.CodeStaleNonce {
			return nil, refusal{method, code.Code, string(code.Reason)}
		}
		if err := c.take(answer); err != nil {
			return nil, fmt.Errorf("%s: challenge: %w", method, err)
		}
	}
	return nil, fmt.Errorf("%s: the server keeps asking for another nonce", method)
}

// take stores realm and nonce of a challenge.
func (c *client) take(challenge *stun.Message) error {
	var realm stun.Realm
	var nonce stun.Nonce
	if err := challenge.Parse(&realm, &nonce); err != nil {
		return err
	}
	c.realm, c.nonce = realm.String(), nonce.String()
	c.key = stun.NewLongTermIntegrity(c.user, c.realm, c.password)
	return nil
}

// Over UDP a request is retransmitted after a time that doubles (RFC 8489 section 6.2.1). A stream
// waits once.
const (
	firstWait = 500 * time.Millisecond
	lastWait  = 8 * time.Second
)

var errNoAnswer = errors.New("no answer")

// exchange returns the answer to m, success or error. It skips other messages.
func (c *client) exchange(ctx context.Context, m *stun.Message) (*stun.Message, error) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)); close(ended) })
	defer func() {
		if !stop() {
			<-ended // before another deadline is set
		}
	}()
	wait := firstWait
	if c.frames != nil {
		wait = lastWait
	}
	for buf := make([]byte, largestFrame); wait <= lastWait; wait *= 2 {
		if err := c.conn.SetDeadline(time.Now().Add(wait)); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil { // if it ends later, AfterFunc replaces the deadline
			return nil, err
		}
		if _, err := c.conn.Write(m.Raw); err != nil {
			return nil, err
		}
		answer, err := c.answer(m, buf)
		if answer != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return answer, err
		}
	}
	return nil, errors.Join(errNoAnswer, ctx.Err())
}

// answer reads until the answer to m has come, or the deadline.
func (c *client) answer(m *stun.Message, buf []byte) (*stun.Message, error) {
	for {
		frame, err := c.read(buf)
		if err != nil {
			return nil, err
		}
		answer := stun.New()
		isSTUN := stun.IsMessage(frame) && stun.Decode(frame, answer) == nil
		if isSTUN && answer.TransactionID == m.TransactionID &&
			answer.Type.Method == m.Type.Method {
			return answer, nil
		}
	}
}

// read returns the next message of any kind, without the padding of a stream.
func (c *client) read(buf []byte) ([]byte, error) {
	if c.frames != nil {
		return readFrame(c.frames, buf)
	}
	n, err := c.conn.Read(buf)
	return buf[:n], err
}

// isChannelData tells ChannelData from STUN by the first byte (RFC 8656 section 12).
func isChannelData(p []byte) bool { return len(p) >= channelHeader && p[0] >= 0x40 && p[0] <= 0x4f }

// readFrame reads one STUN message or ChannelData of a stream. There ChannelData is padded to four
// bytes (RFC 8656 section 12.5).
func readFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, buf[:channelHeader]); err != nil {
		return nil, err
	}
	n := channelHeader + int(binary.BigEndian.Uint16(buf[2:]))
	padded := padTo4(n)
	switch {
	case buf[0] < 0x40:
		n += stunHeader - channelHeader
		padded = n
	case !isChannelData(buf):
		return nil, fmt.Errorf("unknown frame that begins with %#x", buf[0])
	}
	if padded > len(buf) {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	_, err := io.ReadFull(r, buf[channelHeader:padded])
	return buf[:n], err
}

func padTo4(n int) int { return (n + 3) &^ 3 }
