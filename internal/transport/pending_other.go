//go:build !unix

package transport

import "net"

// pending is for Unix sockets; elsewhere connections are read as they are.
type pending struct{ net.Conn }

func newPending(net.Conn, []byte) *pending { return nil }
