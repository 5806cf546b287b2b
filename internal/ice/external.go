package ice

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/relay"
)

// credentialLife is how long fresh credentials can be used to allocate.
const credentialLife = 10 * time.Minute

// maxURLs bounds the URLs of external relays.
const maxURLs = 32

// External implements signaling.ICEIssuer for relays elsewhere that share a TURN REST secret with
// this server: `ieum relay`, or a coturn with use-auth-secret.
type External struct {
	secret            atomic.Pointer[[]byte]
	stun, udp, stream []string // Static after ParseExternal.
	now               func() time.Time
}

// SetSecret sets the TURN REST secret of credentials issued from now on.
func (e *External) SetSecret(secret []byte) { e.secret.Store(&secret) }

// ICEServers implements signaling.ICEIssuer. A session gets one URL for UDP and one for a stream,
// since a browser allocates for each. If there are several relays the two differ, so that a relay
// that is down never takes the only path.
func (e *External) ICEServers(_, tenant, session string, allowed bool) []protocol.ICEServer {
	h := fnv.New32a()
	_, _ = h.Write([]byte(session))
	at := int(h.Sum32() >> 1)
	var servers []protocol.ICEServer
	if len(e.stun) > 0 {
		servers = append(servers, protocol.ICEServer{URLs: pick(e.stun, at, 2)})
	}
	turn := append(pick(e.udp, at, 1), pick(e.stream, at+1, 1)...)
	if allowed && len(turn) > 0 {
		expiry := e.now().Add(credentialLife).Unix()
		user := fmt.Sprintf("%d:%s.%s", expiry, TenantHash(tenant), session)
		servers = append(servers, protocol.ICEServer{
			URLs:       turn,
			Username:   user,
			Credential: relay.RESTPassword(*e.secret.Load(), user),
		})
	}
	return servers
}

// pick takes n entries of the list, wrapping around from at.
func pick(list []string, at, n int) (some []string) {
	for i := range min(n, len(list)) {
		some = append(some, list[(at+i)%len(list)])
	}
	return some
}

// ParseExternal reads STUN and TURN URLs (RFC 7064, RFC 7065); without any it returns nil. The
// errors of all URLs are joined.
func ParseExternal(urls []string) (*External, error) {
	if len(urls) == 0 {
		return nil, nil
	}
	e := &External{now: time.Now}
	e.SetSecret(nil)
	var errs []error
	if len(urls) > maxURLs {
		errs = append(errs, fmt.Errorf("%d URLs; at most %d are allowed", len(urls), maxURLs))
	}
	for i, u := range urls {
		if strings.Contains(u, "@") { // not quoted: errors are logged
			errs = append(errs, fmt.Errorf("URL %d: user name and password do not belong there: "+
				"credentials derive from the TURN REST secret", i+1))
		} else if err := e.add(u); err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", u, err))
		}
	}
	return e, errors.Join(errs...)
}

var errURL = errors.New("want stun:host, turn:host?transport=udp, " +
	"turn:host?transport=tcp or turns:host?transport=tcp")

func (e *External) add(url string) error {
	scheme, rest, _ := strings.Cut(url, ":")
	if scheme != "stun" && scheme != "turn" && scheme != "turns" {
		return errURL
	}
	at, query, hasQuery := strings.Cut(rest, "?")
	if err := checkHostPort(at); err != nil {
		return err
	}
	transport, known := strings.CutPrefix(query, "transport=")
	if hasQuery && (!known || (transport != "udp" && transport != "tcp")) {
		return errors.New("only ?transport=udp and ?transport=tcp are known")
	}
	switch {
	case scheme == "stun" && !hasQuery:
		e.stun = append(e.stun, url)
	case scheme == "turn" && transport != "tcp":
		e.udp = append(e.udp, url)
	case scheme == "turn", scheme == "turns" && transport != "udp":
		e.stream = append(e.stream, url)
	default:
		return errURL
	}
	return nil
}

// checkHostPort checks a host with an optional port; an IPv6 address is in brackets.
func checkHostPort(at string) error {
	host, port := at, ""
	if i := strings.LastIndexByte(at, ':'); i > strings.LastIndexByte(at, ']') {
		host, port = at[:i], at[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q is not a port", port)
		}
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !a.Is6() || a.Zone() != "" || !strings.HasSuffix(inner, "]") {
			return fmt.Errorf("%q is not an IPv6 address in brackets", host)
		}
		return nil
	}
	if a, err := netip.ParseAddr(host); host == "" || (err == nil && a.Is6()) {
		return errors.New("host is missing (an IPv6 address needs brackets)")
	}
	if strings.HasSuffix(host, "]") {
		return fmt.Errorf("%q is neither a host name nor an IP address", host)
	}
	return CheckHost(host)
}

// CheckHost accepts a host name or an IP address, without a port.
func CheckHost(host string) error {
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return nil
	}
	invalid := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') &&
			r != '-' && r != '.'
	}
	badLabel := func(label string) bool { return label == "" || len(label) > 63 }
	if strings.ContainsFunc(host, invalid) || len(host) > 253 ||
		strings.Trim(host, ".-") != host ||
		slices.ContainsFunc(strings.Split(host, "."), badLabel) {
		return fmt.Errorf("%q is neither a host name nor an IP address", host)
	}
	return nil
}
