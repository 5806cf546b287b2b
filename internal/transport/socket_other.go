//go:build !linux

package transport

import "net"

// socket and poller are for Linux. Elsewhere a goroutine reads each connection.
type socket struct{}

func newSocket(*wsConn, net.Conn) (*socket, func([]byte) (int, error)) { return nil, nil }

func (*socket) handOver()                   {}
func (*socket) readNow([]byte) (int, error) { return 0, nil }

type poller struct{}

func newPoller() *poller { return nil }

func (*poller) add(*socket) bool { return false }
func (*poller) remove(*socket)   {}
func (*poller) close()           {}
