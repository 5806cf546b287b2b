package socketio

import (
	"testing"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// panicking answers messages, and panics at one.
type panicking struct{ *user }

func (p panicking) Message(msg []byte, r transport.Reply) {
	if string(msg) == `"panic"` {
		panic("bug in a handler")
	}
	p.user.Message(msg, r)
}

// newPanickyRig is newRig with receivers that can panic.
func newPanickyRig(t *testing.T) *rig {
	g := newRig(t, Config{})
	accept := g.accept
	g.accept = func(c transport.Conn) transport.Receiver {
		return panicking{accept(c).(*user)}
	}
	return g
}

const panicEvent = `42["knowledgetalk","panic"]`

var panicEnd = transport.End{Code: transport.StatusInternalError, Panicked: true}

func TestPanicClosesOnlyItsPollingSession(t *testing.T) {
	g := newPanickyRig(t)
	for i, version := range []string{"3", "4"} {
		p, other := g.connect(version), g.connect(version)
		if status, _ := p.raw(p.frame(panicEvent)); status != 500 {
			t.Errorf("status %d, want 500", status)
		}
		p.wantEnd(panicEnd)
		if got, want := p.poll(), p.frame("1"); got != want {
			t.Errorf("polled %q, want the close packet %q", got, want)
		}
		other.post(`42["knowledgetalk",{"a":1}]`)
		if got, want := other.poll(), other.frame(`42["knowledgetalk",{"a":1}]`); got != want {
			t.Errorf("the other session polled %q, want %q", got, want)
		}
		if n := g.cfg.Conn.Panics.Count(); n != uint64(i)+1 {
			t.Errorf("%d panics were counted, want %d", n, i+1)
		}
	}
}

func TestPanicClosesOnlyItsWebSocketSession(t *testing.T) {
	g := newPanickyRig(t)
	host := g.serve()
	for _, version := range []string{"3", "4"} {
		c, u := g.straight(host, version)
		other, o := g.straight(host, version)
		c.write(panicEvent)
		if code := <-c.done; code != transport.StatusInternalError {
			t.Errorf("closed with %d, want %d", code, transport.StatusInternalError)
		}
		if e := <-u.end; e != panicEnd {
			t.Errorf("ended as %+v, want %+v", e, panicEnd)
		}
		other.write(`42["knowledgetalk",{"a":1}]`)
		other.want(`42["knowledgetalk",{"a":1}]`)
		if len(o.messages()) != 1 {
			t.Errorf("the other session got %q", o.messages())
		}
	}
}
