package transport

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestProxiesThatAreNotTrustedAreWarnedOf(t *testing.T) {
	var log strings.Builder
	served := 0
	p := WarnUndeclaredProxies(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }),
		[]netip.Prefix{netip.MustParsePrefix("10.0.0.7/32")},
		slog.New(slog.NewTextHandler(&log, nil)),
	)
	requests := 0
	ask := func(from, header string) {
		requests++
		r := httptest.NewRequest("GET", "/signal", nil)
		r.RemoteAddr = from
		if header != "" {
			r.Header.Set(header, "203.0.113.1")
		}
		p.ServeHTTP(httptest.NewRecorder(), r)
	}
	lines := func() int { return strings.Count(log.String(), "\n") }
	for _, c := range []struct {
		from, header string
		want         int // lines in all
	}{
		{"192.0.2.1:5000", "", 0},
		{"127.0.0.1:5000", "X-Forwarded-For", 0}, // has no limits
		{"10.0.0.7:5000", "X-Forwarded-For", 0},  // trusted
		{"10.0.0.8:5000", "X-Forwarded-For", 1},
		{"10.0.0.8:5001", "Forwarded", 1},
		{"10.0.0.9:5000", "X-Real-IP", 1}, // of the same network
		{"[2001:db8::1]:5000", "Forwarded", 2},
		{"[2001:db8:0:1::2]:5000", "Forwarded", 2},
		{"[::ffff:192.0.2.1]:5000", "X-Real-IP", 3},
	} {
		ask(c.from, c.header)
		if lines() != c.want {
			t.Errorf("%s with %q: %d lines, want %d", c.from, c.header, lines(), c.want)
		}
	}
	for i := range 1000 {
		ask(fmt.Sprintf("198.51.%d.1:5000", i%256), "X-Forwarded-For")
	}
	if lines() != maxProxyWarnings {
		t.Errorf("%d lines, want %d", lines(), maxProxyWarnings)
	}
	if served != requests {
		t.Errorf("%d of %d requests were served", served, requests)
	}
	text := log.String()
	for _, want := range []string{
		"--trusted-proxy",
		"network=10.0.0.0/24",
		"network=2001:db8::/48",
		"network=192.0.2.0/24",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said in\n%s", want, text)
		}
	}
	for _, secret := range []string{"203.0.113.1", "10.0.0.8", "192.0.2.1"} {
		if strings.Contains(text, secret) {
			t.Errorf("the address %s is in\n%s", secret, text)
		}
	}
}
