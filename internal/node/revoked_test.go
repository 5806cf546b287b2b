package node

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/logtest"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hashOf(token string) string { return fmt.Sprintf("%x\n", sha256.Sum256([]byte(token))) }

func TestErrorsInTheRevocationListKeepAServerFromStarting(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	write(t, bad, hashOf("x")+"nonsense\n")
	for path, want := range map[string]string{
		bad:                        "line 2: ",
		dir:                        "not a regular file",
		filepath.Join(dir, "none"): "no such file",
	} {
		c := config.Server{
			Dev:            true,
			RevocationList: path,
			Listen:         "127.0.0.1:0",
			Relay:          anyPorts,
			Admin:          noAdmin,
		}
		if err := c.Validate(); err == nil ||
			!strings.Contains(
				err.Error(), "--revocation-list: ",
			) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
		if n, err := Start(c); err == nil {
			t.Errorf("%s: started", path)
			_ = n.Close(t.Context())
		}
	}
}

// issued is a license of the tenant "KP-1" with the key of the tests.
func issued(t *testing.T, name string) string {
	t.Helper()
	v, err := license.New(license.Config{Keys: [][]byte{[]byte(signingKey)}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := v.Issue(license.Params{
		Name:    name,
		CpCode:  "KP-1",
		MaxUser: 10,
		Start:   time.Now().Add(-time.Hour),
		End:     time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

const signingKey = "0123456789abcdef0123456789abcdef"

// closing notes the code with which the server closes a connection.
func (c *caller) closing(t *testing.T) int {
	t.Helper()
	select {
	case <-c.h.done:
	case <-time.After(failSafe):
		t.Fatal("the connection is open")
	}
	return c.h.code
}

// What internal/signaling and internal/relay test in virtual time, once over real sockets and a
// real file: who has a revoked license is put out of the call and of the relay, and others notice
// nothing.
func TestARevokedLicenseEndsItsSessionsAndWhatTheyRelay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked")
	write(t, path, "# nobody\n")
	log := &logtest.Buffer{}
	n := start(t, config.Server{
		Dev:               true,
		LicenseSigningKey: signingKey,
		RevocationList:    path,
		Admin:             config.AdminSettings{Listen: "127.0.0.1:0"},
		Log:               slog.New(slog.NewTextHandler(log, nil)),
	})
	good, misused := issued(t, "good"), issued(t, "misused")
	kim := call(t, n, map[string]any{"cpCode": "KP-1", "authKey": misused, "userId": "kim"})
	lee := call(t, n, map[string]any{"cpCode": "KP-1", "authKey": good, "userId": "lee"})
	kim.join()
	lee.join()
	stays, goes := lee.hold(), kim.hold()
	metrics := "http://" + n.AdminAddr().String() + "/metrics"
	has(t, metrics, "ieum_relay_allocations 2\n")

	write(t, path, hashOf(misused))
	if code := kim.closing(t); code != 4003 {
		t.Errorf("closed with %d, want 4003", code)
	}
	has(t, metrics, "ieum_revocation_list_entries 1\n")
	has(t, metrics, "ieum_relay_allocations 1\n")
	has(t, metrics, `ieum_relay_allocations_closed_total{reason="session",transport="udp"} 1`)
	if err := goes(); err == nil {
		t.Error("the allocation of the revoked license lives")
	}
	if err := stays(); err != nil {
		t.Errorf("the other's allocation: %v", err)
	}
	lee.ask(map[string]any{"eventOp": "keepAlive"})
	a := register(t, n, map[string]any{"cpCode": "KP-1", "authKey": misused}, true)
	b := register(
		t, n, map[string]any{"cpCode": "KP-1", "authKey": misused[:len(misused)-4] + "AAAA"}, true,
	)
	if a["code"] != "401" || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("a revoked license is answered %v, a bad one %v", a, b)
	}
	has(t, metrics, `ieum_signaling_logins_refused_total{reason="revoked"} 1`)
	if strings.Contains(log.String(), misused) || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the log has the license, or errors:\n%s", log)
	}
}
