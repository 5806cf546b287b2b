package relay

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxUsername keeps far below the 513 bytes of RFC 8489 section 14.3.
const maxUsername = 256

// Credentials of the TURN REST form: the user name is "expiry:tenantHash.session" with expiry in
// seconds since 1970, the password is base64(HMAC-SHA1(secret, username)), so that a coturn with
// the same secret accepts them too. They name no user, since the user name travels in clear.
// tenantHash and session are of letters, digits, "-" and "_".
//
// The expiry counts when allocating only: a running allocation is refreshed with the credentials it
// was made with.
func (s *Server) Credentials(tenantHash, session string) (username, password string) {
	expiry := s.cfg.Now().Add(s.cfg.CredentialLife).Unix()
	username = strconv.FormatInt(expiry, 10) + ":" + tenantHash + "." + session
	return username, RESTPassword(s.secrets.Load().current, username)
}

// secrets are the keys of credentials. They are replaced as a whole.
type secrets struct {
	current []byte // makes credentials, and verifies them
	// Verifies those that expire by until, and so were made while it was in force; nil: there is
	// none.
	previous []byte
	// Where servers elsewhere make the credentials, they may go on for a while.
	previousUntil time.Time
}

// SetSecret replaces the secret. Allocations that are there go on, and so do credentials made with
// the secret before, until they expire: it is good for no others. Servers that share it have as
// long as credentials live to get the new one.
func (s *Server) SetSecret(secret []byte) error {
	if err := validSecret(secret); err != nil {
		return err
	}
	for {
		old := s.secrets.Load()
		if bytes.Equal(old.current, secret) {
			return nil
		}
		until := s.cfg.Now().Add(2 * s.cfg.CredentialLife)
		if s.secrets.CompareAndSwap(
			old,
			&secrets{current: bytes.Clone(secret), previous: old.current, previousUntil: until},
		) {
			return nil
		}
	}
}

func validSecret(secret []byte) error {
	if len(secret) < minSecret {
		return fmt.Errorf("the secret has %d bytes, at least %d are needed", len(secret), minSecret)
	}
	return nil
}

// keysFor returns the keys with which credentials of that expiry may have been made.
func (s *secrets) keysFor(expiry time.Time) [][]byte {
	if s.previous == nil || expiry.After(s.previousUntil) {
		return [][]byte{s.current}
	}
	return [][]byte{s.current, s.previous}
}

// RESTPassword is the password of a user name in the TURN REST API: base64 of HMAC-SHA1. coturn
// expects the same.
func RESTPassword(secret []byte, username string) string {
	mac := hmac.New(sha1.New, secret)
	mac.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// parseUsername takes a user name apart. The part after the expiry is the session: quota and
// ownership of an allocation go by it, so that fresh credentials of a session do not open a fresh
// quota.
func parseUsername(username string) (expiry time.Time, session string, ok bool) {
	digits, session, found := strings.Cut(username, ":")
	if !found || len(username) > maxUsername || digits == "" || len(digits) > 11 ||
		strings.Trim(digits, "0123456789") != "" {
		return time.Time{}, "", false
	}
	seconds, err := strconv.ParseInt(digits, 10, 64)
	tenant, name, found := strings.Cut(session, ".")
	if err != nil || !found || !isToken(tenant) || !isToken(name) {
		return time.Time{}, "", false
	}
	return time.Unix(seconds, 0), session, true
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' &&
			c != '_' {
			return false
		}
	}
	return s != ""
}

// tenantOf is the part of "tenantHash.session" that stands for the license.
func tenantOf(session string) string {
	tenant, _, _ := strings.Cut(session, ".")
	return tenant
}
