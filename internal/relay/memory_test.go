package relay

import (
	"net/netip"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/pion/stun/v4"
)

// A relays to B and B to C, inside. When B and C are gone, nothing keeps C: else each call would
// keep the memory of the next.
func TestAllocationsThatAreGoneKeepNothing(t *testing.T) {
	s := start(t, func(c *Config) { c.Workers = 1 })
	a, b, c, d := dial(
		t,
		s,
		"udp",
		"t",
		"a",
	), dial(
		t,
		s,
		"udp",
		"t",
		"b",
	), dial(
		t,
		s,
		"udp",
		"t",
		"c",
	), dial(
		t,
		s,
		"udp",
		"t",
		"d",
	)
	atA, atB, atC, atD := a.allocate(), b.allocate(), c.allocate(), d.allocate()
	talk := func(from *rawClient, number uint16, to *rawClient, fromAt, toAt netip.AddrPort) {
		t.Helper()
		if one, two := from.bind(number, toAt), to.bind(number, fromAt); one != 0 || two != 0 {
			t.Fatalf("channels: %d, %d", one, two)
		}
		from.channelData(number, "hello")
		if data, _ := to.receive(); data != "hello" {
			t.Fatalf("got %q", data)
		}
	}
	talk(a, 0x4000, b, atA, atB)
	talk(b, 0x4001, c, atB, atC)
	gone := weak.Make(s.addresses().relays[0].socketAt(atC.Port()).allocation)
	kept := weak.Make(s.addresses().relays[0].socketAt(atA.Port()).allocation)
	c.refresh(0)
	b.refresh(0)
	// What the driver remembers of its last batch is of others by now.
	talk(d, 0x4002, a, atD, atA)
	a.ask(stun.MethodBinding)
	// With the driver for all systems the goroutine that reads from a socket of C has it until it
	// sees that it is closed, which nobody waits for: one collection may be too early. What is kept
	// for good outlasts them all.
	for end := time.Now().Add(failSafe); gone.Value() != nil && time.Now().Before(end); {
		runtime.GC()
	}
	runtime.GC()
	if kept.Value() == nil {
		t.Fatal("a live allocation is gone")
	}
	if gone.Value() != nil {
		t.Error("an allocation is kept by one that is gone as well")
	}
}
