package turn

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"
)

// scripted is a client whose server answers requests one after the other as the script says; an
// empty answer is none. Time is virtual.
func scripted(
	t *testing.T,
	script ...func(request *stun.Message) []byte,
) (c *client, finish func()) {
	t.Helper()
	near, far := net.Pipe() // keeps what is written together
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, largestFrame)
		for _, answer := range script {
			n, err := far.Read(buf)
			if err != nil {
				t.Error("a request is missing:", err)
				return
			}
			request := stun.New()
			if err := stun.Decode(buf[:n], request); err != nil {
				t.Error(err)
				return
			}
			if raw := answer(request); len(raw) > 0 {
				_, _ = far.Write(raw)
			}
		}
	}()
	return &client{conn: near, user: "u", password: "p"}, func() {
		<-done
		_ = near.Close()
		_ = far.Close()
	}
}

func silent(*stun.Message) []byte { return nil }

func respond(class stun.MessageClass, attrs ...stun.Setter) func(*stun.Message) []byte {
	return func(r *stun.Message) []byte {
		return stun.MustBuild(
			append(
				[]stun.Setter{
					stun.NewTransactionIDSetter(r.TransactionID),
					stun.NewType(r.Type.Method, class),
				},
				attrs...)...).Raw
	}
}

func refused(code stun.ErrorCode, attrs ...stun.Setter) func(*stun.Message) []byte {
	return respond(
		stun.ClassErrorResponse,
		append(
			[]stun.Setter{stun.ErrorCodeAttribute{Code: code, Reason: []byte("why")}},
			attrs...)...)
}

func challenge(code stun.ErrorCode, nonce string) func(*stun.Message) []byte {
	return refused(code, stun.NewRealm("r"), stun.NewNonce(nonce))
}

// grant answers with the relayed address, when the request has the nonce and good integrity.
func grant(t *testing.T, nonce string) func(*stun.Message) []byte {
	return func(r *stun.Message) []byte {
		key := stun.NewLongTermIntegrity("u", "r", "p")
		var got stun.Nonce
		if err := got.GetFrom(r); err != nil || got.String() != nonce || key.Check(r) != nil {
			t.Errorf("nonce %q, %v", got, err)
		}
		return respond(stun.ClassSuccessResponse, relayedAddress("192.0.2.1:7"), key)(r)
	}
}

type relayedAddress string

func (a relayedAddress) AddTo(m *stun.Message) error {
	ap := netip.MustParseAddrPort(string(a))
	return stun.XORMappedAddress{
		IP:   ap.Addr().AsSlice(),
		Port: int(ap.Port()),
	}.AddToAs(
		m,
		stun.AttrXORRelayedAddress,
	)
}

func TestTURNClientAnswersChallenges(t *testing.T) {
	other := func(r *stun.Message) []byte {
		r.TransactionID[0]++
		return respond(stun.ClassSuccessResponse)(r)
	}
	for name, c := range map[string]struct {
		script []func(*stun.Message) []byte
		takes  time.Duration
		err    string
	}{
		"first": {script: []func(*stun.Message) []byte{
			challenge(401, "1"),
			grant(t, "1"),
		}},
		"nonce has aged": {script: []func(*stun.Message) []byte{
			challenge(401, "1"),
			challenge(438, "2"),
			grant(t, "2"),
		}},
		"lost once": {script: []func(*stun.Message) []byte{
			silent,
			challenge(401, "1"),
			grant(t, "1"),
		}, takes: firstWait},
		"lost twice": {script: []func(*stun.Message) []byte{
			silent,
			silent,
			challenge(401, "1"),
			grant(t, "1"),
		}, takes: 3 * firstWait},
		"another's answer, then ours": {script: []func(*stun.Message) []byte{
			other,
			challenge(401, "1"),
			grant(t, "1"),
		}, takes: firstWait},
		"no answer at all": {script: []func(*stun.Message) []byte{
			silent,
			silent,
			silent,
			silent,
			silent,
		}, takes: 31 * firstWait, err: "no answer"},
		"wrong credentials": {script: []func(*stun.Message) []byte{
			challenge(401, "1"),
			challenge(401, "2"),
		}, err: "refused with 401"},
		"never content": {script: []func(*stun.Message) []byte{
			challenge(401, "1"),
			challenge(438, "2"),
			challenge(438, "3"),
		}, err: "another nonce"},
		"quota": {script: []func(*stun.Message) []byte{
			challenge(401, "1"),
			refused(486),
		}, err: "refused with 486 why"},
		"challenge without a nonce": {script: []func(*stun.Message) []byte{
			refused(401),
		}, err: "challenge"},
		"refusal without a code": {script: []func(*stun.Message) []byte{
			respond(stun.ClassErrorResponse),
		}, err: "without a code"},
		"success of somebody else's": {script: []func(*stun.Message) []byte{
			challenge(401, "1"),
			respond(stun.ClassSuccessResponse, relayedAddress("192.0.2.9:9")),
		}, err: "the answer"},
		"success without the address": {script: []func(*stun.Message) []byte{
			respond(stun.ClassSuccessResponse),
		}, err: "allocate"},
		"allocated without credential": {
			script: []func(*stun.Message) []byte{
				respond(stun.ClassSuccessResponse, relayedAddress("192.0.2.1:7")),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, finish := scripted(t, c.script...)
				defer finish()
				start := time.Now()
				err := client.allocate(t.Context(), netip.MustParseAddr("192.0.2.2"))
				if took := time.Since(start); took != c.takes {
					t.Errorf("took %v, want %v", took, c.takes)
				}
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) {
						t.Errorf("error %v", err)
					}
				} else if err != nil || client.relayed.String() != "192.0.2.1:7" {
					t.Errorf("%v, relayed %v", err, client.relayed)
				}
			})
		})
	}
}

