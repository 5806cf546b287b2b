//go:build !linux

package transport

import "testing"

func checkPoller(*testing.T, *WebSocket) {}

func cork(*testing.T, *guest) {}
