package node

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/protocol"
)

// credentialLife is how long fresh credentials can be used to allocate.
const credentialLife = 10 * time.Minute

// maxExternal bounds the list of --relay-external.
const maxExternal = 32

// external are relays elsewhere that share a secret with us: `ieum relay`, or a coturn with use-auth-secret. It issues ICE servers
// in place of a relay of our own.
type external struct {
	secret            atomic.Pointer[[]byte]
	stun, udp, stream []string
	now               func() time.Time
}

// ICEServers implements signaling.ICEIssuer. A session is told one URL for UDP and one for a stream, since a browser allocates for
// each; where there are several relays the two are of different ones, so that a relay that is down takes nobody's only way.
func (e *external) ICEServers(_, tenant, session string, allowed bool) []protocol.ICEServer {
	h := fnv.New32a()
	_, _ = h.Write([]byte(session))
	at := int(h.Sum32() >> 1)
	var servers []protocol.ICEServer
	if len(e.stun) > 0 {
		servers = append(servers, protocol.ICEServer{URLs: pick(e.stun, at, 2)})
	}
	turn := append(pick(e.udp, at, 1), pick(e.stream, at+1, 1)...)
	if allowed && len(turn) > 0 {
		user := fmt.Sprintf("%d:%s.%s", e.now().Add(credentialLife).Unix(), tenantHash(tenant), session)
		servers = append(servers, protocol.ICEServer{URLs: turn, Username: user, Credential: restPassword(*e.secret.Load(), user)})
	}
	return servers
}

// pick takes n of the list, going round from at.
func pick(list []string, at, n int) (some []string) {
	for i := range min(n, len(list)) {
		some = append(some, list[(at+i)%len(list)])
	}
	return some
}

// restPassword is the password of the TURN REST form, as relay.Server.Credentials makes it and coturn expects it.
func restPassword(secret []byte, username string) string {
	mac := hmac.New(sha1.New, secret)
	mac.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// parseExternal reads the URLs of --relay-external (RFC 7064, RFC 7065). None: nil.
func parseExternal(urls []string) (*external, error) {
	if len(urls) == 0 {
		return nil, nil
	}
	e := &external{now: time.Now}
	e.secret.Store(new([]byte))
	var faults []error
	if len(urls) > maxExternal {
		faults = append(faults, blamef("--relay-external", "there are %d; at most %d are taken", len(urls), maxExternal))
	}
	for _, u := range urls {
		if err := e.add(u); err != nil {
			faults = append(faults, blamef("--relay-external", "%q: %w", u, err))
		}
	}
	return e, errors.Join(faults...)
}

var errExternal = errors.New("want stun:host, turn:host?transport=udp, turn:host?transport=tcp or turns:host?transport=tcp")

func (e *external) add(url string) error {
	scheme, rest, _ := strings.Cut(url, ":")
	if scheme != "stun" && scheme != "turn" && scheme != "turns" {
		return errExternal
	}
	at, query, asked := strings.Cut(rest, "?")
	if err := checkHostPort(at); err != nil {
		return err
	}
	transport, known := strings.CutPrefix(query, "transport=")
	if asked && (!known || (transport != "udp" && transport != "tcp")) {
		return errors.New("only ?transport=udp and ?transport=tcp are known")
	}
	switch {
	case scheme == "stun" && !asked:
		e.stun = append(e.stun, url)
	case scheme == "turn" && transport != "tcp":
		e.udp = append(e.udp, url)
	case scheme == "turn", scheme == "turns" && transport != "udp":
		e.stream = append(e.stream, url)
	default:
		return errExternal
	}
	return nil
}

// checkHostPort takes a host with or without a port; an IPv6 address stands in brackets.
func checkHostPort(at string) error {
	host, port := at, ""
	if i := strings.LastIndexByte(at, ':'); i > strings.LastIndexByte(at, ']') {
		host, port = at[:i], at[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q is not a port", port)
		}
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); host == "" || (err == nil && a.Is6() && host[0] != '[') {
		return errors.New("it names no host (an IPv6 address stands in brackets)")
	}
	return errors.Unwrap(checkHost("", host))
}
