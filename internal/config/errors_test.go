package config

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// An address that cannot be opened is reported with what to do about it.
func TestAddressesThatCannotBeOpened(t *testing.T) {
	at := &net.TCPAddr{IP: net.IPv4zero, Port: 443}
	for errno, want := range map[syscall.Errno]string{
		syscall.EACCES:        "setcap cap_net_bind_service=+ep",
		syscall.EADDRINUSE:    "is in use",
		syscall.EADDRNOTAVAIL: "is not an address of this machine",
	} {
		err := ListenError(
			"--listen",
			&net.OpError{
				Op:   "listen",
				Net:  "tcp",
				Addr: at,
				Err:  os.NewSyscallError("bind", errno),
			},
		)
		var e *Error
		if !errors.As(err, &e) || e.Setting != "--listen" ||
			!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "0.0.0.0:443") {
			t.Errorf("%v: %v", errno, err)
		}
	}
}
