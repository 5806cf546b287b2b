package transport

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

type silentReceiver struct{ closed chan End }

func (silentReceiver) Message([]byte, Reply) {}
func (r silentReceiver) Closed(e End)        { r.closed <- e }

// Such a length is negative as a signed number; the library's reader used to panic on it and took the server along.
func TestFrameLengthBeyondSignedRangeEndsOnlyItsConnection(t *testing.T) {
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
			c, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			const hello = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
			if _, err := io.WriteString(c, hello); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(c)
			if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%v, %v", resp, err)
			}
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