func TestTURNClientAsksForTheFamilyOfThePeer(t *testing.T) {
	for peer, want := range map[string]string{"192.0.2.2": "", "2001:db8::2": "02000000"} {
		synctest.Test(t, func(t *testing.T) {
			client, finish := scripted(t, func(r *stun.Message) []byte {
				family, _ := r.Get(stun.AttrRequestedAddressFamily)
				if hex.EncodeToString(family) != want {
					t.Errorf("%s: family %x", peer, family)
				}
				return refused(440)(r)
			})
			defer finish()
			var r refusal
			if err := client.allocate(t.Context(), netip.MustParseAddr(peer)); !errors.As(
				err,
				&r,
			) ||
				r.code != 440 {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTURNClientGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, finish := scripted(t, silent)
		defer finish()
		ctx, cancel := context.WithTimeout(t.Context(), firstWait/2)
		defer cancel()
		start := time.Now()
		if err := client.release(ctx); !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(start) != firstWait/2 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// coturn remembers the client's port for a while after its allocation was given back.
func TestAPortThatTheServerStillKnowsIsExchanged(t *testing.T) {
	for name, c := range map[string]struct {
		refusals int
		ok       bool
	}{"one port": {1, true}, "two ports": {2, true}, "every port": {100, false}} {
		t.Run(name, func(t *testing.T) {
			server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			ports := make(chan map[int]bool)
			go func() {
				seen := map[int]bool{}
				defer func() { ports <- seen }()
				buf := make([]byte, largestFrame)
				for {
					n, from, err := server.ReadFromUDP(buf)
					if err != nil {
						return
					}
					request := stun.New()
					if err := stun.Decode(buf[:n], request); err != nil {
						t.Error(err)
						return
					}
					seen[from.Port] = true
					answer := respond(stun.ClassSuccessResponse, relayedAddress("192.0.2.1:7"))
					if len(seen) <= c.refusals {
						answer = refused(stun.CodeAllocMismatch)
					}
					_, _ = server.WriteTo(answer(request), from)
				}
			}()
			cfg := Config{
				Server:      server.LocalAddr().String(),
				Secret:      relaySecret,
				Shape:       ShapeIdle,
				Allocations: 1,
			}
			if _, err := Run(t.Context(), cfg); (err == nil) != c.ok {
				t.Errorf("error %v", err)
			}
			_ = server.Close()
			if seen := <-ports; len(seen) != min(c.refusals+1, 3) {
				t.Errorf("%d ports", len(seen))
			}
		})
	}
}

func TestFramesOfAStream(t *testing.T) {
	binding := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewSoftware("x")).Raw
	data := []byte{0x40, 0, 0, 5, 1, 2, 3, 4, 5}
	var stream bytes.Buffer
	stream.Write(binding)
	stream.Write(append(bytes.Clone(data), 0, 0, 0)) // padded
	stream.Write([]byte{0x40, 0, 0, 0})
	stream.Write(binding)
	r, buf := bufio.NewReader(&stream), make([]byte, largestFrame)
	for i, want := range [][]byte{binding, data, {0x40, 0, 0, 0}, binding} {
		if got, err := readFrame(r, buf); err != nil || !bytes.Equal(got, want) {
			t.Errorf("frame %d: %x, %v", i, got, err)
		}
	}
	if _, err := readFrame(r, buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for name, raw := range map[string][]byte{
		"cut":       {0x40, 0, 0, 5, 1, 2},
		"too long":  {0x40, 0, 0xff, 0xff},
		"long STUN": {0, 1, 0xff, 0xfc},
		"neither":   {0x80, 0, 0, 0, 0, 0, 0, 0},
	} {
		if got, err := readFrame(bufio.NewReader(bytes.NewReader(raw)), buf); err == nil {
			t.Errorf("%s: %x", name, got)
		}
	}
}

func TestPayloadOfChannelData(t *testing.T) {
	for text, want := range map[string]string{
		"40000002abcd":     "abcd",
		"40000002abcd0000": "abcd", // padded
		"40000000":         "",
		"40000003abcd":     "-", // cut
		"40010002abcd":     "-", // not our channel
		"400000":           "-",
		"00010000":         "-", // STUN
		"":                 "-",
	} {
		frame, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		got := "-"
		if p := channelPayload(frame); p != nil {
			got = hex.EncodeToString(p)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
