//go:build !linux

package transport

import (
	"net"
	"time"
)

func setTCPUserTimeout(net.Conn, time.Duration) {}
