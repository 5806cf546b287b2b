package relay

import (
	"strings"
	"testing"
	"time"
)

// The password was made with openssl: printf user | openssl dgst -sha1 -hmac secret -binary |
// base64.
func TestCredentialsHaveTheFormOthersAccept(t *testing.T) {
	s := &Server{cfg: Config{
		CredentialLife: 100 * time.Second,
		Now:            func() time.Time { return time.Unix(1699999900, 0) },
	}}
	s.secrets.Store(&secrets{current: []byte("0123456789abcdef")})
	user, password := s.Credentials("t-1", "s_2")
	if user != "1700000000:t-1.s_2" || password != "rgA5GyUA5SqCRXWTfDkcxaGc7tM=" {
		t.Errorf("got %q, %q", user, password)
	}
	expiry, session, ok := parseUsername(user)
	if !ok || expiry.Unix() != 1700000000 || session != "t-1.s_2" {
		t.Errorf("read back as %v, %q, %v", expiry, session, ok)
	}
}

func TestUserNamesOfAnotherFormAreRefused(t *testing.T) {
	for _, name := range []string{
		"", ":", "1700000000", "1700000000:", ":a.b", "x:a.b", "-1:a.b", "+1:a.b", "1e9:a.b",
		" 1:a.b", "1700000000:a", "1700000000:a.",
		"1700000000:.b", "1700000000:a.b.c", "1700000000:a.b:c", "1700000000:a/b.c",
		"1700000000:a.b\x00", "1700000000:ä.b",
		"999999999999:a.b", "99999999999999999999:a.b", "1700000000:a." + strings.Repeat("b", 300),
	} {
		if _, session, ok := parseUsername(name); ok {
			t.Errorf("%q: accepted as session %q", name, session)
		}
	}
}

func FuzzParseUsername(f *testing.F) {
	for _, s := range []string{
		"1700000000:t.s", "0:a.b", ":", "1:.", "99999999999:a.b", "1700000000:a.b:c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		expiry, session, ok := parseUsername(name)
		if !ok {
			return
		}
		digits, rest, _ := strings.Cut(name, ":")
		if rest != session || strings.TrimLeft(digits, "0123456789") != "" || expiry.Unix() < 0 ||
			expiry.Unix() > 99999999999 {
			t.Errorf("%q: read as %v, %q", name, expiry, session)
		}
		if tenant, rest, found := strings.Cut(session, "."); !found || !isToken(tenant) ||
			!isToken(rest) ||
			len(name) > maxUsername {
			t.Errorf("%q: accepted session %q", name, session)
		}
	})
}
