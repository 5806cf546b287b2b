package license

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

const (
	maxID      = 128
	maxText    = 256
	maxCount   = 1_000_000
	maxOrigins = 64
	relayAll   = "all"
	relayNone  = "none"
)

// claimSet holds the claims as they stand in the token. Names are compared exactly, which a struct
// would not do.
type claimSet map[string]json.RawMessage

// The jwt package asks for these. Nothing but our own checks decides, so they answer "not there".

func (claimSet) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil }
func (claimSet) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil }
func (claimSet) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (claimSet) GetIssuer() (string, error)                   { return "", nil }
func (claimSet) GetSubject() (string, error)                  { return "", nil }
func (claimSet) GetAudience() (jwt.ClaimStrings, error)       { return nil, nil }

// grant reads all claims; its second result is when the license was issued. All faults are reported
// together.
func (c claimSet) grant() (Grant, time.Time, error) {
	var (
		g      = Grant{Relay: true}
		issued time.Time
		errs   []error
	)
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	g.CpCode, err = c.text("authCode", maxID)
	add(err)
	if err == nil && !validID(g.CpCode) {
		add(errors.New("authCode must have 1 to 128 bytes without control characters"))
	}
	g.Name, err = c.text("name", maxText)
	add(err)
	g.CompanyCode, err = c.text("companyCode", maxText)
	add(err)
	g.MaxUser, err = c.count("maxUser")
	add(err)
	g.Start, err = c.date("startDate", false)
	add(err)
	g.End, err = c.date("endDate", true)
	add(err)
	issued, err = c.instant("iat")
	add(err)
	add(c.optional(&g))
	if len(errs) == 0 && !g.Start.Before(g.End) {
		add(errors.New("endDate is not after startDate"))
	}
	return g, issued, errors.Join(errs...)
}

// optional reads the claims that need not be there. The registered exp and nbf can only shorten a
// license.
func (c claimSet) optional(g *Grant) error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	if c.has("maxRooms") {
		g.MaxRooms, err = c.count("maxRooms")
		add(err)
	}
	if c.has("origins") {
		g.Origins, err = c.origins()
		add(err)
	}
	if c.has("relay") {
		relay, err := c.text("relay", maxText)
		if err == nil && relay != relayAll && relay != relayNone {
			err = errors.New("relay must be all or none")
		}
		add(err)
		g.Relay = relay == relayAll
	}
	if c.has("requireUserToken") {
		g.RequireUserToken, err = c.flag("requireUserToken")
		add(err)
	}
	if c.has("legacyForced") {
		g.LegacyForced, err = c.flag("legacyForced")
		add(err)
	}
	if c.has("exp") {
		at, err := c.instant("exp")
		add(err)
		if err == nil && at.Before(g.End) {
			g.End = at
		}
	}
	if c.has("nbf") {
		at, err := c.instant("nbf")
		add(err)
		if err == nil && at.After(g.Start) {
			g.Start = at
		}
	}
	return errors.Join(errs...)
}

func (c claimSet) has(name string) bool {
	_, ok := c[name]
	return ok
}

// text reads a string of at most limit bytes without control characters. Only a JSON string will
// do, no number, array or null.
func (c claimSet) text(name string, limit int) (string, error) {
	raw, ok := c[name]
	if !ok {
		return "", fmt.Errorf("%s is missing", name)
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return "", fmt.Errorf("%s must be a string", name)
	}
	if len(*s) > limit || !printable(*s) {
		return "", fmt.Errorf("%s must have at most %d bytes without control characters",
			name, limit)
	}
	return *s, nil
}

// count reads an integer from 1 to 1,000,000 that is written as such, in a number or a string: no
// sign, fraction, exponent or leading zero.
func (c claimSet) count(name string) (int, error) {
	raw, ok := c[name]
	if !ok {
		return 0, fmt.Errorf("%s is missing", name)
	}
	digits := string(raw)
	if strings.HasPrefix(digits, `"`) {
		var err error
		if digits, err = c.text(name, maxText); err != nil {
			return 0, err
		}
	}
	plain := digits != "" && digits[0] != '0' && strings.Trim(digits, "0123456789") == ""
	n, err := strconv.Atoi(digits)
	if !plain || err != nil || n > maxCount {
		return 0, fmt.Errorf("%s must be an integer from 1 to %d", name, maxCount)
	}
	return n, nil
}

