package revocation

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
	"go.uber.org/goleak"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hashOf(token string) string { return fmt.Sprintf("%x\n", sha256.Sum256([]byte(token))) }

// A list that is rewritten in place is short for a moment. What it holds at the end is revoked
// meanwhile too.
func TestAListThatIsRewrittenRevokesAllTheTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked")
	one, two := hashOf("one"), hashOf("two")
	synctest.Test(t, func(t *testing.T) {
		write(t, path, one+two)
		begin, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		list := new(license.Revoked)
		list.Set(begin.Hashes)
		w := Watch(path, begin, list, func() {}, slog.New(slog.DiscardHandler))
		defer w.Close()
		time.Sleep(pollEvery / 2)
		for _, part := range []string{"", one, one + two[:len(two)-9]} {
			write(t, path, part)
			time.Sleep(pollEvery) // read once
			if list.Len() != 2 {
				t.Errorf("with %d bytes written %d entries are in force", len(part), list.Len())
			}
			write(t, path, one+two)
			time.Sleep(pollEvery)
		}
		write(t, path, one)
		w.Reload()
		if list.Len() != 1 {
			t.Errorf("after a reload %d entries are in force", list.Len())
		}
	})
}

func TestTheListOfRevokedLicensesFollowsItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked")
	one, two := hashOf("one"), hashOf("two")
	synctest.Test(t, func(t *testing.T) {
		log, list, applied := &logtest.Buffer{}, new(license.Revoked), atomic.Int64{}
		write(t, path, one)
		begin, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		list.Set(begin.Hashes)
		r := Watch(
			path, begin, list, func() { applied.Add(1) }, slog.New(slog.NewTextHandler(log, nil)),
		)
		defer r.Close()
		registry := prometheus.NewRegistry()
		registry.MustRegister(r.Collector())
		metrics := func(inForce, stale int) string {
			return fmt.Sprintf(
				"# HELP ieum_revocation_list_entries "+
					"Entries of the revocation list in force: licenses and user tokens.\n"+
					"# TYPE ieum_revocation_list_entries gauge\n"+
					"ieum_revocation_list_entries %d\n"+
					"# HELP ieum_revocation_list_stale "+
					"1 while the file of the revocation list cannot be read or has errors: "+
					"an older list is in force.\n"+
					"# TYPE ieum_revocation_list_stale gauge\n"+
					"ieum_revocation_list_stale %d\n",
				inForce,
				stale,
			)
		}
		time.Sleep(pollEvery / 4) // to write at other times than it is read
		// a file that stays as it is for a minute is looked at often, applied once and complained
		// of once
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
			{"as before the errors", one + two, 2, 0, 1, 3},
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
				t.Errorf(
					"%s: after 5 s %d are in force, applied %d times",
					step.name, list.Len(), applied.Load(),
				)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if applied.Load() != step.applied {
				t.Errorf("%s: applied %d times", step.name, applied.Load())
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != step.said {
				t.Errorf("%s: %d errors logged, want %d:\n%s",
					step.name, n, step.said, log.String())
			}
			want := strings.NewReader(metrics(step.inForce, step.stale))
			if err := testutil.GatherAndCompare(registry, want); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
		}
		for _, want := range []string{"line 2: ", "line 4: ", "keeping the previous one"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%q is not logged:\n%s", want, log.String())
			}
		}
	})
}
