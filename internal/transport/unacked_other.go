//go:build !linux

package transport

import (
	"net"
	"time"
)

func limitUnacked(net.Conn, time.Duration) {}