// date reads an ISO 8601 date or RFC 3339 time; without an offset it is UTC. A bare date as an end
// counts in full, so the instant is the midnight after it.
func (c claimSet) date(name string, end bool) (time.Time, error) {
	text, err := c.text(name, maxText)
	if err != nil {
		return time.Time{}, err
	}
	if len(text) == len(time.DateOnly) {
		if t, err := time.Parse(time.DateOnly, text); err == nil {
			if end {
				t = t.AddDate(0, 0, 1)
			}
			return t, nil
		}
	}
	var t time.Time
	if t.UnmarshalText([]byte(text)) == nil || t.UnmarshalText([]byte(text+"Z")) == nil {
		return t.UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%s must be an ISO 8601 date", name)
}

// instant reads seconds since 1970 (RFC 7519 NumericDate).
func (c claimSet) instant(name string) (time.Time, error) {
	raw, ok := c[name]
	if !ok {
		return time.Time{}, fmt.Errorf("%s is missing", name)
	}
	const year10000 = 253402300800
	var seconds *float64
	if err := json.Unmarshal(raw, &seconds); err != nil || seconds == nil || *seconds < 0 ||
		*seconds >= year10000 {
		return time.Time{}, fmt.Errorf("%s must be seconds since 1970", name)
	}
	return time.Unix(int64(*seconds), 0).UTC(), nil
}

func (c claimSet) flag(name string) (bool, error) {
	var b *bool
	if err := json.Unmarshal(c[name], &b); err != nil || b == nil {
		return false, fmt.Errorf("%s must be true or false", name)
	}
	return *b, nil
}

// origins reads a list of page origins; nil when it contains "*". An empty list would be a license
// for nobody or for everybody, depending on the reader, so it is refused.
func (c claimSet) origins() ([]string, error) {
	var list []*string
	if err := json.Unmarshal(c["origins"], &list); err != nil || len(list) == 0 ||
		len(list) > maxOrigins {
		return nil, fmt.Errorf("origins must be a list of 1 to %d strings", maxOrigins)
	}
	origins := make([]string, 0, len(list))
	for _, origin := range list {
		if origin == nil || (*origin != "*" && !validOrigin(*origin)) {
			return nil, errors.New(
				`origins must be "*" or written as browsers do: scheme://host[:port], ` +
					`lower case, no path, like https://app.example or capacitor://localhost`,
			)
		}
		origins = append(origins, *origin)
	}
	if slices.Contains(origins, "*") {
		return nil, nil
	}
	return origins, nil
}

// validOrigin accepts the serialisation a browser sends (RFC 6454 section 6.2), since origins are
// compared byte for byte.
func validOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxText || u.Scheme == "" || u.Host == "" ||
		u.Scheme+"://"+u.Host != s {
		return false
	}
	switch u.Scheme {
	case "http", "https":
		if strings.ToLower(s) != s {
			return false
		}
	case "file", "data", "blob", "about", "javascript", "ws", "wss": // no page has such an origin
		return false
	default: // of a web view or an extension, whose hosts keep their case
	}
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return false
		}
	}
	port := u.Port()
	if u.Hostname() == "" || strings.HasSuffix(u.Host, ":") ||
		(u.Scheme == "http" && port == "80") ||
		(u.Scheme == "https" && port == "443") {
		return false
	}
	return !strings.ContainsAny(u.Host, "*,;'\"<>\\")
}

// validID is the rule of the wire for ids: 1 to 128 bytes of UTF-8 without control characters.
func validID(s string) bool {
	return s != "" && len(s) <= maxID && printable(s)
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
