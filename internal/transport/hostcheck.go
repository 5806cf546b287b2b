package transport

import (
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/ieum-rtc/ieum/internal/netaddr"
)

// ByAddress reports whether a request's Host is an IP address or localhost. Any other name may
// belong to an attacker who points it here, so that pages of that name can read the response (DNS
// rebinding).
func ByAddress(host string) bool {
	name := netaddr.Host(host)
	_, err := netip.ParseAddr(name)
	return err == nil || name == "localhost"
}

// CheckHost returns the handler of a server with --dev. It refuses requests for guarded paths
// unless their Host is an IP address, localhost, the host name of this machine or publicHost, which
// may be empty.
func CheckHost(
	next http.Handler, publicHost string, guarded func(path string) bool,
) http.Handler {
	var names []string
	if name, err := os.Hostname(); err == nil {
		names = append(names, name, name+".local")
	}
	if publicHost != "" {
		names = append(names, publicHost)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := netaddr.Host(r.Host)
		own := func(name string) bool { return strings.EqualFold(name, host) }
		if guarded(r.URL.Path) && !ByAddress(r.Host) && !slices.ContainsFunc(names, own) {
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "Forbidden host: with --dev, use an IP address or the host name of this "+
				"machine. --public-host allows another name.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
