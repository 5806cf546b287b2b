package relay

import (
	"crypto/tls"
	"fmt"
	"reflect"
	"testing"
	"time"
)

// Each allocation that ends leaves one record, which says whose it was, what it relayed and
// dropped, and why it ended.
func TestRecordOfAnAllocation(t *testing.T) {
	records := make(chan Record, 16)
	holder := Holder{License: "license", User: "user", Room: "room"}
	s, clock := startWithClock(t, func(c *Config) {
		c.Workers = 1 // see other
		c.Closed = func(r Record) { records <- r }
		c.Holder = func(tenant, session string) (Holder, bool) { return holder, tenant == "t" }
	})
	far := udpPeer(t, peerHost(t))
	// A worker looks at the clock once a batch. What a stream hands over may still join a batch
	// from before the time passed; when this client has been served twice, that batch is over.
	other := dial(t, s, "udp", "t", "s")
	for _, network := range []string{"udp", "tcp", "tls"} {
		var c *rawClient
		if network == "tls" {
			c = dialTLS(t, s)
		} else {
			c = dial(t, s, network, "t", "s")
		}
		relayed := c.allocate()
		if got := c.bind(0x4000, localOf(far)); got != 0 {
			t.Fatalf("%s: channel: %d", network, got)
		}
		c.channelData(0x4000, "up")
		receiveAt(t, far)
		c.channelData(0x4001, "no such channel")
		for range 3 {
			sendFrom(t, far, relayed, "down")
			c.receive()
		}
		clock.pass(90 * time.Second)
		settle(other)
		if got := c.refresh(0); got != 0 {
			t.Fatalf("%s: refresh: %d", network, got)
		}
		want := Record{
			Holder:    holder,
			Transport: network,
			Duration:  90 * time.Second,
			Up:        Traffic{1, 2},
			Down:      Traffic{3, 12},
			Dropped:   map[string]uint64{"permission": 1}, Reason: closedByRefresh,
		}
		if got := <-records; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: record %+v, want %+v", network, got, want)
		}
	}
	gone, closed := dial(t, s, "tcp", "t", "s"), dial(t, s, "udp", "t", "s")
	gone.allocate()
	closed.allocate()
	_ = gone.conn.Close()
	if got := <-records; got.Reason != closedStream || got.Transport != "tcp" ||
		got.Dropped != nil {
		t.Errorf("record %+v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-records; got.Reason != closedServer || got.Holder != holder ||
		got.Transport != "udp" {
		t.Errorf("record %+v", got)
	}
	if len(records) != 0 {
		t.Errorf("%d records too many", len(records))
	}
}

// dialTLS connects over TLS, as the node would hand it in.
func dialTLS(t *testing.T, s *Server) *rawClient {
	t.Helper()
	conn, err := tls.Dial(
		"tcp",
		fmt.Sprintf("%s:%d", s.addresses().listening[0], acceptTLS(t, s)),
		&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(failSafe)); err != nil {
		t.Fatal(err)
	}
	c := &rawClient{t: t, conn: conn, stream: true}
	c.user, c.pass = s.Credentials("t", "s")
	return c
}
