// Package license verifies licenses (authKey) and user tokens, and returns what they grant. It also
// issues them.
//
// A license is a compact JWT signed with HS256. It is public: pages contain it, and it names a
// tenant, never a user. The claims are name, maxUser, startDate, endDate, authCode, companyCode and
// iat, all required, and optionally origins, maxRooms, relay, requireUserToken and legacyForced. A
// license that is listed in the configuration (Pinned) is accepted, whatever key signed it.
//
// A user token takes the place of a license and names one user. The tenant's backend signs it with
// a key derived from the license signing key (UserTokenKey), so a tenant vouches for its own users
// only. Limits come from the license that the token names.
//
// The order of checks matters: size before splitting, the signature before any claim, authCode
// before dates. A client without a license of the tenant learns nothing but "refused".
package license

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// maxToken bounds the work done on a token before its signature is known.
	maxToken = 8 << 10
	// licenseType is the header typ of a license, if it has one.
	licenseType = "JWT"
	minKey      = 32
	maxKeys     = 2
	// skew is how far the issuer's clock may be ahead of ours. It does not lengthen a license: End
	// is exact, so that a session ended at End cannot log in again.
	skew = 60 * time.Second
)

// Errors of Check, to be told apart with errors.Is. None carries any part of the token.
var (
	// ErrRefused is the one answer for an unknown tenant, a bad signature and a malformed license.
	ErrRefused = errors.New("license refused")
	// ErrRevoked is a kind of ErrRefused: the token is on the list of those revoked. It is for logs
	// and figures, not for the client.
	ErrRevoked = fmt.Errorf("%w: revoked", ErrRefused)
	// ErrExpired says that a license with a good signature is past its end.
	ErrExpired = errors.New("license expired")
	// ErrNotYet says that a license with a good signature has not begun.
	ErrNotYet = errors.New("license not valid yet")
	// ErrTokenExpired says that a user token with a good signature is past its exp.
	ErrTokenExpired = errors.New("user token expired")
	// ErrUserTokenNeeded says that the license is good and alone admits nobody.
	ErrUserTokenNeeded = errors.New("license requires a user token")
	// ErrNoLicense says that a good user token names no license, and the configuration has none for
	// its tenant.
	ErrNoLicense = errors.New("user token names no license, and none is configured for its cpCode")
	// ErrSwapped says that cpCode holds a license and authKey does not: the two arguments were
	// probably exchanged.
	ErrSwapped = errors.New("cpCode and authKey look swapped")
)

// Config is the key material of the licenses.
type Config struct {
	// Keys are one or two HS256 secrets of at least 32 bytes. The first signs, all verify: a second
	// one makes rotation possible.
	Keys [][]byte
	// Pinned are licenses that are accepted as they are listed.
	Pinned []Pinned
	// Revoked are tokens that are refused all the same; nil: none. It may change while the Verifier
	// is in use.
	Revoked *Revoked
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Validate reports all faults of the configuration together.
func (c Config) Validate() error {
	var errs []error
	if len(c.Keys) == 0 || len(c.Keys) > maxKeys {
		errs = append(errs, fmt.Errorf("%d keys given, 1 to %d are needed", len(c.Keys), maxKeys))
	}
	for i, key := range c.Keys {
		if len(key) < minKey {
			errs = append(
				errs,
				fmt.Errorf("key %d has %d bytes, at least %d are needed", i+1, len(key), minKey),
			)
		} else if bytes.Count(key, key[:1]) == len(key) {
			errs = append(errs, fmt.Errorf("key %d repeats one byte", i+1))
		}
	}
	if len(c.Keys) == maxKeys && subtle.ConstantTimeCompare(c.Keys[0], c.Keys[1]) == 1 {
		errs = append(errs, errors.New("both keys are the same"))
	}
	errs = append(errs, validatePinned(c.Pinned))
	return errors.Join(errs...)
}

// Verifier checks and issues licenses. It is immutable, all but what is revoked, and safe for
// concurrent use.
type Verifier struct {
	keys    [][]byte
	now     func() time.Time
	parser  *jwt.Parser
	byHash  map[[sha256.Size]byte]listed
	byCode  map[string][]listed // in the order of the configuration
	revoked *Revoked
}

// New makes a Verifier; the keys are copied.
func New(c Config) (*Verifier, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	v := &Verifier{now: c.Now, revoked: c.Revoked}
	if v.now == nil {
		v.now = time.Now
	}
	for _, key := range c.Keys {
		v.keys = append(v.keys, bytes.Clone(key))
	}
	// The algorithm is fixed here, not read from the token. Claims are judged by us, since dates
	// are not in exp and nbf.
	v.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{"HS256"}),
		jwt.WithStrictDecoding(),
		jwt.WithoutClaimsValidation(),
	)
	if err := v.list(c.Pinned); err != nil {
		return nil, err
	}
	return v, nil
}

// Grant is what a valid license allows, and for whom.
type Grant struct {
	CpCode, Name, CompanyCode string
	// MaxUser is the number of users at one time, 1 to 1,000,000.
	MaxUser int
	// Start is the first valid instant, End the first that is no longer valid, both UTC.
	Start, End time.Time
	// Origins are the page origins that may use the license, compared exactly; nil: all.
	Origins []string
	// MaxRooms is the number of rooms at one time; 0: no limit.
	MaxRooms int
	// Relay is false when the tenant's users get no relay credentials.
	Relay bool
	// RequireUserToken says that the license alone admits nobody.
	RequireUserToken bool
	// LegacyForced lets a plain forced login take over an id.
	LegacyForced bool
	// Hash is the SHA-256 of the token: its name in deny lists and logs.
	Hash [sha256.Size]byte
	// User is whom a user token names; nil when the license came alone.
	User *User
}

