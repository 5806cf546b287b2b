package signaling

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

// spread writes what came like told, lists in brackets.
func (p *peer) spread() string {
	s := ""
	for _, m := range p.take() {
		events, list := m["events"].([]any)
		if !list {
			events = []any{map[string]any(m)}
		} else {
			s += fmt.Sprintf("[%v: ", m["seq"])
		}
		for _, e := range events {
			m := msg(e.(map[string]any))
			user := m.str("user")
			if u, ok := m["user"].(map[string]any); ok {
				user = msg(u).str("userId")
			}
			s += fmt.Sprintf("%s:%s:%v ", m.str("type")+m.str("code"), user, m["seq"])
		}
		if list {
			s += "] "
		}
	}
	return s
}

func lists(w *world, id string) *peer {
	p := w.connect(0)
	p.register(id, "features", []string{"roster"})
	return p
}

func TestJoinsAndLeavesInABusyRoomComeAsLists(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, raw := lists(w, "kim"), w.user(0, "raw")
		w.room("R", kim, raw)
		time.Sleep(batchInterval)
		saw := func(p *peer, want string) {
			t.Helper()
			if got := p.spread(); got != want {
				t.Errorf("%s saw %q, want %q", p.user, got, want)
			}
		}
		a, b := w.user(0, "a"), w.user(0, "b")
		a.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
		saw(kim, "join:a:3 ") // the first at once
		b.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
		a.want("200", msg{"eventOp": "leaveRoom"})
		saw(kim, "")
		saw(raw, "join:a:3 join:b:4 leave:a:5 ")
		time.Sleep(batchInterval)
		saw(kim, "[5: join:b:4 leave:a:5 ] ")
		// one alone is no list
		a.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
		saw(kim, "")
		time.Sleep(batchInterval)
		saw(kim, "join:a:6 ")
		// whatever else there is comes after them
		a.want("200", msg{"eventOp": "leaveRoom"})
		b.want("200", msg{"eventOp": "chat", "roomId": "R", "message": "hello"})
		saw(kim, "leave:a:7 chat:b:8 ")
		a.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
		a.raw(`{"eventOp":"sdp","target":"kim","sdp":{"type":"offer","sdp":""},"type":"cam"}`)
		saw(kim, "join:a:9 cam::<nil> ")
		// nothing of a room comes after one has left it
		a.want("200", msg{"eventOp": "leaveRoom"})
		kim.want("200", msg{"eventOp": "leaveRoom"})
		kim.take()
		time.Sleep(batchInterval)
		saw(kim, "")
	})
}

// Members who come and go cost each of the others 20 messages a second, however many they are.
func TestComingAndGoingCostsABoundedNumberOfMessages(t *testing.T) {
	many := func(c *Config, p *license.Params) {
		c.Limits.Joins, c.Burst, p.MaxUser = -1, 5000,
			200
	}
	in(t, 1, many, func(w *world) {
		host := lists(w, "host")
		host.want("200", msg{"eventOp": "createRoom", "roomId": "R", "capacity": 120})
		host.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
		members := []*peer{host}
		for i := range 99 {
			p := lists(w, fmt.Sprintf("m%d", i))
			p.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
			members = append(members, p)
		}
		time.Sleep(batchInterval)
		restless := w.user(0, "restless")
		for _, p := range members {
			p.take()
		}
		begin := time.Now()
		const rounds = 100
		for range rounds {
			restless.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
			restless.want("200", msg{"eventOp": "leaveRoom"})
			time.Sleep(10 * time.Millisecond)
		}
		took := time.Since(begin)
		time.Sleep(batchInterval)
		synctest.Wait()
		most := int(took/batchInterval) + 2
		for _, p := range members {
			got := p.take()
			if len(got) > most {
				t.Errorf("%s got %d messages in %v, want %d at most", p.user, len(got), took, most)
			}
			events, next := 0, -1
			for _, m := range got {
				list, ok := m["events"].([]any)
				if !ok {
					list = []any{map[string]any(m)}
				}
				for _, e := range list {
					seq := int(msg(e.(map[string]any))["seq"].(float64))
					if next >= 0 && seq != next {
						t.Fatalf("%s got %d after %d", p.user, seq, next-1)
					}
					next = seq + 1
					events++
				}
			}
			if events != 2*rounds {
				t.Errorf("%s got %d events of %d", p.user, events, 2*rounds)
			}
		}
	})
}

func TestWhatWaitsIsNotForWhoIsAway(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, other := lists(w, "kim"), w.user(0, "other")
		w.room("R", kim, other)
		other.want("200", msg{"eventOp": "leaveRoom"})
		kim.lose()
		time.Sleep(2 * batchInterval)
		back := w.connect(0)
		a := back.register("kim", "resume", kim.secret, "features", []string{"roster"})
		members := a["room"].(map[string]any)["members"].(map[string]any)
		if got := back.spread(); len(members) != 1 || strings.Contains(got, "leave") {
			t.Errorf("%d members, and %q", len(members), got)
		}
	})
}
