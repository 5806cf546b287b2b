package license

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// userType is the header typ of a user token; by it alone the two kinds are told apart before
	// any key is tried.
	userType = "user+jwt"
	maxRooms = 64
)

// User is what a user token says: the second proof, made by the tenant's backend for one user and a
// short time.
type User struct {
	// ID is the one user id the token is good for.
	ID string
	// Name is shown to others unless the client gives another; it may be empty.
	Name string
	// Rooms are the ids of the only rooms that the user may create and enter, 1 to 64; nil: all.
	Rooms []string
	// Host makes the user host of each room it enters.
	Host bool
	// Expires is the first instant, UTC, at which nobody gets in with the token any more. Whoever
	// is in stays.
	Expires time.Time
	// Hash is the SHA-256 of the user token: its name in deny lists.
	Hash [sha256.Size]byte
}

// Admits tells whether the user may create and enter the room. A nil User, one that came with a
// license alone, may enter all.
func (u *User) Admits(room string) bool {
	return u == nil || u.Rooms == nil || slices.Contains(u.Rooms, room)
}

// TokenError says why a user token is refused. It quotes nothing of the token. Until the signature
// is known to be good there is one reason only, the same whether or not the tenant exists.
type TokenError struct{ Reason string }

func (e *TokenError) Error() string { return "user token refused: " + e.Reason }

// Unwrap makes it a kind of ErrRefused.
func (e *TokenError) Unwrap() error { return ErrRefused }

const unsigned = "it is not signed, with HS256, with a userTokenKey of this cpCode"

// UserTokenKey is the key of the tenant's user tokens: HMAC-SHA256 of "user-token:" and cpCode
// under the signing key.
func (v *Verifier) UserTokenKey(cpCode string) []byte {
	return userTokenKey(v.keys[0], cpCode)
}

// UserTokenKeys is UserTokenKey for every key, the signing key's first: a tenant changes its key
// some time after a rotation.
func (v *Verifier) UserTokenKeys(cpCode string) [][]byte {
	all := make([][]byte, len(v.keys))
	for i, key := range v.keys {
		all[i] = userTokenKey(key, cpCode)
	}
	return all
}

func userTokenKey(key []byte, cpCode string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("user-token:" + cpCode))
	return mac.Sum(nil)
}

// isUserToken reads the type in the header, which nobody has verified: it decides with which key
// the token is verified, and a token of one kind is never signed with a key of the other.
func isUserToken(token string) bool {
	first, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.Strict().DecodeString(first)
	if err != nil {
		return false
	}
	var header map[string]any
	if json.Unmarshal(text, &header) != nil {
		return false
	}
	typ, _ := header["typ"].(string)
	return strings.EqualFold(typ, userType)
}

// checkUser verifies a user token and the license it names. The token's time is judged before the
// license, since ErrTokenExpired must mean that the tenant's backend did sign it.
func (v *Verifier) checkUser(cpCode, token string) (Grant, error) {
	raw, err := v.verify(token, userType, v.UserTokenKeys(cpCode))
	if err != nil {
		return Grant{}, &TokenError{unsigned}
	}
	code, err := raw.text("authCode", maxID)
	if err != nil || subtle.ConstantTimeCompare([]byte(code), []byte(cpCode)) != 1 {
		return Grant{}, &TokenError{"authCode is not the cpCode"}
	}
	hash := sha256.Sum256([]byte(token))
	if v.revoked.contains(hash) {
		return Grant{}, revokedToken(unsigned)
	}
	user, from, err := raw.user()
	if err != nil {
		return Grant{}, refuseToken(err)
	}
	user.Hash = hash
	now := v.now()
	switch {
	case !now.Before(user.Expires):
		return Grant{}, ErrTokenExpired
	case now.Add(skew).Before(from):
		return Grant{}, &TokenError{
			"it is not valid yet: compare iat and nbf with the server's clock",
		}
	}
	grant, err := v.namedLicense(cpCode, raw)
	if err != nil {
		return Grant{}, err
	}
	grant.User = &user
	return grant, nil
}

// namedLicense is the license that the token names, or else the one that the configuration has for
// the tenant.
func (v *Verifier) namedLicense(cpCode string, raw claimSet) (Grant, error) {
	if !raw.has("license") {
		return v.listedFor(cpCode)
	}
	text, err := raw.text("license", maxToken)
	if err != nil {
		return Grant{}, refuseToken(err)
	}
	grant, err := v.checkLicense(cpCode, text)
	const invalid = "its claim license holds no valid authKey of this cpCode"
	switch {
	case errors.Is(err, ErrRevoked):
		return Grant{}, revokedToken(invalid)
	case errors.Is(err, ErrRefused):
		return Grant{}, &TokenError{invalid}
	}
	return grant, err
}

