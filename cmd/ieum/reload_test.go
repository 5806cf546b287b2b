package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lxzan/gws"
)

// pair writes a certificate for localhost and its key, and returns its serial number.
func pair(t *testing.T, cert, key string) *big.Int {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		DNSNames:     []string{"localhost"},
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	rewrite(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return serial
}

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// logLines hands out the lines of a process's log; what nobody takes is dropped.
func logLines() (w io.WriteCloser, lines chan string) {
	r, pipe := io.Pipe()
	lines = make(chan string, 256)
	go func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			select {
			case lines <- s.Text():
			default:
			}
		}
		_ = r.Close()
	}()
	return pipe, lines
}

// A server gets new certificates, keys and licenses by SIGHUP, and lists of revoked licenses by
// itself, while a session goes on; a file with an error changes nothing.
func TestHangupReadsTheFilesAgain(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGHUP")
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	const next = "another key, of thirty-two bytes."
	license := func(key string) string {
		code, out, errs := ieum(
			t, "license", "issue", "--cp-code", "KP-1", "--json", "--license-signing-key-file",
			file(t, "key", key),
		)
		var l issued
		if err := json.Unmarshal([]byte(out), &l); code != exitOK || err != nil {
			t.Fatal(code, err, errs)
		}
		return l.AuthKey
	}
	oldLicense, newLicense := license(key), license(next)
	first := pair(t, path("cert"), path("tls-key"))
	rewrite(t, path("keys"), key)
	rewrite(t, path("revoked"), "")
	log, lines := logLines()
	t.Cleanup(func() { _ = log.Close() })
	at, process, kill := spawn(
		t, log, "serve",
		"--listen", "127.0.0.1:0",
		"--stun-listen", "off",
		"--admin-listen", "off",
		"--relay-ip", "127.0.0.1",
		"--license-signing-key-file", path("keys"),
		"--revocation-list", path("revoked"),
		"--tls-cert", path("cert"),
		"--tls-key", path("tls-key"),
	)

	hangup := func(want string) {
		t.Helper()
		if err := process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for limit := time.After(20 * time.Second); ; {
			select {
			case line := <-lines:
				if strings.Contains(line, want) {
					return
				}
			case <-limit:
				t.Fatalf("%q is not logged", want)
			}
		}
	}
	serial := func() *big.Int {
		t.Helper()
		conn, err := tls.Dial("tcp", at.Host, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber
	}
	user := func(id, authKey string) (*member, string) {
		t.Helper()
		m := &member{
			closed:  make(chan int, 1),
			answers: make(chan map[string]any, 64),
			events:  make(chan map[string]any, 64),
			passed:  new(atomic.Int64),
		}
		var err error
		if m.ws, _, err = gws.NewClient(
			m,
			&gws.ClientOption{
				Addr:      "wss://" + at.Host + "/signal",
				TlsConfig: &tls.Config{InsecureSkipVerify: true},
			},
		); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.ws.NetConn().Close() })
		go m.ws.ReadLoop()
		q, _ := json.Marshal(
			map[string]any{
				"eventOp": "register",
				"reqId":   "1",
				"cpCode":  "KP-1",
				"authKey": authKey,
				"userId":  id,
			},
		)
		if err := m.ws.WriteMessage(gws.OpcodeText, q); err != nil {
			t.Fatal(err)
		}
		code, _ := await(t, m.answers)["code"].(string)
		return m, code
	}
	admits := func(authKey, want string) {
		t.Helper()
		m, code := user("", authKey)
		if code != want {
			t.Errorf("answered %s, want %s", code, want)
		}
		_ = m.ws.WriteClose(1000, nil)
	}

	kim, code := user("kim", oldLicense)
	if code != "200" || serial().Cmp(first) != 0 {
		t.Fatalf("at the start: %s", code)
	}
	kim.ask(t, map[string]any{"eventOp": "createRoom", "roomId": "K1"})
	kim.ask(t, map[string]any{"eventOp": "joinRoom", "roomId": "K1"})
	goesOn := func() {
		t.Helper()
		a := kim.ask(t, map[string]any{"eventOp": "memberList", "roomId": "K1"})
		if members, _ := a["members"].(map[string]any); len(members) != 1 {
			t.Errorf("the old session is answered %v", a)
		}
	}

	second := pair(t, path("cert"), path("tls-key"))
	rewrite(t, path("keys"), next+"\n"+key+"\n")
	hangup("configuration reloaded")
	if serial().Cmp(second) != 0 {
		t.Error("the next handshake has the old certificate")
	}
	admits(oldLicense, "200")
	admits(newLicense, "200")
	goesOn()

	third := pair(t, path("cert"), path("tls-key"))
	rewrite(t, path("keys"), "too short")
	hangup("configuration reload failed")
	if s := serial(); s.Cmp(third) == 0 || s.Cmp(second) != 0 {
		t.Error("the certificate was taken over though the keys have an error")
	}
	admits(oldLicense, "200")
	admits(newLicense, "200")
	goesOn()

	rewrite(t, path("keys"), next+"\n")
	hangup("configuration reloaded")
	if serial().Cmp(third) != 0 {
		t.Error("mended, the certificate was not taken over")
	}
	admits(oldLicense, "401")
	admits(newLicense, "200")
	goesOn()

	rewrite(t, path("revoked"), fmt.Sprintf("%x\n", sha256.Sum256([]byte(oldLicense))))
	hangup("configuration reloaded")
	select {
	case code := <-kim.closed:
		if code != 4003 {
			t.Errorf("closed with %d", code)
		}
	case <-time.After(20 * time.Second):
		t.Error("the session of a revoked license goes on")
	}
	admits(newLicense, "200")
	kill()
}
