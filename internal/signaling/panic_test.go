package signaling

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// panickingICE is an issuer with a bug that one request can reach.
type panickingICE struct {
	fixedICE
	armed atomic.Bool
}

func (p *panickingICE) ICEServers(host, tenant, session string, relay bool) []protocol.ICEServer {
	if p.armed.Swap(false) {
		panic("bug in the issuer")
	}
	return p.fixedICE.ICEServers(host, tenant, session, relay)
}

func TestPanicEndsOnlyItsSession(t *testing.T) {
	ice := &panickingICE{}
	use := func(c *Config, _ *license.Params) { c.ICE = ice }
	in(t, 1, use, func(w *world) {
		kim, lee, choi := w.user(0, "kim"), w.user(0, "lee"), w.user(0, "choi")
		w.room("K1", lee, kim, choi)
		ice.armed.Store(true)
		kim.raw(`{"eventOp":"iceServers","reqId":"p"}`)
		if c := kim.closeCode(); c != transport.StatusInternalError {
			t.Errorf("closed with %d, want %d", c, transport.StatusInternalError)
		}
		lee.saw("leave:kim:4 ")
		choi.saw("leave:kim:4 ")
		lee.want("200", msg{"eventOp": "iceServers"})
		if n := w.nodes[0].hub.Stats().Sessions; n != 2 {
			t.Errorf("%d sessions, want 2", n)
		}

		again := w.connect(0) // the session is gone, and so a resume is refused
		again.want("410", msg{
			"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey, "userId": "kim",
			"resume": kim.secret,
		})
		again.register("kim")
		again.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.saw("join:kim:5 ")

		log := w.log.String()
		if strings.Count(log, "panic while handling a message") != 1 ||
			!strings.Contains(log, "panickingICE") {
			t.Errorf("no panic with its stack in the log: %s", log)
		}
		if strings.Contains(log, w.authKey) || strings.Contains(log, kim.secret) {
			t.Error("a secret is in the log")
		}
	})
}
