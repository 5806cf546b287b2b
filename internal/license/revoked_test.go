package license

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// revoke puts a list of tokens in force, written as an operator writes it.
func revoke(t *testing.T, r *Revoked, tokens ...string) {
	t.Helper()
	text := "# revoked\r\n\n"
	for _, token := range tokens {
		text += fmt.Sprintf("  %X # a tenant\n", sha256.Sum256([]byte(token)))
	}
	list, err := ParseRevocationList([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Set(list)
	if r.Len() != len(tokens) {
		t.Fatalf("%d in force, want %d", r.Len(), len(tokens))
	}
}

// What a client may learn of a refusal is its text without ErrRevoked, and its kind.
func TestRevokedTokensAreRefusedLikeBadOnes(t *testing.T) {
	list := new(Revoked)
	foreign := signed(t, keyB, header, with(map[string]any{"authCode": "moved"}))
	second := signed(t, keyB, header, with(map[string]any{"authCode": "moved", "name": "second"}))
	v, err := New(Config{
		Keys: [][]byte{keyA}, Revoked: list, Now: func() time.Time { return noon },
		Pinned: []Pinned{{CpCode: "moved", AuthKey: foreign}, {CpCode: "moved", AuthKey: second}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ours, other := signed(
		t,
		keyA,
		header,
		good(),
	), signed(
		t,
		keyA,
		header,
		with(map[string]any{"name": "other"}),
	)
	expired := signed(t, keyA, header, with(map[string]any{"endDate": "2026-01-02"}))
	token, named := userToken(t, nil), userToken(t, map[string]any{"sub": "lee"})
	unnamed := signed(
		t,
		tokenKey(keyA, "moved"),
		userHeader,
		minted(t, map[string]any{"authCode": "moved", "license": absent}),
	)
	bad := func(token string) string { return token[:len(token)-4] + "AAAA" }
	cases := []struct{ name, code, token, revoked string }{
		{"ours", "demo-01", ours, ours},
		{"ours that has ended, too", "demo-01", expired, expired},
		{"listed", "moved", foreign, foreign},
		{"a user token", "demo-01", token, token},
	}
	for _, c := range cases {
		revoke(t, list, c.revoked)
		_, err := v.Check(c.code, c.token)
		_, worse := v.Check(c.code, bad(c.token))
		if !errors.Is(err, ErrRevoked) || !errors.Is(err, ErrRefused) ||
			errors.Is(worse, ErrRevoked) {
			t.Errorf("%s: %v; with a bad signature %v", c.name, err, worse)
		}
		if errors.Is(err, ErrExpired) {
			t.Errorf("%s: it is told apart from a bad one: %v", c.name, err)
		}
		var a, b *TokenError
		if errors.As(err, &a) != errors.As(worse, &b) || (a != nil && a.Reason != b.Reason) {
			t.Errorf("%s: the client is told %v, of a bad one %v", c.name, err, worse)
		}
	}

	// a user token stands on the license that it names
	revoke(t, list, ours)
	var reason *TokenError
	_, err = v.Check("demo-01", named)
	_, worse := v.Check("demo-01", userToken(t, map[string]any{"license": bad(ours)}))
	if !errors.Is(err, ErrRevoked) || !errors.As(err, &reason) {
		t.Errorf("its license is revoked: %v", err)
	} else if other := new(TokenError); !errors.As(worse, &other) || *other != *reason {
		t.Errorf("the client is told %v, of a bad license %v", reason, worse)
	}
	// others of the tenant go on, and one that names none gets the next that is listed
	if _, err := v.Check("demo-01", other); err != nil {
		t.Error(err)
	}
	revoke(t, list, foreign)
	if g, err := v.Check("moved", unnamed); err != nil || g.Name != "second" {
		t.Errorf("%+v, %v", g, err)
	}
	revoke(t, list, foreign, second)
	if _, err := v.Check("moved", unnamed); !errors.Is(err, ErrNoLicense) {
		t.Errorf("all are revoked: %v", err)
	}

	// taken from the list it is good again
	revoke(t, list)
	for _, c := range cases {
		if _, err := v.Check(c.code, c.token); err != nil && c.token != expired {
			t.Errorf("%s, not revoked: %v", c.name, err)
		}
	}
}

func TestGrantsOfRevokedTokensAreKnown(t *testing.T) {
	list := new(Revoked)
	v, err := New(
		Config{Keys: [][]byte{keyA}, Revoked: list, Now: func() time.Time { return noon }},
	)
	if err != nil {
		t.Fatal(err)
	}
	ours, token := signed(t, keyA, header, good()), userToken(t, nil)
	alone, err1 := v.Check("demo-01", ours)
	user, err2 := v.Check("demo-01", token)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for revoked, want := range map[string][2]bool{
		"": {false, false}, ours: {true, true}, token: {false, true},
	} {
		revoke(t, list, revoked)
		if v.Revoked(alone) != want[0] || v.Revoked(user) != want[1] {
			t.Errorf("with %.20q revoked: %v, %v", revoked, v.Revoked(alone), v.Revoked(user))
		}
	}
	if verifier(t, noon, keyA).Revoked(user) {
		t.Error("a verifier without a list revokes nothing")
	}
}

func TestErrorsInARevocationListAreReportedTogether(t *testing.T) {
	good := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"": "", good: "", good + "\n" + good + "#twice": "", "#" + strings.Repeat("x", 300): "",
		good[:63]: "line 1: ", good + "a": "line 1: ", good[:62] + "xy": "line 1: ",
		good + " " + good: "line 1: ", good + "  -": "line 1: ",
		good + "\n\n" + "eyJhbGciOiJIUzI1NiJ9.e30.x\n" + good + "\nnonsense": "line 3: ",
		strings.Repeat("x\n", 100):                           "there may be more",
		strings.Repeat("#\n", MaxRevocationListSize/2):       "",
		strings.Repeat("#\n", MaxRevocationListSize/2) + "#": "more than",
	} {
		list, err := ParseRevocationList([]byte(text))
		switch {
		case want == "" && err != nil:
			t.Errorf("%.80q: %v", text, err)
		case want != "" && (list != nil || err == nil):
			t.Errorf("%.80q is used", text)
		}
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "eyJ") {
			t.Errorf("the fault quotes the file: %v", err)
		}
	}
	_, err := ParseRevocationList([]byte("x\n" + good + "\ny"))
	if err == nil || !strings.Contains(err.Error(), "line 1: ") ||
		!strings.Contains(err.Error(), "line 3: ") {
		t.Errorf("both faults are to be said: %v", err)
	}
}

func FuzzParseRevoked(f *testing.F) {
	for _, s := range []string{
		"", "# x\n", strings.Repeat("0f", 32), strings.Repeat("0F", 32) + " # y\r\n\n", "nonsense",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := ParseRevocationList(text)
		if (list == nil) == (err == nil) || len(list) > len(text)/64+1 {
			t.Errorf("%q: %d, %v", text, len(list), err)
		}
	})
}
