package transport

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/logtest"
)

// fragile panics at one message, and answers the others with themselves.
type fragile struct{ echo }

func (f *fragile) Message(msg []byte, r Reply) {
	if string(msg) == "panic" {
		panic("bug in a handler")
	}
	f.echo.Message(msg, r)
}

func TestPanicClosesOnlyItsConnection(t *testing.T) {
	fragments := append(masked(0x01, "pa"), masked(0x80, "nic")...)
	for name, frames := range map[string][]byte{
		"whole": masked(0x81, "panic"), "fragments": fragments,
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, ways, func(t *testing.T, w way) {
				log, ends := &logtest.Buffer{}, make(chan End, 2)
				cfg := unswept
				cfg.Log = slog.New(slog.NewTextHandler(log, nil))
				cfg.Panics = NewPanics(cfg.Log)
				s := openSite(t, w, cfg, func(c Conn) Receiver { return &fragile{echo{c, ends}} })
				first, other := s.dial(), s.dial()
				s.say(other, "before")
				s.expect(other, "before")
				s.send(first, append(frames, masked(0x81, "not read")...))
				if op, got := framed(t, first.in); op != opClose ||
					got != "\x03\xf3internal error" {
					t.Errorf("got %d %q, want a close frame with 1011", op, got)
				}
				_ = first.Close()
				if e := <-ends; e != (End{Code: StatusInternalError, Panicked: true}) {
					t.Errorf("ended as %+v", e)
				}
				s.say(other, "after")
				s.expect(other, "after")
				if n := cfg.Panics.Count(); n != 1 {
					t.Errorf("%d panics were counted", n)
				}
				got := log.String()
				if !strings.Contains(got, "bug in a handler") ||
					!strings.Contains(got, "(*fragile).Message") {
					t.Errorf("the log has no panic with its stack: %s", got)
				}
			})
		})
	}
}

func TestPanicsAreLoggedOncePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logtest.Buffer{}
		p := NewPanics(slog.New(slog.NewTextHandler(log, nil)))
		for range 3 {
			for range 100 {
				p.Report("bug")
			}
			time.Sleep(panicLogInterval)
		}
		if n := strings.Count(log.String(), "panic while handling"); n != 3 || p.Count() != 300 {
			t.Errorf("%d of %d panics were logged, want 3 of 300", n, p.Count())
		}
	})
}
