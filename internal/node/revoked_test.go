package node

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ieum-rtc/ieum/internal/license"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hashOf(token string) string { return fmt.Sprintf("%x\n", sha256.Sum256([]byte(token))) }

func TestTheListOfRevokedLicensesFollowsItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked")
	one, two := hashOf("one"), hashOf("two")
	synctest.Test(t, func(t *testing.T) {
		log, list, applied := &lockedText{}, new(license.Revoked), atomic.Int64{}
		write(t, path, one)
		begin, err := readRevoked(path)
		if err != nil {
			t.Fatal(err)
		}
		list.Set(begin.hashes)
		r := watchRevoked(path, begin.text, list, func() { applied.Add(1) }, slog.New(slog.NewTextHandler(log, nil)))
		defer r.close()
		registry := prometheus.NewRegistry()
		if err := r.register(registry); err != nil {
			t.Fatal(err)
		}
		figures := func(inForce, stale int) string {
			return fmt.Sprintf("# HELP ieum_licenses_revoked Licenses and user tokens on the list of revoked ones that is in force.\n"+
				"# TYPE ieum_licenses_revoked gauge\nieum_licenses_revoked %d\n"+
				"# HELP ieum_licenses_revoked_stale 1 while that list's file has faults, so that an older list is in force.\n"+
				"# TYPE ieum_licenses_revoked_stale gauge\nieum_licenses_revoked_stale %d\n", inForce, stale)
		}
		time.Sleep(revokedEvery / 4) // to write at other times than it is read
		// a file that stays as it is for a minute is looked at often, applied once and complained of once
		for _, step := range []struct {
			name, text     string
			inForce, stale int
			applied        int64 // from the start
			said           int
		}{
			{"as at the start", one, 1, 0, 0, 0},
			{"one more", one + two, 2, 0, 1, 0},
			{"a bad line", one + "nonsense\n", 2, 1, 1, 1},
			{"another", one + "\n\nnonsense\n", 2, 1, 1, 2},
			{"no file", "", 2, 1, 1, 3},
			{"as before the faults", one + two, 2, 0, 1, 3},
			{"half written", one + two[:30], 2, 1, 1, 4},
			{"of the same length", two + one, 2, 0, 2, 4},
			{"one less", two, 1, 0, 3, 4},
			{"nothing", "\n", 0, 0, 4, 4},
		} {
			if step.name == "no file" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else {
				write(t, path, step.text)
			}
			time.Sleep(5 * time.Second)
			if list.Len() != step.inForce || applied.Load() != step.applied {
				t.Errorf("%s: after 5 s %d are in force, applied %d times", step.name, list.Len(), applied.Load())
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if applied.Load() != step.applied {
				t.Errorf("%s: applied %d times", step.name, applied.Load())
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != step.said {
				t.Errorf("%s: %d faults logged, want %d:\n%s", step.name, n, step.said, log)
			}
			if err := testutil.GatherAndCompare(registry, strings.NewReader(figures(step.inForce, step.stale))); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
		}
		for _, want := range []string{"line 2: ", "line 4: ", "fix the file"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%q is not logged:\n%s", want, log)
			}
		}
	})
}

func TestFaultsOfTheListOfRevokedLicensesKeepAServerFromStarting(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	write(t, bad, hashOf("x")+"nonsense\n")
	for path, want := range map[string]string{bad: "line 2: ", dir: "not a file", filepath.Join(dir, "none"): "no such file"} {
		c := Config{Dev: true, LicenseRevoked: path, Listen: "127.0.0.1:0", Relay: anyPorts, Admin: noAdmin}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "--license-revoked: ") || !strings.Contains(err.Error(), want) {
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
	v, err := license.New(license.Config{Keys: [][]byte{[]byte(licenseKey)}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := v.Issue(license.Params{
		Name: name, CpCode: "KP-1", MaxUser: 10, Start: time.Now().Add(-time.Hour), End: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

const licenseKey = "0123456789abcdef0123456789abcdef"

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

// What internal/signaling and internal/relay test in virtual time, once over real sockets and a real file: who has a revoked license is
// put out of the call and of the relay, and others notice nothing.
func TestARevokedLicenseEndsItsSessionsAndWhatTheyRelay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked")
	write(t, path, "# nobody\n")
	log := &lockedText{}
	n := start(t, Config{
		Dev: true, LicenseKey: licenseKey, LicenseRevoked: path, Admin: AdminSettings{Listen: "127.0.0.1:0"},
		Log: slog.New(slog.NewTextHandler(log, nil)),
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
	has(t, metrics, "ieum_licenses_revoked 1\n")
	has(t, metrics, "ieum_relay_allocations 1\n")
	has(t, metrics, `ieum_relay_ended_total{transport="udp",why="session"} 1`)
	if err := goes(); err == nil {
		t.Error("the allocation of the revoked license lives")
	}
	if err := stays(); err != nil {
		t.Errorf("the other's allocation: %v", err)
	}
	lee.ask(map[string]any{"eventOp": "keepAlive"})
	a := register(t, n, map[string]any{"cpCode": "KP-1", "authKey": misused}, true)
	b := register(t, n, map[string]any{"cpCode": "KP-1", "authKey": misused[:len(misused)-4] + "AAAA"}, true)
	if a["code"] != "401" || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("a revoked license is answered %v, a bad one %v", a, b)
	}
	has(t, metrics, `ieum_signaling_logins_refused_total{reason="revoked"} 1`)
	if strings.Contains(log.String(), misused) || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the log has the license, or errors:\n%s", log)
	}
}
