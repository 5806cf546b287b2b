package relay

import (
	"strings"
	"sync"
	"testing"

	"github.com/pion/stun/v4"
)

func TestQuotaIsCountedAndFreedExactly(t *testing.T) {
	s := start(t, func(c *Config) { c.Quota.Session = 3 })
	var held []*rawClient
	for i := range 3 {
		c := dial(t, s, transports[i%2], "t", "s")
		c.allocate()
		held = append(held, c)
	}
	extra := dial(t, s, "udp", "t", "s")
	extra.challenge()
	if got := code(extra.ask(stun.MethodAllocate, transport(17))); got != 486 {
		t.Errorf("one too many: %d", got)
	}
	// Fresh credentials of the same session are the same session; another session is not.
	extra.user = strings.Replace(extra.user, ":", "0:", 1)[1:]
	extra.pass = RESTPassword(secret, extra.user)
	if got := code(extra.ask(stun.MethodAllocate, transport(17))); got != 486 {
		t.Errorf("with fresh credentials: %d", got)
	}
	dial(t, s, "udp", "t", "other").allocate()
	if got := refusedBy(s, reasonOverQuota); got != 2 {
		t.Errorf("%d refusals counted", got)
	}
	// What fails otherwise takes no slot.
	held[0].refresh(0)
	for range 5 {
		if got := code(
			extra.ask(stun.MethodAllocate, transport(17), token(make([]byte, tokenLength))),
		); got != 508 {
			t.Errorf("an unknown token: %d", got)
		}
	}
	extra.allocate()
	// A connection that ends gives its slot back.
	_ = held[1].conn.Close()
	eventually(t, func() bool { return s.Stats().Allocations == 3 })
	dial(t, s, "udp", "t", "s").allocate()
	again := dial(t, s, "udp", "t", "s")
	again.challenge()
	if got := code(again.ask(stun.MethodAllocate, transport(17))); got != 486 {
		t.Errorf("after all that one too many: %d", got)
	}
}

func TestQuotaHoldsAgainstClientsAtOnce(t *testing.T) {
	const limit, clients = 5, 20
	s := start(t, func(c *Config) { c.Quota.Session = limit })
	var all []*rawClient
	for range clients {
		c := dial(t, s, "tcp", "t", "s")
		c.challenge()
		all = append(all, c)
	}
	var codes sync.Map
	var group sync.WaitGroup
	for i, c := range all {
		group.Go(func() { codes.Store(i, code(c.ask(stun.MethodAllocate, transport(17)))) })
	}
	group.Wait()
	count := map[any]int{}
	codes.Range(func(_, code any) bool { count[code]++; return true })
	if count[0] != limit || count[486] != clients-limit {
		t.Errorf("codes are %v", count)
	}
}
