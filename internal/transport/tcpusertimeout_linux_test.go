package transport

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Through the port as it is served, where first bytes are peeked at, plain and with TLS: the limit
// is on the socket below.
func TestTCPUserTimeoutIsSet(t *testing.T) {
	for _, secure := range []bool{false, true} {
		limits := make(chan int, 1)
		ws := NewWebSocket(Config{TCPUserTimeout: 7 * time.Second}, func(c Conn) Receiver {
			err := rawConnOf(c.(*wsConn).net).Control(func(fd uintptr) {
				ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
				if err != nil {
					t.Error(err)
				}
				limits <- ms
			})
			if err != nil {
				t.Error(err)
			}
			return &echo{c, make(chan End, 1)}
		})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := NewMux(l, MuxConfig{TLS: serverTLS(), TURN: func(c net.Conn) { _ = c.Close() }})
		srv := &http.Server{Handler: ws}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = srv.Serve(s)
		}()
		var c net.Conn
		if secure {
			c, err = tls.Dial("tcp", l.Addr().String(),
				&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		} else {
			c, err = net.Dial("tcp", l.Addr().String())
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Write(
			[]byte("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"),
		)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if ms := <-limits; ms != 7000 {
			t.Errorf("TLS %v: %d ms", secure, ms)
		}
		_ = c.Close()
		_ = ws.Close(t.Context())
		_ = srv.Close()
		<-done
	}
}
