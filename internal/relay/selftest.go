package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v4"
)

// selfTenant is no tenant's hash.
const selfTenant = "self"

// retryInterval is how long the self-test waits for an answer before it asks again: the packets do
// not leave this machine.
const retryInterval = 200 * time.Millisecond

// selfTest is what a server needs to be a client of itself. Its session has a name of this process,
// in no room, and is known only while a test runs; nobody else can have the password, which takes
// the secret.
type selfTest struct {
	session string // tenant and name, as allocations know it
	mu      sync.Mutex
	running atomic.Bool
}

func (t *selfTest) init() {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	t.session = selfTenant + "." + hex.EncodeToString(b[:])
}

// SelfTest allocates at this relay over UDP, sends a packet to its own relayed address, and returns
// nil once it has come back. It ends with ctx. The allocation counts in Stats like others, and
// makes no Record.
func (s *Server) SelfTest(ctx context.Context) error {
	s.self.mu.Lock()
	defer s.self.mu.Unlock()
	s.self.running.Store(true)
	defer s.self.running.Store(false)
	if err := s.RefreshAddresses(); err != nil {
		return fmt.Errorf("relay self-test: %w", err)
	}
	here := s.addresses()
	if err := here.lostError(); err != nil {
		return fmt.Errorf("relay self-test: %w", err)
	}
	var d net.Dialer
	conn, err := d.DialContext(
		ctx,
		"udp",
		netip.AddrPortFrom(here.testedAddress(), s.port).String(),
	)
	if err != nil {
		return fmt.Errorf("relay self-test: %w", err)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = conn.Close(); close(ended) })
	defer func() {
		if stop() {
			_ = conn.Close()
		} else {
			<-ended
		}
	}()
	t := &tester{conn: conn}
	t.user, t.password = s.Credentials(
		selfTenant,
		strings.TrimPrefix(s.self.session, selfTenant+"."),
	)
	err = t.run(here.relays[0].Public)
	if ctx.Err() != nil {
		err = errors.Join(errNoAnswer, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("relay self-test: %w", err)
	}
	return nil
}

var errNoAnswer = errors.New("no answer")

// testedAddress is one that the relay listens at, the one it relays from if it can be.
func (p *hostAddresses) testedAddress() netip.Addr {
	for _, r := range p.relays {
		if slices.Contains(p.listening, r.Private) {
			return r.Private
		}
	}
	return p.listening[0]
}

// tester is the client of a self-test.
type tester struct {
	conn           net.Conn
	user, password string
	challenged     bool
	realm          stun.Realm
	nonce          stun.Nonce
	key            stun.MessageIntegrity
}

// run asks for an address of the family of public, and gets a packet through it.
func (t *tester) run(public netip.Addr) error {
	wanted := []byte{1, 0, 0, 0}
	if public.Is6() {
		wanted[0] = 2
	}
	m, err := t.ask(
		stun.MethodAllocate,
		stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}},
		stun.RawAttribute{Type: stun.AttrRequestedAddressFamily, Value: wanted},
	)
	if err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	// whatever follows, the address is given back
	defer func() {
		_, _ = t.ask(
			stun.MethodRefresh,
			stun.RawAttribute{Type: stun.AttrLifetime, Value: make([]byte, 4)},
		)
	}()
	var relayed stun.XORMappedAddress
	if err := relayed.GetFromAs(m, stun.AttrXORRelayedAddress); err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	number := binary.BigEndian.AppendUint32(nil, testChannel<<16)
	channel := stun.RawAttribute{Type: stun.AttrChannelNumber, Value: number}
	if _, err := t.ask(stun.MethodChannelBind, channel, peerAttribute(relayed)); err != nil {
		return fmt.Errorf("bind a channel: %w", err)
	}
	return t.roundTrip()
}

// testChannel is the first number of RFC 8656 section 12.
const testChannel = 0x4000

// peerAttribute is the address of a peer.
type peerAttribute stun.XORMappedAddress

func (p peerAttribute) AddTo(m *stun.Message) error {
	return stun.XORMappedAddress(p).AddToAs(m, stun.AttrXORPeerAddress)
}

// roundTrip sends a packet to the relayed address, which is its own peer, until it comes back.
func (t *tester) roundTrip() error {
	packet := make([]byte, 4+16)
	binary.BigEndian.PutUint16(packet, testChannel)
	binary.BigEndian.PutUint16(packet[2:], 16)
	_, _ = rand.Read(packet[4:])
	return t.exchange(packet, func(got []byte) bool { return bytes.Equal(got, packet) })
}

// ask returns the success response to a request, for which it answers the challenge for credentials
// (RFC 8489 section 9.2).
func (t *tester) ask(method stun.Method, attrs ...stun.Setter) (*stun.Message, error) {
	for range 3 {
		setters := append(
			[]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)},
			attrs...)
		if t.challenged {
			setters = append(setters, stun.NewUsername(t.user), t.realm, t.nonce, t.key)
		}
		m, err := stun.Build(setters...)
		if err != nil {
			return nil, err
		}
		answer := stun.New()
		err = t.exchange(m.Raw, func(got []byte) bool {
			return stun.IsMessage(got) && stun.Decode(got, answer) == nil &&
				answer.TransactionID == m.TransactionID
		})
		if err != nil || answer.Type.Class == stun.ClassSuccessResponse {
			return answer, err
		}
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(answer); err != nil {
			return nil, err
		}
		if code.Code != stun.CodeStaleNonce &&
			(t.challenged || code.Code != stun.CodeUnauthorized) {
			return nil, fmt.Errorf("refused with %s", code)
		}
		if err := answer.Parse(&t.realm, &t.nonce); err != nil {
			return nil, err
		}
		t.key = stun.NewLongTermIntegrity(t.user, t.realm.String(), t.password)
		t.challenged = true
	}
	return nil, errors.New("asked for another nonce each time")
}

// exchange sends raw until something comes that is good. Closing conn ends it.
func (t *tester) exchange(raw []byte, good func([]byte) bool) error {
	for buf := make([]byte, 2048); ; {
		if _, err := t.conn.Write(raw); err != nil {
			return err
		}
		if err := t.conn.SetReadDeadline(time.Now().Add(retryInterval)); err != nil {
			return err
		}
		for {
			n, err := t.conn.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if good(buf[:n]) {
				return nil
			}
		}
	}
}
