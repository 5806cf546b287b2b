package transport

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type silentReceiver struct{ closed chan End }

func (silentReceiver) Message([]byte, Reply) {}
func (r silentReceiver) Closed(e End)        { r.closed <- e }

// rawClient opens a WebSocket by hand; early is sent in one write with the request.
func rawClient(t *testing.T, addr string, early []byte) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return c, greet(t, c, early)
}

func rawTLS(t *testing.T, srv *httptest.Server) (net.Conn, *bufio.Reader) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	c, err := tls.Dial("tcp", srv.Listener.Addr().String(),
		&tls.Config{RootCAs: roots, ServerName: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	return c, greet(t, c, nil)
}

func greet(t testing.TB, c net.Conn, early []byte) *bufio.Reader {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const upgrade = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err := c.Write(append([]byte(upgrade), early...)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	// RFC 6455, section 1.3, has this key and answer for an example
	if a := resp.Header.Get("Sec-WebSocket-Accept"); a != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("accepted with %q", a)
	}
	return in
}

// framed is what the server sends, as text.
func framed(t *testing.T, in *bufio.Reader) (op byte, payload string) {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(in, head); err != nil {
		t.Fatal(err)
	}
	n := int(head[1])
	if n > maxControl {
		ext := make([]byte, map[int]int{126: 2, 127: 8}[n])
		if _, err := io.ReadFull(in, ext); err != nil {
			t.Fatal(err)
		}
		n = 0
		for _, b := range ext {
			n = n<<8 | int(b)
		}
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(in, b); err != nil {
		t.Fatal(err)
	}
	return head[0] & 0x0F, string(b)
}

// masked is a frame as clients send it.
func masked(first byte, payload string) []byte {
	f := appendFrame(nil, 0, []byte(payload))
	head := len(f) - len(payload)
	f[0], f[1] = first, f[1]|maskBit
	key := []byte{0x37, 0xfa, 0x21, 0x3d}
	out := append(append([]byte{}, f[:head]...), key...)
	for i := range len(payload) {
		out = append(out, payload[i]^key[i%4])
	}
	return out
}

// heard writes down what frames bring.
type heard struct{ log []string }

func (h *heard) onMessage(op byte, p []byte) { h.log = append(h.log, fmt.Sprintf("%d %q", op, p)) }
func (h *heard) onSmallFrame() error         { return nil }
func (h *heard) onControl(op byte, p []byte) error {
	h.log = append(h.log, fmt.Sprintf("control %d %q", op, p))
	if op == opClose {
		return errCloseFrame
	}
	return nil
}

// read feeds b in pieces of size bytes.
func read(b []byte, size, limit int) ([]string, error) {
	var h heard
	f := frameScanner{limit: limit}
	defer f.release()
	for len(b) > 0 {
		piece := bytes.Clone(b[:min(size, len(b))])
		b = b[len(piece):]
		if err := f.scan(piece, &h); err != nil {
			return h.log, err
		}
	}
	return h.log, nil
}

func TestFramesInPieces(t *testing.T) {
	long := strings.Repeat("0123456789", 1000)
	var wire []byte
	var want []string
	for _, f := range []struct {
		first   byte
		payload string
		want    string
	}{
		{0x81, "Hello", `1 "Hello"`},
		{0x81, "", `1 ""`},
		{0x82, long, fmt.Sprintf("2 %q", long)},
		{0x81, long[:126], fmt.Sprintf("1 %q", long[:126])},
		{0x01, "in ", ""},
		{0x89, "ping", `control 9 "ping"`},
		{0x00, "", ""},
		{0x8A, "", `control 10 ""`},
		{0x80, "pieces", `1 "in pieces"`},
		{0x01, "", ""},
		{0x80, "", `1 ""`},
		{0x88, "\x03\xe8bye", `control 8 "\x03\xe8bye"`},
	} {
		wire = append(wire, masked(f.first, f.payload)...)
		if f.want != "" {
			want = append(want, f.want)
		}
	}
	wire = append(wire, "what follows the close frame is not read"...)
	for size := 1; size <= len(wire); size = size*5/4 + 1 {
		if got, err := read(wire, size, 1<<20); !errors.Is(err, errCloseFrame) ||
			!slices.Equal(got, want) {
			t.Fatalf("in pieces of %d: %v, %.300q", size, err, got)
		}
	}
}

func TestInvalidFrames(t *testing.T) {
	text := masked(0x81, "x")
	for name, c := range map[string]struct {
		wire []byte
		code StatusCode
	}{
		"not masked":              {[]byte{0x81, 1, 'x'}, 1002},
		"reserved bit 1":          {masked(0xC1, "x"), 1002},
		"reserved bit 3":          {masked(0x91, "x"), 1002},
		"reserved opcode":         {masked(0x83, "x"), 1002},
		"reserved control opcode": {masked(0x8B, "x"), 1002},
		"control in pieces":       {masked(0x09, "x"), 1002},
		"control too long":        {masked(0x89, strings.Repeat("x", 126)), 1002},
		"continuation of nothing": {masked(0x80, "x"), 1002},
		"text inside a message":   {append(masked(0x01, "x"), text...), 1002},
		"one byte too many":       {masked(0x81, strings.Repeat("x", 301)), 1009},
		"too many in pieces": {
			append(masked(0x01, strings.Repeat("x", 200)),
				masked(0x80, strings.Repeat("x", 101))...),
			1009,
		},
		"too long, nothing came yet": {
			[]byte{0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4}, 1009,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 3, 1000} {
				got, err := read(append(bytes.Clone(text), c.wire...), size, 300)
				var refused *frameError
				if !errors.As(err, &refused) || refused.code != c.code {
					t.Errorf("error %v, want %d", err, c.code)
				}
				if len(got) != 1 {
					t.Errorf("got %q", got)
				}
			}
		})
	}
}

