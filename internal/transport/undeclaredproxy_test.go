package transport

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
	if lines() != proxyWarningBurst {
		t.Errorf("%d lines, want %d", lines(), proxyWarningBurst)
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

// Forged headers cannot use up the warning about a proxy, nor fill the log.
func TestForgedHeadersDoNotHideAProxy(t *testing.T) {
	const day = 24 * time.Hour
	for name, forged := range map[string]int{ // networks of the clients that forge
		"none":          0,
		"few":           proxyWarningBurst,
		"more than fit": 10 * maxProxyNetworks,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				p := WarnUndeclaredProxies(
					http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
					nil,
					slog.New(slog.NewTextHandler(&log, nil)),
				)
				ask := func(from string) {
					r := httptest.NewRequest(http.MethodGet, "/signal", nil)
					r.RemoteAddr = from
					r.Header.Set("X-Forwarded-For", "203.0.113.1")
					p.ServeHTTP(httptest.NewRecorder(), r)
				}
				for i := range forged {
					ask(fmt.Sprintf("10.%d.%d.1:5000", i/256, i%256))
				}
				began := time.Now()
				proxy := func() bool {
					return strings.Contains(log.String(), "network=192.0.2.0/24")
				}
				for i := 0; !proxy() && time.Since(began) < day; i++ {
					ask(fmt.Sprintf("10.%d.%d.1:5000", i/256%256, i%256))
					for range 3 {
						ask("192.0.2.1:5000")
					}
					time.Sleep(time.Minute)
				}
				if !proxy() || time.Since(began) > 2*proxyWarningInterval {
					t.Errorf("a proxy is reported after %v: %v", time.Since(began), proxy())
				}
				for time.Since(began) < day {
					for i := range 4 {
						minute := int(time.Since(began) / time.Minute)
						ask(fmt.Sprintf("10.%d.%d.1:5000", minute%256, i))
					}
					time.Sleep(time.Minute)
				}
				lines := strings.Count(log.String(), "\n")
				if most := proxyWarningBurst + int(day/proxyWarningInterval) + 1; lines > most {
					t.Errorf("%d lines in a day, at most %d are due", lines, most)
				}
				w := p.(*proxyWarner)
				if len(w.requests) > maxProxyNetworks || len(w.warned) > maxProxyNetworks {
					t.Errorf("%d and %d networks are kept", len(w.requests), len(w.warned))
				}
			})
		})
	}
}

// A request may empty the table of networks (see count) at the moment of the next warning.
func TestEveryWarningNamesANetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		p := WarnUndeclaredProxies(
			http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
			nil,
			slog.New(slog.NewTextHandler(&log, nil)),
		)
		networks := 0
		ask := func(n int) { // by so many others
			for range n {
				networks++
				r := httptest.NewRequest(http.MethodGet, "/signal", nil)
				r.RemoteAddr = fmt.Sprintf("10.0.%d.1:5000", networks)
				r.Header.Set("X-Forwarded-For", "203.0.113.1")
				p.ServeHTTP(httptest.NewRecorder(), r)
			}
		}
		for len(p.(*proxyWarner).requests) < maxProxyNetworks {
			ask(1)
		}
		before := strings.Count(log.String(), "\n")
		time.Sleep(proxyWarningInterval)
		ask(2)
		text := log.String()
		if n := strings.Count(text, "network=10.0."); n != before+1 ||
			strings.Count(text, "\n") != n {
			t.Errorf("%d networks are named in\n%s", n, text)
		}
	})
}
