package raftlog

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// stream connects the rafts of nodes over TLS. It implements raft.StreamLayer.
type stream struct {
	net.Listener
	tls  func() *tls.Config
	log  *slog.Logger
	addr address
}

// handshakeTimeout bounds a handshake of TLS.
const handshakeTimeout = 2 * time.Second

// address is the address at which other nodes reach this one, which may be a name.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// Addr implements net.Listener.
func (s *stream) Addr() net.Addr { return s.addr }

// Accept implements net.Listener. The handshake takes place with the first read.
func (s *stream) Accept() (net.Conn, error) {
	raw, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: tls.Server(raw, s.tls()), log: s.log}, nil
}

// Dial implements raft.StreamLayer.
func (s *stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: s.tls()}
	c, err := d.DialContext(ctx, "tcp", string(to))
	if err != nil && isRefusal(err) {
		s.log.Warn("node refused: it does not prove to belong to this cluster",
			"address", string(to), "error", err)
	}
	return c, err
}

func isRefusal(err error) bool {
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	return errors.As(err, &verify) || errors.As(err, &alert)
}

// conn logs why a peer is refused, which raft would not.
type conn struct {
	*tls.Conn
	log   *slog.Logger
	shook bool // owned by the reader
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if !c.shook {
		c.shook = true
		ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
		err := c.HandshakeContext(ctx)
		cancel()
		if err != nil {
			c.log.Warn("node refused: it does not prove to belong to this cluster",
				"address", c.RemoteAddr().String(), "error", err)
			return 0, err
		}
	}
	return c.Conn.Read(p)
}
