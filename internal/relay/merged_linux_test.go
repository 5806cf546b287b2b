package relay

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/pion/stun/v4"
	"golang.org/x/sys/unix"
)

// sendMerged sends messages of one size in one go. Over loopback they stay together and reach a
// socket with UDP_GRO as one.
func (c *rawClient) sendMerged(messages ...[]byte) {
	c.t.Helper()
	var all []byte
	for _, m := range messages {
		if len(m) != len(messages[0]) {
			c.t.Fatalf("messages of %d and %d bytes", len(messages[0]), len(m))
		}
		all = append(all, m...)
	}
	control := make([]byte, unix.CmsgSpace(2))
	n := putControl(control, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(len(messages[0])))
	if _, _, err := c.conn.(*net.UDPConn).WriteMsgUDP(all, control[:n], nil); err != nil {
		c.t.Fatal(err)
	}
}

// Requests that come merged are still served one after the other: none may act on what the one
// before has ended or made.
func TestMergedRequestsSeeWhatTheOneBeforeDid(t *testing.T) {
	s := start(t, nil)
	c := dial(t, s, "udp", "t", "s")
	c.challenge()
	both := func(method stun.Method, attr stun.Setter) [2]int {
		one, two := c.signed(method, attr), c.signed(method, attr)
		c.sendMerged(one.Raw, two.Raw)
		return [2]int{code(c.answerTo(one)), code(c.answerTo(two))}
	}
	if got := both(stun.MethodAllocate, transport(17)); got != [2]int{0, 437} ||
		s.Stats().Allocations != 1 {
		t.Errorf("two Allocate: %v, %d allocations", got, s.Stats().Allocations)
	}
	if got := both(stun.MethodRefresh, life(0)); got != [2]int{0, 437} ||
		s.Stats().Allocations != 0 {
		t.Errorf("two Refresh: %v, %d allocations", got, s.Stats().Allocations)
	}
	s.quota.mu.Lock()
	defer s.quota.mu.Unlock()
	if s.quota.total != 0 {
		t.Errorf("the quota counts %d", s.quota.total)
	}
	if !plainDriver && s.Stats().GROPackets != 4 {
		t.Errorf("%d came merged", s.Stats().GROPackets)
	}
}
