package mismatch

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/logtest"
)

func TestKeysInCommon(t *testing.T) {
	for own, want := range map[string]bool{"bb": true, "cc,aa": true, "cc": false, "a": false} {
		if ShareKey("aa,bb", strings.Split(own, ",")) != want {
			t.Errorf("%s: %v", own, !want)
		}
	}
}

func TestWarningsAreNotRepeated(t *testing.T) {
	log := &logtest.Buffer{}
	w := New(slog.New(slog.NewTextHandler(log, nil)))
	for range 3 {
		w.Version("n1", "v1", "v2")
		w.Version("n2", "v1", "v1")
		w.Clock("n1", time.Now().Add(time.Hour).UnixMilli())
		w.Clock("n2", time.Now().UnixMilli())
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 2 {
		t.Errorf("%d warnings, want 2: %s", n, log.String())
	}
	for i := range 2 * maxWarnings {
		w.Tell(fmt.Sprint(i), "text")
	}
	if n := strings.Count(log.String(), "level=WARN"); n > maxWarnings+1 {
		t.Errorf("%d warnings, want %d at most", n, maxWarnings+1)
	}
}
