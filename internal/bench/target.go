package bench

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"net/url"
	"runtime"
	"time"
)

// Target says which server a load is for, how many come from where, and how patient they are. Fields with a default take it when zero.
type Target struct {
	URL             string // ws://host:port/path, or wss://
	Insecure        bool   // wss: take any certificate
	CpCode, AuthKey string // the license
	Conns           int    // connections
	Size            int    // bytes of a message, default 1500
	PID             int    // of the server; 0: its CPU and resident memory are not measured
	Dials           int    // rooms that are opened at once, default 16
	Sources         int    // loopback addresses that connections come from, in turn; at most one: what the system takes

	Stall  time.Duration // what takes longer is lost; default 10 s
	Settle time.Duration // the longest wait for stable memory, default 30 s
}

// check tells need of every fault, but for those of Conns.
func (t Target) check(need func(ok bool, format string, args ...any)) {
	u, err := url.Parse(t.URL)
	isWS := err == nil && (u.Scheme == "ws" || u.Scheme == "wss") && u.Host != ""
	need(isWS, "url: %q is not of the form ws://host:port/path or wss://…", t.URL)
	need(t.Sources >= 0 && t.Sources <= maxSources, "sources: must be 0 to %d", maxSources)
	// A machine has many addresses on loopback alone, and there only on Linux without further ado.
	if t.Sources > 1 && err == nil {
		ip, err := netip.ParseAddr(u.Hostname())
		need(err == nil && ip.Is4() && ip.IsLoopback(), "sources: more than one needs a server at an address of 127.0.0.0/8, not at %q", u.Hostname())
		need(runtime.GOOS == "linux", "sources: only Linux answers to all of 127.0.0.0/8")
	}
	need(t.Size == 0 || t.Size >= minSize && t.Size <= maxSize, "size: must be %d to %d bytes", minSize, maxSize)
	need(t.PID >= 0 && t.Dials >= 0 && t.Stall >= 0 && t.Settle >= 0, "pid, dials, stall and settle must not be negative")
}

func (t *Target) defaults() {
	if t.Size == 0 {
		t.Size = 1500
	}
	if t.Dials == 0 {
		t.Dials = 16
	}
	if t.Stall == 0 {
		t.Stall = 10 * time.Second
	}
	if t.Settle == 0 {
		t.Settle = 30 * time.Second
	}
}

// way is the URL, which check has seen, and what connects to it.
func (t Target) way() (*url.URL, *dialer) {
	u, _ := url.Parse(t.URL)
	return u, &dialer{insecure: t.Insecure, sources: t.Sources}
}

// runName begins the ids of one run: those of an earlier one may still be held.
func runName() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
