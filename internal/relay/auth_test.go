package relay

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

func TestExpiredCredentialsDoNotAllocate(t *testing.T) {
	var now atomic.Int64
	now.Store(1_700_000_000)
	s := start(t, func(c *Config) { c.Now = func() time.Time { return time.Unix(now.Load(), 0) } })
	c := dial(t, s, "udp", "t", "s")
	c.challenge()
	now.Add(int64(defaultLife / time.Second))
	if got := code(c.ask(stun.MethodAllocate, transport(17))); got != 401 {
		t.Errorf("got %d", got)
	}
	if refusedBy(s, reasonExpired) != 1 || s.Stats().Created != 0 {
		t.Errorf("stats are %+v", s.Stats())
	}
	now.Add(-1)
	c.allocate()
}

func TestCallOutlastsItsCredentials(t *testing.T) {
	for _, network := range transports {
		t.Run(network, func(t *testing.T) {
			var now atomic.Int64
			now.Store(1_700_000_000)
			s := start(
				t,
				func(c *Config) { c.Now = func() time.Time { return time.Unix(now.Load(), 0) } },
			)
			one, two := udpPeer(t, peerHost(t)), udpPeer(t, "127.0.0.3")
			c := dial(t, s, network, "t", "s")
			relayed := c.allocate()
			if got := c.bind(0x4000, localOf(one)); got != 0 {
				t.Fatalf("channel: %d", got)
			}
			for range 3 {
				now.Add(int64(defaultLife / time.Second))
				if got := c.refresh(600); got != 0 {
					t.Errorf("refresh: %d", got)
				}
				if got := c.permit(localOf(two).Addr()); got != 0 {
					t.Errorf("permission: %d", got)
				}
				if got := c.bind(0x4000, localOf(one)); got != 0 {
					t.Errorf("channel again: %d", got)
				}
				c.channelData(0x4000, "still here")
				if data, from := receiveAt(t, one); data != "still here" || from != relayed {
					t.Errorf("peer got %q from %v", data, from)
				}
				sendFrom(t, two, relayed, "you too")
				if data, _ := c.receive(); data != "you too" {
					t.Errorf("client got %q", data)
				}
			}
			if got := c.bind(0x4001, localOf(two)); got != 0 {
				t.Errorf("a new channel: %d", got)
			}
		})
	}
}

func TestWrongCredentials(t *testing.T) {
	s := start(t, nil)
	for name, change := range map[string]func(*rawClient){
		"password": func(c *rawClient) { c.pass = "wrong" },
		"form":     func(c *rawClient) { c.user = "alice"; c.pass = RESTPassword(secret, c.user) },
		"expiry":   func(c *rawClient) { c.user = "9" + c.user },
		"session":  func(c *rawClient) { c.user += "x" },
	} {
		before := refusedBy(s, reasonBadCredentials)
		c := dial(t, s, "udp", "t", "s")
		c.challenge()
		change(c)
		if got := code(c.ask(stun.MethodAllocate, transport(17))); got != 401 {
			t.Errorf("%s: %d", name, got)
		}
		if got := refusedBy(s, reasonBadCredentials) - before; got != 1 {
			t.Errorf("%s: counted %d times", name, got)
		}
	}
	if s.Stats().Created != 0 {
		t.Error("allocated")
	}
}

func TestAnotherSessionCannotUseAnAllocation(t *testing.T) {
	s := start(t, nil)
	far := udpPeer(t, peerHost(t))
	c := dial(t, s, "udp", "t", "s")
	c.allocate()
	user, pass := c.user, c.pass
	c.user, c.pass = s.Credentials("t", "other")
	if got := c.refresh(0); got != 441 {
		t.Errorf("refresh: %d", got)
	}
	if got := c.permit(localOf(far).Addr()); got != 441 {
		t.Errorf("permission: %d", got)
	}
	if got := c.bind(0x4000, localOf(far)); got != 441 {
		t.Errorf("channel: %d", got)
	}
	if got := code(c.ask(stun.MethodAllocate, transport(17))); got != 437 {
		t.Errorf("allocate: %d", got)
	}
	c.user, c.pass = user, pass
	c.indicate(localOf(far), "without permission")
	if got := c.refresh(600); got != 0 {
		t.Errorf("the owner's refresh: %d", got)
	}
	if got := waiting(t, far); got != "" {
		t.Errorf("peer got %s", got)
	}
}

// A secret is replaced while calls go on. What was made with the one before is good until it would
// have expired, and for no longer than servers elsewhere may need to hear of the change: whoever
// has the old secret can do nothing with it then.
func TestTheSecretIsReplacedWithoutADrop(t *testing.T) {
	var now atomic.Int64
	now.Store(1_700_000_000)
	s := start(t, func(c *Config) { c.Now = func() time.Time { return time.Unix(now.Load(), 0) } })
	far := udpPeer(t, peerHost(t))
	running, early := dial(t, s, "udp", "t", "running"), dial(t, s, "udp", "t", "early")
	running.allocate()
	early.challenge() // it has credentials of the old secret, and has not used them
	if err := s.SetSecret([]byte("too short")); err == nil {
		t.Error("a short secret was taken")
	}
	fresh := []byte("another secret of the relay")
	for range 2 { // the second time changes nothing
		if err := s.SetSecret(fresh); err != nil {
			t.Fatal(err)
		}
	}
	late := dial(t, s, "udp", "t", "late")
	if late.pass != RESTPassword(fresh, late.user) {
		t.Error("new credentials are made with the old secret")
	}
	late.allocate()
	early.allocate()
	if got := running.permit(localOf(far).Addr()); got != 0 {
		t.Errorf("a running allocation: %d", got)
	}

	// another server, which does not know yet
	elsewhere := func(session string, expiry int64) int {
		c := dial(t, s, "udp", "t", session)
		c.challenge()
		c.user = fmt.Sprintf("%d:t.%s", expiry, session)
		c.pass = RESTPassword(secret, c.user)
		return code(c.ask(stun.MethodAllocate, transport(17)))
	}
	grace := now.Load() + int64(2*defaultLife/time.Second)
	if got := elsewhere("other", grace); got != 0 {
		t.Errorf("credentials of a server that has the old secret still: %d", got)
	}
	if got := elsewhere("forged", grace+1); got != 401 {
		t.Errorf("credentials that nobody can have had from the old secret: %d", got)
	}
	now.Add(int64(3 * defaultLife / time.Second))
	if got := elsewhere("forged", now.Load()+1); got != 401 {
		t.Errorf("the old secret is good for ever: %d", got)
	}
	if got := running.refresh(600); got != 0 {
		t.Errorf("a running allocation's refresh: %d", got)
	}
	if err := s.SetSecret([]byte("a third secret of the relay")); err != nil {
		t.Fatal(err)
	}
	if got := elsewhere("first", now.Load()+1); got != 401 {
		t.Errorf("the secret before the last one: %d", got)
	}
}