func TestCloseFrames(t *testing.T) {
	for payload, want := range map[string]StatusCode{
		"": 1005, "\x03\xe8": 1000, "\x03\xe9bye": 1001, "\x0b\xb8": 3000, "\x0f\xa0한": 4000,
		"\x13\x87": 4999,
		"\x03":     -1002, "\x00\x00": -1002, "\x03\xe7": -1002, "\x03\xec": -1002,
		"\x03\xed": -1002, "\x03\xee": -1002, "\x03\xf7": -1002,
		"\x07\xd0": -1002, "\x13\x88": -1002, "\x03\xe8\xff": -1007,
	} {
		code, err := parseClose([]byte(payload))
		var refused *frameError
		if errors.As(err, &refused) {
			code = -refused.code
		}
		if code != want {
			t.Errorf("%q: %d, want %d", payload, code, want)
		}
	}
	if b := appendClose(nil, 1008, strings.Repeat("x", 200)); len(b) != 2+maxControl ||
		b[1] != maxControl {
		t.Errorf("a long reason makes % x", b)
	}
}

// However a stream is cut up, the same comes out, and never more than the limit at a time.
func FuzzFrames(f *testing.F) {
	f.Add(append(masked(0x01, "a"), masked(0x80, "b")...), 3)
	f.Add(append(masked(0x89, "ping"), masked(0x81, strings.Repeat("x", 130))...), 7)
	f.Add(masked(0x88, "\x03\xe8"), 1)
	f.Add([]byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, 2)
	f.Fuzz(func(t *testing.T, wire []byte, size int) {
		if size < 1 || len(wire) > 1<<16 {
			return
		}
		const limit = 200
		whole, wholeErr := read(wire, len(wire)+1, limit)
		pieces, err := read(wire, size, limit)
		if fmt.Sprint(wholeErr) != fmt.Sprint(err) || !slices.Equal(whole, pieces) {
			t.Errorf("whole: %v %q\nin pieces of %d: %v %q", wholeErr, whole, size, err, pieces)
		}
		for _, m := range whole {
			if len(m) > 4*limit+20 {
				t.Errorf("%d bytes in one message", len(m))
			}
		}
	})
}

func TestFrameLengthBeyondSignedRange(t *testing.T) {
	for name, length := range map[string][]byte{
		"2^63":   {0x80, 0, 0, 0, 0, 0, 0, 0},
		"2^64-1": {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"2^62":   {0x40, 0, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := silentReceiver{make(chan End, 1)}
			ws := NewWebSocket(Config{}, func(Conn) Receiver { return r })
			srv := httptest.NewServer(ws)
			defer srv.Close()
			defer func() {
				if err := ws.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			c, in := rawClient(t, srv.Listener.Addr().String(), nil)
			frame := append([]byte{0x81, 0xff}, length...)
			if _, err := c.Write(append(frame, 1, 2, 3, 4, 5, 6)); err != nil {
				t.Fatal(err)
			}
			header := make([]byte, 4)
			if _, err := io.ReadFull(in, header); err != nil {
				t.Fatal(err)
			}
			if code := int(header[2])<<8 | int(header[3]); header[0] != 0x88 || code != 1009 {
				t.Errorf("got frame % x, want a close frame with 1009", header)
			}
			if e := <-r.closed; e.Gone {
				t.Errorf("ended as %+v", e)
			}
		})
	}
}

// Frames that bring no message are work all the same, and a client may send so many a second.
func TestSmallFramesAreLimited(t *testing.T) {
	for name, frame := range map[string][]byte{
		"pings":               masked(finBit|opPing, ""),
		"pongs":               masked(finBit|opPong, strings.Repeat("x", maxControl)),
		"empty continuations": masked(opContinuation, ""),
		"small pieces":        masked(opContinuation, "x"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, e, nc := stuck(t, Config{})
				go func() { _, _ = io.Copy(io.Discard, nc) }()
				write := func(b []byte) { _, _ = nc.Write(bytes.Clone(b)) }
				start := 0
				if frame[0] == opContinuation {
					write(masked(opText, ""))
					start = 1
				}
				for range 3 { // seconds
					for range maxSmallFrames - start {
						write(frame)
					}
					start = 0
					synctest.Wait()
					if c.closing.Load() {
						t.Fatal("closed by what it may send in a second")
					}
					time.Sleep(time.Second)
					synctest.Wait()
				}
				for range maxSmallFrames + 1 {
					write(frame)
				}
				synctest.Wait()
				if end := <-e.end; !end.TooManyFrames || end.Gone {
					t.Errorf("ended with %+v", end)
				}
			})
		})
	}
}

// A message in pieces of a usual size is none of them.
func TestLargeFragmentsAreNotSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, nc := stuck(t, Config{})
		go func() { _, _ = io.Copy(io.Discard, nc) }()
		for range 50 {
			_, _ = nc.Write(masked(opText, strings.Repeat("x", smallFrame)))
			for range 62 {
				_, _ = nc.Write(masked(opContinuation, strings.Repeat("x", smallFrame)))
			}
			_, _ = nc.Write(masked(finBit|opContinuation, "x"))
		}
		synctest.Wait()
		if c.closing.Load() {
			t.Error("closed")
		}
	})
}
