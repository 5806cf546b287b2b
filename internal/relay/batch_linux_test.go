package relay

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ieum-rtc/ieum/internal/logtest"
)

// gathering is a sender with a socket on loopback and the allocation it counts for.
func gathering(t *testing.T) (*sender, *allocation, int) {
	t.Helper()
	s := &Server{cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	w := newWorker(s, 0)
	a := &allocation{worker: w}
	fd, err := openSocket(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0), relayBuffer, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return newSender(w), a, fd
}

func (t *sender) addTo(to *sockaddr, fd int, open *openBatch, up *allocation, packets ...string) {
	for _, p := range packets {
		t.add(gsoBatch{fd: fd, to: to, size: len(p), payload: len(p), up: up}, []byte(p), nil, open)
	}
}

func TestEmptyPacketsAreNotLostAmongOthers(t *testing.T) {
	out, a, fd := gathering(t)
	far := udpPeer(t, "127.0.0.1")
	to, open := sockaddrOf(endpointOf(localOf(far))), openBatch{}
	want := []string{"one", "two", "", "", "six"}
	out.addTo(&to, fd, &open, a, want...)
	out.flush()
	for i := range want {
		if got, _ := receiveAt(t, far); got != want[i] {
			t.Errorf("packet %d is %q, want %q", i, got, want[i])
		}
	}
	if got := a.up.load(); got != (Traffic{5, 9}) {
		t.Errorf("counted %+v", got)
	}
}

// A place that takes no packets, here one at port 0, decides neither about others nor for good.
func TestRefusalToSegmentConcernsOnePlace(t *testing.T) {
	out, a, fd := gathering(t)
	far := udpPeer(t, "127.0.0.1")
	bad, good := sockaddrOf(
		endpointOf(netip.AddrPortFrom(localOf(far).Addr(), 0)),
	), sockaddrOf(
		endpointOf(localOf(far)),
	)
	var open openBatch
	out.addTo(&bad, fd, &open, a, "lost", "gone")
	out.flush()
	if got := a.up.load(); got != (Traffic{}) || a.dropped[reasonUnsent].Load() != 2 ||
		out.server.stats.rejected[reasonUnsent].Load() != 2 {
		t.Errorf("counted %+v, %d lost, %d in all",
			got, a.dropped[reasonUnsent].Load(), out.server.stats.rejected[reasonUnsent].Load())
	}
	if bad.takesGSO(4) || !bad.takesGSO(3) || out.server.stats.gsoErrors.Load() != 0 {
		t.Errorf("refused from %d bytes on, %d faults",
			bad.refusedSize, out.server.stats.gsoErrors.Load())
	}
	out.addTo(&good, fd, &open, a, "here", "they", "are")
	out.flush()
	for _, want := range []string{"here", "they", "are"} {
		if got, _ := receiveAt(t, far); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := out.server.stats.gsoPackets.Load(); got != 3 {
		t.Errorf("%d packets left several at once", got)
	}
}

// A system that cannot segment is found out once, logged once, and loses nothing.
func TestSystemThatCannotSegmentIsNotAskedAgain(t *testing.T) {
	out, a, fd := gathering(t)
	var text logtest.Buffer
	out.server.cfg.Log = slog.New(slog.NewTextHandler(&text, nil))
	far := udpPeer(t, "127.0.0.1")
	to, open := sockaddrOf(endpointOf(localOf(far))), openBatch{}
	out.addTo(&to, fd, &open, a, "one", "two", "x")
	// What flush would do, up to the system's answer.
	r := &out.batches[0]
	out.count(r, 1)
	out.countTotals()
	for i := range out.packets {
		out.iovs[i].Base = &out.packets[i].bytes[0]
		out.iovs[i].SetLen(len(out.packets[i].bytes))
	}
	out.prepare(0, 0, len(out.packets))
	out.sendSingly(0, unix.EIO)
	out.batches, out.packets = out.batches[:0], out.packets[:0]
	out.epoch++
	out.addTo(&to, fd, &open, a, "four", "five")
	out.flush()
	for _, want := range []string{"one", "two", "x", "four", "five"} {
		if got, _ := receiveAt(t, far); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := a.up.load(); got != (Traffic{5, 15}) || out.server.stats.gsoPackets.Load() != 0 ||
		out.server.stats.gsoErrors.Load() != 1 {
		t.Errorf("counted %+v, %d segmented, %d faults",
			got, out.server.stats.gsoPackets.Load(), out.server.stats.gsoErrors.Load())
	}
	out.server.gsoFailed(unix.EIO)
	if got := strings.Count(text.String(), "individually"); got != 1 {
		t.Errorf("logged %d times", got)
	}
}
