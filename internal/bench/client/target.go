// Package client is the signaling client that the load generators share: where the server is, how
// connections to it are made, and requests of our protocol over one of them.
package client

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"net/url"
	"runtime"
	"time"
)

// Bounds that keep a typing error from exhausting the machine.
const (
	MaxConns = 100_000
	MinSize  = 500    // bytes of a message
	MaxSize  = 60_000 // bytes of a message
)

// SetupTimeout bounds how long a client may take to connect, log in and join its room.
const SetupTimeout = 30 * time.Second

// Target is the server under load, and how it is reached. Fields with a default take it when zero.
type Target struct {
	URL      string // ws://host:port/path, or wss://
	Insecure bool   // wss: accept any certificate
	CpCode   string // of the license
	AuthKey  string // of the license
	Conns    int    // connections
	Size     int    // bytes of a message, default 1500
	PID      int    // of the server; 0: its CPU and resident memory are not measured
	Dials    int    // rooms that are opened concurrently, default 16
	Sources  int    // loopback addresses to connect from, in rotation; 0 or 1: the system's choice

	Stall  time.Duration // a message or answer that takes longer is lost; default 10 s
	Settle time.Duration // the longest wait for stable memory, default 30 s
}

// Check reports every error to need, except those of Conns.
func (t Target) Check(need func(ok bool, format string, args ...any)) {
	u, err := url.Parse(t.URL)
	isWS := err == nil && (u.Scheme == "ws" || u.Scheme == "wss") && u.Host != ""
	need(isWS, "url: %q is not of the form ws://host:port/path or wss://…", t.URL)
	need(t.Sources >= 0 && t.Sources <= maxSources, "sources: must be 0 to %d", maxSources)
	// Only loopback has many addresses without configuration, and only on Linux.
	if t.Sources > 1 && err == nil {
		ip, err := netip.ParseAddr(u.Hostname())
		need(err == nil && ip.Is4() && ip.IsLoopback(),
			"sources: more than one needs a server at an address of 127.0.0.0/8, not at %q",
			u.Hostname())
		need(runtime.GOOS == "linux", "sources: only Linux answers to all of 127.0.0.0/8")
	}
	need(t.Size == 0 || t.Size >= MinSize && t.Size <= MaxSize,
		"size: must be %d to %d bytes", MinSize, MaxSize)
	need(t.PID >= 0 && t.Dials >= 0 && t.Stall >= 0 && t.Settle >= 0,
		"pid, dials, stall and settle must not be negative")
}

// SetDefaults fills in the fields that are zero.
func (t *Target) SetDefaults() {
	t.Size = cmp.Or(t.Size, 1500)
	t.Dials = cmp.Or(t.Dials, 16)
	t.Stall = cmp.Or(t.Stall, 10*time.Second)
	t.Settle = cmp.Or(t.Settle, 30*time.Second)
}

// Endpoint is the URL, which Check has accepted, and a dialer for it.
func (t Target) Endpoint() (*url.URL, *Dialer) {
	u, _ := url.Parse(t.URL)
	return u, &Dialer{insecure: t.Insecure, sources: t.Sources}
}

// RunID begins the user and room ids of one run: the server may still hold those of an earlier run.
func RunID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
