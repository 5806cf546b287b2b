package socketio

import (
	"strings"
	"sync"
	"testing"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// A message to many sessions is encoded once, and all of them hold that one.
func TestEventIsEncodedOnce(t *testing.T) {
	const members = 300
	g := newRig(t, Config{})
	var all []*session
	for range members {
		all = append(all, g.connect("4").conn.(*session))
	}
	m := transport.NewMessage()
	m.B = append(m.B, `"`+strings.Repeat("x", 60_000)+`"`...)
	m.Retain(members)
	var sending sync.WaitGroup
	for _, s := range all {
		sending.Go(func() {
			if !s.Send(m) {
				t.Error("not sent")
			}
		})
	}
	sending.Wait()
	m.Release()
	held := map[*transport.Message]int{}
	for _, s := range all {
		s.mu.Lock()
		for _, q := range s.queue {
			held[q]++
			if string(q.B) != `42["knowledgetalk","`+strings.Repeat("x", 60_000)+`"]` {
				t.Errorf("%.60s…", q.B)
			}
		}
		s.mu.Unlock()
	}
	if len(held) != 1 {
		t.Errorf("%d copies for %d members", len(held), members)
	}
}

// What is shared stays as it is for those who still hold it, whoever has been served, and whatever
// the pool is used for.
func TestEncodedEventOutlivesMessage(t *testing.T) {
	m := transport.NewMessage()
	m.B = append(m.B, `{"a":1}`...)
	m.Retain(2)
	first, second := encodeEvent(m), encodeEvent(m)
	m.Release()
	first.Release()
	for range 100 {
		n := transport.NewMessage()
		n.B = append(n.B, "something else entirely"...)
		defer n.Release()
	}
	if first != second || string(second.B) != `42["knowledgetalk",{"a":1}]` {
		t.Errorf("%q", second.B)
	}
	second.Release()
}
