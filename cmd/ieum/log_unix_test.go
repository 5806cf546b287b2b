//go:build unix

package main

import (
	"crypto/tls"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// unread starts a server with a log whose reader has ended by the time it is up.
func unread(t *testing.T, pattern string, args ...string) (said string, c *exec.Cmd) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c = exec.Command(os.Args[0], "-test.run=^$")
	c.Env = append(os.Environ(), runAs+"="+strings.Join(args, "\n"))
	all, _ := launch(t, c, w, pattern)
	_ = r.Close()
	return all[0], c
}

// Whoever reads the log of a server may end; the server goes on.
func TestAServerOutlivesTheReaderOfItsLog(t *testing.T) {
	at, server := unread(
		t, `127.0.0.1:\d+/$`, "serve", "--dev", "--listen", "127.0.0.1:0", "--stun-listen", "off",
		"--admin-listen", "off",
	)
	host := strings.TrimSuffix(at, "/")
	var login map[string]any
	if _, body := get(
		t, "http://"+host+"/dev/license",
	); json.Unmarshal([]byte(body), &login) != nil {
		t.Fatal(body)
	}
	login["eventOp"] = "register"
	for range 3 { // each is logged
		m := connect(t, host, new(atomic.Int64))
		m.ask(t, login)
		_ = m.ws.NetConn().Close()
	}
	first := connect(t, host, new(atomic.Int64))
	defer first.ws.NetConn().Close()
	first.ask(t, login)
	if err := server.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	first.ask(t, map[string]any{"eventOp": "createRoom"})
}

func TestARelayOutlivesTheReaderOfItsLog(t *testing.T) {
	cert, tlsKey := filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")
	pair(t, cert, tlsKey)
	said, relay := unread(
		t, `TCP port \d+`, "relay",
		"--listen", "127.0.0.1:0",
		"--stun-listen", "off",
		"--admin-listen", "off",
		"--relay-secret-file", file(t, "secret", key),
		"--tls-cert", cert,
		"--tls-key", tlsKey,
	)
	at := "127.0.0.1:" + strings.TrimPrefix(said, "TCP port ")
	for range 3 { // each is logged, before the next is done
		serial := pair(t, cert, tlsKey)
		if err := relay.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for shown := false; !shown; {
			c, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			shown = c.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(serial) == 0
			_ = c.Close()
		}
	}
}

// A command that prints and ends is ended by whoever reads no further, as any is.
func TestCommandsThatPrintEndWithTheirReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	c := exec.Command(os.Args[0], "-test.run=^$")
	c.Env, c.Stdout = append(os.Environ(), runAs+"=version"), w
	err = c.Run()
	_ = w.Close()
	if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() ||
		status.Signal() != syscall.SIGPIPE {
		t.Errorf("%v, %v", c.ProcessState, err)
	}
}
