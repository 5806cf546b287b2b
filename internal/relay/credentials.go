package relay

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// maxUsername keeps far below the 513 bytes of RFC 8489 section 14.3.
const maxUsername = 256

// Credentials of the TURN REST form: the user name is "expiry:tenantHash.session" with expiry in seconds since 1970, the password
// is base64(HMAC-SHA1(secret, username)), so that a coturn with the same secret accepts them too. They name no user, since the
// user name travels in clear. tenantHash and session are of letters, digits, "-" and "_".
//
// The expiry counts when allocating only: a running allocation is refreshed with the credentials it was made with.
func (s *Server) Credentials(tenantHash, session string) (username, password string) {
	expiry := s.cfg.Now().Add(s.cfg.CredentialLife).Unix()
	username = strconv.FormatInt(expiry, 10) + ":" + tenantHash + "." + session
	return username, passwordOf(s.cfg.Secret, username)
}

func passwordOf(secret []byte, username string) string {
	mac := hmac.New(sha1.New, secret)
	mac.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// parseUsername takes a user name apart. The part after the expiry is the session: quota and ownership of an allocation go by it,
// so that fresh credentials of a session do not open a fresh quota.
func parseUsername(username string) (expiry time.Time, session string, ok bool) {
	digits, session, found := strings.Cut(username, ":")
	if !found || len(username) > maxUsername || digits == "" || len(digits) > 11 || strings.Trim(digits, "0123456789") != "" {
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
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
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
