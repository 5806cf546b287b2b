//go:build linux

// Package netns makes, enters and removes network namespaces, all of one run by their common
// prefix.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// Dir is where iproute2 keeps named namespaces.
const Dir = "/run/netns"

// Do runs f on a thread that is inside the namespace. What f opens (sockets, TUN devices, files
// under /proc/sys/net) belongs to it.
func Do(name string, f func() error) error {
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		restored := false
		// A thread that could not be put back stays locked and ends with this goroutine.
		defer func() {
			if restored {
				runtime.UnlockOSThread()
			}
		}()
		err := func() error {
			home, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer func() { _ = home.Close() }()
			there, err := os.Open(filepath.Join(Dir, name))
			if err != nil {
				return err
			}
			defer func() { _ = there.Close() }()
			if err := setns(there); err != nil {
				return fmt.Errorf("enter namespace %s: %w", name, err)
			}
			err = f()
			back := setns(home)
			restored = back == nil
			return errors.Join(err, back)
		}()
		errs <- err
	}()
	return <-errs
}

// The numbers of setns(2), which package syscall lacks on some architectures.
var setnsNumber = map[string]uintptr{"amd64": 308, "arm64": 268}

func setns(f *os.File) error {
	nr, ok := setnsNumber[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("the number of setns is not known for %s", runtime.GOARCH)
	}
	if _, _, e := syscall.RawSyscall(nr, f.Fd(), syscall.CLONE_NEWNET, 0); e != 0 {
		return e
	}
	return nil
}

// OpenTUN makes the TUN device dev inside the namespace; the file reads and writes one IP packet a
// call.
func OpenTUN(name, dev string) (*os.File, error) {
	var file *os.File
	err := Do(name, func() error {
		fd, err := syscall.Open(
			"/dev/net/tun",
			syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK,
			0,
		)
		if err != nil {
			return fmt.Errorf("/dev/net/tun: %w", err)
		}
		// struct ifreq of linux/if.h: the name, then a union whose first field is here the flags.
		req := struct {
			name  [syscall.IFNAMSIZ]byte
			flags uint16
			_     [22]byte
		}{flags: syscall.IFF_TUN | syscall.IFF_NO_PI}
		copy(req.name[:syscall.IFNAMSIZ-1], dev)
		if _, _, e := syscall.Syscall(
			syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&req)),
		); e != 0 {
			_ = syscall.Close(fd)
			return fmt.Errorf("make TUN device %s in %s: %w", dev, name, e)
		}
		// Only now: a TUN file without a device would confuse the poller.
		file = os.NewFile(uintptr(fd), name+"/"+dev)
		return nil
	})
	return file, err
}

// Sysctl writes a value under /proc/sys inside the namespace; key with slashes, such as
// net/ipv4/ip_forward.
func Sysctl(name, key, value string) error {
	return Do(
		name,
		func() error { return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644) },
	)
}

// Run runs a program (not inside a namespace) with the text as its input; the error holds what it
// complained about.
func Run(input string, argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf(
			"%s: %w: %s",
			strings.Join(argv, " "),
			err,
			strings.TrimSpace(string(out)),
		)
	}
	return nil
}
