package transport

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// shake does one handshake.
func shake(addr string) error {
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	return c.Close()
}

func TestHandshakeSlotsAreLimited(t *testing.T) {
	most := maxHandshakes()
	clients := 4*most + 4
	var computing, top atomic.Int64
	entered, release := make(chan struct{}, clients), make(chan struct{})
	cfg := serverTLS()
	cert := cfg.Certificates[0]
	cfg.Certificates = nil
	// Between the client's words and the answer.
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		n := computing.Add(1)
		defer computing.Add(-1)
		for old := top.Load(); n > old && !top.CompareAndSwap(old, n); old = top.Load() {
		}
		entered <- struct{}{}
		<-release
		return &cert, nil
	}
	p := openPort(t, MuxConfig{TLS: cfg})
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			if err := shake(p.addr); err != nil {
				t.Error(err)
			}
		})
	}
	for range most {
		<-entered
	}
	for p.Stats().Pending < clients { // all are there, and wait for a turn
		runtime.Gosched()
	}
	close(release)
	all.Wait()
	if n := top.Load(); n > int64(most) {
		t.Errorf("%d handshakes were computed at a time, %d may be", n, most)
	}
}

// Whoever says half of something, or something wrong, has no turn or gives it back.
func TestSilentAndInvalidClientsHoldNoSlot(t *testing.T) {
	p := openPort(t, MuxConfig{TLS: serverTLS()})
	for range 3 * maxHandshakes() {
		half, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer half.Close()
		_, _ = half.Write([]byte{recordHandshake, 3, 1, 2, 0, 1})

		if _, err := tls.Dial("tcp", p.addr, &tls.Config{
			InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10,
		}); err == nil {
			t.Fatal("an old version was taken")
		}
		stops, err := net.Dial("tcp", p.addr) // says what it wants and does not end the handshake
		if err != nil {
			t.Fatal(err)
		}
		defer stops.Close()
		deaf := &deafConn{Conn: stops}
		_ = tls.Client(deaf, &tls.Config{InsecureSkipVerify: true}).Handshake()
	}
	if err := shake(p.addr); err != nil {
		t.Error(err)
	}
	if n := len(p.handshakeSlots); n != 0 {
		t.Errorf("%d turns were not given back", n)
	}
}

// deafConn hears nothing but that it is heard: its client goes after its first words.
type deafConn struct{ net.Conn }

func (c *deafConn) Read(b []byte) (int, error) {
	// The server's answer has come, with which it gave its turn back.
	if _, err := c.Conn.Read(b); err != nil {
		return 0, err
	}
	return 0, io.ErrUnexpectedEOF
}