// revokedToken answers the client as any other token would be that is bad in that way.
func revokedToken(
	reason string,
) error {
	return fmt.Errorf("%w: %w", ErrRevoked, &TokenError{reason})
}

// refuseToken turns faults of claims into one line.
func refuseToken(errs error) error {
	return &TokenError{strings.ReplaceAll(errs.Error(), "\n", "; ")}
}

// user reads the claims of a user token; its second result is the first instant at which it is
// valid, zero when it does not say. All faults are reported together.
func (c claimSet) user() (User, time.Time, error) {
	var (
		u    User
		from time.Time
		errs []error
	)
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	u.ID, err = c.text("sub", maxID)
	add(err)
	if err == nil && !validWireID(u.ID) {
		add(errors.New("sub must be a user id of 1 to 128 bytes"))
	}
	if c.has("name") {
		u.Name, err = c.text("name", maxText)
		add(err)
		if err == nil && strings.ContainsRune(u.Name, utf8.RuneError) {
			add(errors.New("name is not UTF-8"))
		}
	}
	if c.has("rooms") {
		u.Rooms, err = c.rooms()
		add(err)
	}
	if c.has("host") {
		u.Host, err = c.flag("host")
		add(err)
	}
	u.Expires, err = c.instant("exp")
	add(err)
	for _, name := range []string{"iat", "nbf"} {
		if !c.has(name) {
			continue
		}
		at, err := c.instant(name)
		add(err)
		if err == nil && at.After(from) {
			from = at
		}
	}
	return u, from, errors.Join(errs...)
}

// rooms reads a list of room ids. An empty list would be a token for no room or for all, depending
// on the reader, so it is refused.
func (c claimSet) rooms() ([]string, error) {
	var list []*string
	if err := json.Unmarshal(c["rooms"], &list); err != nil || len(list) == 0 ||
		len(list) > maxRooms {
		return nil, fmt.Errorf("rooms must be a list of 1 to %d strings", maxRooms)
	}
	rooms := make([]string, 0, len(list))
	for _, id := range list {
		if id == nil || !validWireID(*id) {
			return nil, errors.New("rooms must hold room ids of 1 to 128 bytes")
		}
		rooms = append(rooms, *id)
	}
	return rooms, nil
}

// validWireID is the rule of the wire for ids that become names in JavaScript objects. U+FFFD is
// what broken UTF-8 was read as.
func validWireID(s string) bool {
	return validID(s) && s != "__proto__" && !strings.ContainsRune(s, utf8.RuneError)
}

// UserParams is what a new user token shall say; see User.
type UserParams struct {
	CpCode, ID, Name string
	Rooms            []string
	Host             bool
	// Expires is the end; whole seconds are kept.
	Expires time.Time
	// License is the authKey that the token names; empty: the configuration of the server must have
	// one for CpCode.
	License string
}

// IssueUser signs a user token with the tenant's first key, as its backend would. What Check would
// refuse whatever the configuration is not issued; all faults are reported together.
func (v *Verifier) IssueUser(p UserParams) (string, error) {
	claims := jwt.MapClaims{
		"authCode": p.CpCode,
		"sub":      p.ID,
		"exp":      p.Expires.Unix(),
		"iat":      v.now().Unix(),
	}
	if p.Name != "" {
		claims["name"] = p.Name
	}
	if len(p.Rooms) > 0 {
		claims["rooms"] = p.Rooms
	}
	if p.Host {
		claims["host"] = true
	}
	if p.License != "" {
		claims["license"] = p.License
	}
	var errs []error
	if !validID(p.CpCode) {
		errs = append(
			errs,
			errors.New("cpCode must have 1 to 128 bytes without control characters"),
		)
	}
	if p.License != "" {
		named, err := Inspect(p.License)
		if err != nil || named.User != nil || named.Grant.CpCode != p.CpCode {
			errs = append(errs, errors.New("the license is not an authKey of this cpCode"))
		}
	}
	// The claims take the way through JSON that Check will see, so the rules stand in one place.
	text, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("user token: %w", err)
	}
	var raw claimSet
	if err := json.Unmarshal(text, &raw); err != nil {
		return "", fmt.Errorf("user token: %w", err)
	}
	if _, _, err := raw.user(); err != nil {
		errs = append(errs, err)
	}
	if !p.Expires.After(v.now()) {
		errs = append(errs, errors.New("exp is already past"))
	}
	if len(errs) > 0 {
		return "", fmt.Errorf("user token: %w", errors.Join(errs...))
	}
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	token.Header["typ"] = userType
	signed, err := token.SignedString(v.UserTokenKey(p.CpCode))
	if err != nil {
		return "", fmt.Errorf("user token: %w", err)
	}
	if len(signed) > maxToken {
		return "", fmt.Errorf("user token: it has %d bytes, at most %d are accepted",
			len(signed), maxToken)
	}
	return signed, nil
}
