package signaling

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/transport"
)

func (h *Hub) count(op, code string) uint64 {
	for _, m := range h.Stats().Handled {
		if m.Op == op && m.Code == code {
			return m.Count
		}
	}
	return 0
}

func TestMetricsOfRequests(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		hub := w.nodes[0].hub
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("R", kim, lee)
		lee.want("442", msg{"eventOp": "joinRoom", "roomId": "R"})
		lee.want("404", msg{"eventOp": "dance"})
		lee.want("404", msg{"eventOp": "sing"})
		kim.raw(`{"eventOp":"candidate","target":"lee","candidate":{}}`)
		kim.want("200", msg{"eventOp": "candidate", "target": "lee", "candidate": msg{}})
		kim.want("403", msg{"eventOp": "sdp", "target": "nobody"})
		bad := w.connect(0)
		bad.want("401", msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": "none"})
		bad.want("409", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "kim",
		})
		bad.want("421", msg{"eventOp": "register"})
		bad.want("401", msg{"eventOp": "chat"})
		for _, c := range []struct {
			op, code string
			want     uint64
		}{
			{"register", "200", 2},
			{"register", "401", 1},
			{"register", "409", 1},
			{"register", "421", 1},
			{"createRoom", "200", 1},
			{"joinRoom", "200", 2},
			{"joinRoom", "442", 1},
			{"candidate", "200", 2},
			{"sdp", "403", 1},
			{"chat", "401", 1},
			{other, "404", 2},
		} {
			if got := hub.count(c.op, c.code); got != c.want {
				t.Errorf("%d %s with %s, want %d", got, c.op, c.code, c.want)
			}
		}
		s := hub.Stats()
		if s.Refused["license"]+s.Refused["swapped"] != 1 || s.Refused["in_use"] != 1 ||
			s.Refused[other] != 1 {
			t.Errorf("refused %v", s.Refused)
		}
		// no time passes but what is slept
		compare(t, hub.counters.joins, "ieum_signaling_join_duration_seconds",
			joinTimes(0, 2, 2, 2, 2))
	})
}

func TestMetricsOfResumesAndSlowConsumers(t *testing.T) {
	in(t, 1, func(c *Config, _ *license.Params) { c.Burst = 9000 }, func(w *world) {
		hub := w.nodes[0].hub
		kim, lee := w.user(0, "kim"), w.connect(0)
		resume := lee.register("lee").str("resume")
		w.room("R", kim, lee)
		goOn := lee.stall()
		for range 2200 { // more than an outbox holds
			kim.raw(`{"eventOp":"inform","message":"` + strings.Repeat("x", 200) + `"}`)
		}
		synctest.Wait()
		goOn()
		synctest.Wait()
		if got := hub.Stats().Overflowed; got != 1 {
			t.Errorf("%d overflows", got)
		}
		w.connect(0).register("lee", "resume", resume)
		if got := hub.Stats().Resumed; got != 1 {
			t.Errorf("%d resumes", got)
		}
	})
}

func TestJoinsByTime(t *testing.T) {
	joins := newJoinTimes()
	for _, seconds := range []float64{0, 0.0001, 0.000101, 60} {
		joins.Observe(seconds)
	}
	compare(t, joins, "ieum_signaling_join_duration_seconds", joinTimes(60.000201, 4, 2, 3, 3))
}

// sink is a connection that takes everything.
type sink struct{ sent int }

func (s *sink) Send(
	m *transport.Message) bool {
	s.sent++
	m.Release()
	return true
}
func (s *sink) Offer(m *transport.Message, _ transport.Share) error { s.Send(m); return nil }
func (s *sink) Close(transport.StatusCode, string)                  {}
func (s *sink) Peer() transport.Peer                                { return transport.Peer{} }

func TestPassingAMessageOnAllocatesNothing(t *testing.T) {
	in(t, 1, func(c *Config, _ *license.Params) { c.Rate, c.Burst = 1e9, 1e9 }, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("R", kim, lee)
		hub, to := w.nodes[0].hub, &sink{}
		var from *client
		for _, s := range hub.all() {
			if s.user == "kim" {
				from = s.client.Load()
			} else {
				c := &client{hub: hub, conn: to}
				c.session.Store(s)
				s.client.Store(c)
			}
		}
		text := []byte(`{"eventOp":"candidate","userId":"kim","target":"lee",` +
			`"candidate":{"candidate":"candidate:1 1 udp 1 10.0.0.1 9 typ host"},"type":"cam"}`)
		before := hub.count("candidate", string(protocol.OK))
		const runs = 200
		// A pool may be emptied once.
		if got := testing.AllocsPerRun(runs, func() { from.Message(text, nil) }); got >= 1 {
			t.Errorf("%v allocations a message", got)
		}
		if n := hub.count("candidate", string(protocol.OK)) - before; to.sent != runs+1 ||
			n != runs+1 {
			t.Errorf("%d passed on, %d counted", to.sent, n)
		}
	})
}
