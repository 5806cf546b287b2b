package license

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Signature is what is known of a token's signature.
type Signature int

// Nobody has looked at it; one of the keys has made it; or none has.
const (
	Unverified Signature = iota
	Verified
	Invalid
)

// Claims is what a license says about itself. Nothing of it is verified unless Signature says so.
type Claims struct {
	Signature Signature
	// Refused tells why a server with these keys, and without a list of other licenses, refuses the
	// token now; nil: it takes it, or nobody knows since the signature was not verified.
	Refused error

	// Header and Payload are the two JSON objects as they stand in the token.
	Header, Payload json.RawMessage
	// Grant is what Check would grant if the signature is good. It is complete only when Fault is
	// nil. Of a user token it has CpCode alone.
	Grant Grant
	// User is what a user token says; nil: it is a license.
	User *User
	// Issued is when the license says it was made, UTC. Of a user token: the first instant at which
	// it is valid, zero for any.
	Issued time.Time
	// Err tells why Check refuses the token whatever its signature; nil: only signature, cpCode and
	// time decide.
	Err error
}

// Inspect decodes a license or a user token without verifying it.
func Inspect(authKey string) (Claims, error) {
	if len(authKey) > maxToken {
		return Claims{}, fmt.Errorf("token has %d bytes, at most %d are accepted",
			len(authKey), maxToken)
	}
	var (
		c      Claims
		raw    = claimSet{}
		parser = jwt.NewParser(jwt.WithStrictDecoding())
	)
	token, parts, err := parser.ParseUnverified(authKey, &raw)
	if parts == nil {
		return Claims{}, errors.New("not a JWT of three parts")
	}
	// An unknown algorithm is an error of the parser, but a thing to show here.
	if err != nil && !errors.Is(err, jwt.ErrTokenUnverifiable) {
		return Claims{}, errors.New("not base64url of JSON")
	}
	c.Header, _ = parser.DecodeSegment(parts[0])
	c.Payload, _ = parser.DecodeSegment(parts[1])
	var errs []error
	if token.Header["alg"] != "HS256" {
		errs = append(errs, errors.New("alg is not HS256"))
	}
	typ := licenseType
	if isUserToken(authKey) {
		typ, c.User = userType, &User{}
	}
	if err := checkHeader(token.Header, typ); err != nil {
		errs = append(errs, err)
	}
	if c.User != nil {
		var textErr error
		c.Grant.CpCode, textErr = raw.text("authCode", maxID)
		*c.User, c.Issued, err = raw.user()
		err = errors.Join(textErr, err)
	} else {
		c.Grant, c.Issued, err = raw.grant()
	}
	if err != nil {
		errs = append(errs, err)
	}
	c.Grant.Hash = sha256.Sum256([]byte(authKey))
	c.Err = errors.Join(errs...)
	return c, nil
}

// Inspect decodes a license or a user token and verifies it.
func (v *Verifier) Inspect(authKey string) (Claims, error) {
	c, err := Inspect(authKey)
	if err != nil {
		return c, err
	}
	typ, keys := licenseType, v.keys
	if c.User != nil {
		typ, keys = userType, v.UserTokenKeys(c.Grant.CpCode)
	}
	c.Signature = Verified
	if _, err := v.verify(authKey, typ, keys); err != nil {
		c.Signature = Invalid
		c.Refused = ErrRefused
		return c, nil
	}
	if _, c.Refused = v.Check(c.Grant.CpCode, authKey); errors.Is(c.Refused, ErrUserTokenNeeded) {
		c.Refused = nil // as the license says itself
	}
	return c, nil
}

// String is a text for people. It begins with what is known of the signature.
func (c Claims) String() string {
	var b strings.Builder
	switch c.Signature {
	case Verified:
		b.WriteString("Signature verified: a key of this server has made it.\n")
	case Invalid:
		b.WriteString(
			"Signature INVALID: no key of this server has made it. " +
				"A license issued elsewhere is valid only where --licenses lists it.\n",
		)
	default:
		b.WriteString(
			"Signature NOT verified: anyone could have written this. " +
				"The license signing key verifies it.\n",
		)
	}
	for _, part := range []struct {
		name string
		json []byte
	}{{"header", c.Header}, {"claims", c.Payload}} {
		var text bytes.Buffer
		if json.Indent(&text, part.json, "", "  ") != nil {
			continue
		}
		// Some terminals act on C1 control characters, which JSON lets through.
		fmt.Fprintf(&b, "%s %s\n", part.name, strings.Map(visible, text.String()))
	}
	if c.Err != nil {
		fmt.Fprintf(&b, "refused in any case: %s\n", strings.ReplaceAll(c.Err.Error(), "\n", "; "))
	} else if c.User != nil {
		until := c.User.Expires.Format(time.RFC3339)
		fmt.Fprintf(&b, "a user token for one user, valid until %s\n", until)
	} else {
		from, until := c.Grant.Start.Format(time.RFC3339), c.Grant.End.Format(time.RFC3339)
		fmt.Fprintf(&b, "valid from %s until %s\n", from, until)
	}
	if c.Signature == Verified && c.Refused == nil {
		b.WriteString("accepted now\n")
	} else if c.Signature == Verified && c.Err == nil {
		fmt.Fprintf(&b, "refused now: %s\n", c.Refused)
	}
	fmt.Fprintf(&b, "hash %x\n", c.Grant.Hash)
	return b.String()
}

func visible(r rune) rune {
	if r != '\n' && (r < ' ' || (r >= 0x7f && r < 0xa0)) {
		return '\uFFFD'
	}
	return r
}