// Check verifies authKey, a license or a user token, and that it belongs to cpCode, byte for byte.
func (v *Verifier) Check(cpCode, authKey string) (Grant, error) {
	if looksLikeToken(cpCode) && !looksLikeToken(authKey) {
		return Grant{}, ErrSwapped
	}
	if len(authKey) > maxToken || !validID(cpCode) {
		return Grant{}, ErrRefused
	}
	if isUserToken(authKey) {
		return v.checkUser(cpCode, authKey)
	}
	grant, err := v.checkLicense(cpCode, authKey)
	if err == nil && grant.RequireUserToken {
		return Grant{}, ErrUserTokenNeeded
	}
	return grant, err
}

// checkLicense verifies a license: one that is listed, or one with our signature.
func (v *Verifier) checkLicense(cpCode, authKey string) (Grant, error) {
	hash := sha256.Sum256([]byte(authKey))
	if l, ok := v.byHash[hash]; ok &&
		subtle.ConstantTimeCompare([]byte(l.grant.CpCode), []byte(cpCode)) == 1 {
		if v.revoked.contains(hash) {
			return Grant{}, ErrRevoked
		}
		if err := v.inTime(l); err != nil {
			return Grant{}, err
		}
		return l.grant, nil
	}
	raw, err := v.verify(authKey, licenseType, v.keys)
	if err != nil {
		return Grant{}, ErrRefused
	}
	code, err := raw.text("authCode", maxID)
	if err != nil || subtle.ConstantTimeCompare([]byte(code), []byte(cpCode)) != 1 {
		return Grant{}, ErrRefused
	}
	if v.revoked.contains(hash) {
		return Grant{}, ErrRevoked
	}
	// From here on the caller holds a license we signed: a reason helps, and tells a stranger
	// nothing.
	grant, issued, err := raw.grant()
	if err != nil {
		return Grant{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := v.inTime(listed{grant: grant, issued: issued}); err != nil {
		return Grant{}, err
	}
	grant.Hash = hash
	return grant, nil
}

// verify reads the claims of a token that one of the keys has signed and whose type is typ, and
// believes nothing else of it.
func (v *Verifier) verify(token, typ string, keys [][]byte) (claimSet, error) {
	// Base64 decoders skip line ends: without this, a denied token with one appended would be a
	// good token with another hash.
	if len(token) > maxToken || !tokenText(token) {
		return nil, ErrRefused
	}
	raw := claimSet{}
	parsed, err := v.parser.ParseWithClaims(token, &raw, func(t *jwt.Token) (any, error) {
		if err := checkHeader(t.Header, typ); err != nil {
			return nil, err
		}
		set := jwt.VerificationKeySet{}
		for _, key := range keys {
			set.Keys = append(set.Keys, key)
		}
		return set, nil
	})
	// The parser's errors can quote the token, so none is passed on.
	if err != nil || !parsed.Valid {
		return nil, ErrRefused
	}
	return raw, nil
}

// inTime compares the days of a license with the clock.
func (v *Verifier) inTime(l listed) error {
	now := v.now()
	switch {
	case !now.Before(l.grant.End):
		return ErrExpired
	case now.Add(skew).Before(l.grant.Start), now.Add(skew).Before(l.issued):
		return ErrNotYet
	}
	return nil
}

// checkHeader refuses what would change the meaning of the token. Names of keys (kid, jwk, jku, x5u
// …) are ignored: the key is ours whatever they say. RFC 7515 section 4.1.11 wants a crit that is
// not understood refused; RFC 8725 section 3.11 keeps one kind of token from passing as another.
// Only a license may leave its type out.
func checkHeader(header map[string]any, want string) error {
	if _, ok := header["crit"]; ok {
		return errors.New("header asks for an extension")
	}
	if typ, ok := header["typ"]; ok || want != licenseType {
		if text, ok := typ.(string); !ok || !strings.EqualFold(text, want) {
			return errors.New("header names another type of token")
		}
	}
	return nil
}

// looksLikeToken tells a compact JWT by its shape: three segments, the first of them base64 of
// `{"`.
func looksLikeToken(s string) bool {
	return strings.HasPrefix(s, "eyJ") && strings.Count(s[:min(len(s), maxToken)], ".") == 2
}

// tokenText allows the characters of a compact JWT only.
func tokenText(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' &&
			c != '_' &&
			c != '.' {
			return false
		}
	}
	return true
}

// Derive makes n bytes of key material for another purpose from the signing key with HKDF-SHA256
// (RFC 5869). It panics when n is over 8,160 bytes.
func (v *Verifier) Derive(label string, n int) []byte {
	return derive(v.keys[0], label, n)
}

// DeriveAll is Derive for every key, the signing key first: what was made before a rotation must
// still be recognised.
func (v *Verifier) DeriveAll(label string, n int) [][]byte {
	all := make([][]byte, len(v.keys))
	for i, key := range v.keys {
		all[i] = derive(key, label, n)
	}
	return all
}

func derive(key []byte, label string, n int) []byte {
	out, err := hkdf.Key(sha256.New, key, nil, label, n)
	if err != nil {
		panic("license: derive: " + err.Error())
	}
	return out
}
