package license

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const userHeader = `{"alg":"HS256","typ":"user+jwt"}`

// tokenKey is computed as a tenant's backend documentation says, not by the code under test.
func tokenKey(key []byte, cpCode string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("user-token:" + cpCode))
	return mac.Sum(nil)
}

// minted are the claims of a good user token that names a good license.
func minted(t testing.TB, change map[string]any) map[string]any {
	claims := map[string]any{
		"authCode": "demo-01", "sub": "kim", "exp": noon.Add(10 * time.Minute).Unix(),
		"license": signed(t, keyA, header, good()),
	}
	for name, value := range change {
		if value == absent {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	return claims
}

func userToken(t testing.TB, change map[string]any) string {
	return signed(t, tokenKey(keyA, "demo-01"), userHeader, minted(t, change))
}

func TestUserTokenIsGranted(t *testing.T) {
	v := verifier(t, noon, keyA)
	g, err := v.Check(
		"demo-01",
		userToken(
			t,
			map[string]any{
				"name":  "김",
				"rooms": []string{"K1", "방"},
				"host":  true,
				"iat":   noon.Unix(),
			},
		),
	)
	if err != nil {
		t.Fatal(err)
	}
	u := g.User
	if g.CpCode != "demo-01" || g.MaxUser != 100 || u == nil || u.ID != "kim" || u.Name != "김" ||
		!u.Host ||
		!slices.Equal(u.Rooms, []string{"K1", "방"}) ||
		!u.Expires.Equal(noon.Add(10*time.Minute)) {
		t.Errorf("grant is %+v, user %+v", g, u)
	}
	if !u.Admits("K1") || u.Admits("K2") || u.Admits("") {
		t.Error("the user may enter the rooms of the token and no others")
	}
	if g.Hash != sha256.Sum256([]byte(signed(t, keyA, header, good()))) {
		t.Error("the hash must be that of the license: it is its name in deny lists")
	}
	g, err = v.Check("demo-01", userToken(t, nil))
	if err != nil || g.User.Host || g.User.Rooms != nil || !g.User.Admits("any") ||
		g.User.Name != "" {
		t.Errorf("%v, user %+v", err, g.User)
	}
	if g, err = v.Check("demo-01", signed(t, keyA, header, good())); err != nil || g.User != nil ||
		!g.User.Admits("any") {
		t.Errorf("a license alone: %v, user %+v", err, g.User)
	}
}

func TestUserTokenClaims(t *testing.T) {
	at := func(d time.Duration) int64 { return noon.Add(d).Unix() }
	for name, c := range map[string]struct {
		change map[string]any
		reason string // part of the reason; "" means granted
	}{
		"sub missing":            {map[string]any{"sub": absent}, "sub is missing"},
		"sub empty":              {map[string]any{"sub": ""}, "sub"},
		"sub as a number":        {map[string]any{"sub": 7}, "sub must be a string"},
		"sub null":               {map[string]any{"sub": nil}, "sub"},
		"sub at the limit":       {map[string]any{"sub": strings.Repeat("x", 128)}, ""},
		"sub too long":           {map[string]any{"sub": strings.Repeat("x", 129)}, "sub"},
		"sub with a line end":    {map[string]any{"sub": "a\nb"}, "sub"},
		"sub of bad fame":        {map[string]any{"sub": "__proto__"}, "sub"},
		"sub that was broken":    {map[string]any{"sub": "a\uFFFD"}, "sub"},
		"name as a list":         {map[string]any{"name": []string{"a"}}, "name"},
		"name too long":          {map[string]any{"name": strings.Repeat("x", 257)}, "name"},
		"name with a control":    {map[string]any{"name": "a\u0007"}, "name"},
		"name empty":             {map[string]any{"name": ""}, ""},
		"rooms empty":            {map[string]any{"rooms": []string{}}, "rooms"},
		"rooms null":             {map[string]any{"rooms": nil}, "rooms"},
		"rooms as text":          {map[string]any{"rooms": "K1"}, "rooms"},
		"rooms with a null":      {map[string]any{"rooms": []any{"K1", nil}}, "rooms"},
		"rooms with a number":    {map[string]any{"rooms": []any{1}}, "rooms"},
		"rooms with an empty id": {map[string]any{"rooms": []string{""}}, "rooms"},
		"rooms with a bad id":    {map[string]any{"rooms": []string{"__proto__"}}, "rooms"},
		"rooms at the limit":     {map[string]any{"rooms": slices.Repeat([]string{"K"}, 64)}, ""},
		"rooms over the limit": {
			map[string]any{"rooms": slices.Repeat([]string{"K"}, 65)}, "rooms",
		},
		"host as text":        {map[string]any{"host": "true"}, "host"},
		"host null":           {map[string]any{"host": nil}, "host"},
		"host false":          {map[string]any{"host": false}, ""},
		"exp missing":         {map[string]any{"exp": absent}, "exp is missing"},
		"exp as text":         {map[string]any{"exp": "1"}, "exp"},
		"exp negative":        {map[string]any{"exp": -1}, "exp"},
		"exp out of range":    {map[string]any{"exp": json.RawMessage("1e300")}, "exp"},
		"iat a minute ahead":  {map[string]any{"iat": at(time.Minute)}, ""},
		"iat 61 s ahead":      {map[string]any{"iat": at(61 * time.Second)}, "not valid yet"},
		"iat as text":         {map[string]any{"iat": "now"}, "iat"},
		"nbf 61 s ahead":      {map[string]any{"nbf": at(61 * time.Second)}, "not valid yet"},
		"authCode missing":    {map[string]any{"authCode": absent}, "authCode"},
		"authCode of another": {map[string]any{"authCode": "demo-02"}, "authCode"},
		"authCode as a list":  {map[string]any{"authCode": []string{"demo-01"}}, "authCode"},
		"unknown claims":      {map[string]any{"role": "teacher", "aud": 5}, ""},
		"license as a number": {map[string]any{"license": 1}, "license must be a string"},
		"license null":        {map[string]any{"license": nil}, "license must be a string"},
		"license of another key": {
			map[string]any{"license": signed(t, keyB, header, good())}, "no valid authKey",
		},
		"license of another": {
			map[string]any{
				"license": signed(t, keyA, header, with(map[string]any{"authCode": "demo-02"})),
			},
			"no valid authKey",
		},
		"license with bad claims": {
			map[string]any{"license": signed(t, keyA, header, with(map[string]any{"maxUser": 0}))},
			"no valid authKey",
		},
		"license is a user token": {
			map[string]any{"license": userToken(t, nil)}, "no valid authKey",
		},
		"license is empty": {map[string]any{"license": ""}, "no valid authKey"},
		"license by the tenant": {
			map[string]any{"license": signed(t, tokenKey(keyA, "demo-01"), header, good())},
			"no valid authKey",
		},
		"two faults": {map[string]any{"sub": absent, "host": 1}, "sub is missing; host"},
		"license that asks for it": {
			map[string]any{
				"license": signed(t, keyA, header, with(map[string]any{"requireUserToken": true})),
			},
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := verifier(t, noon, keyA).Check("demo-01", userToken(t, c.change))
			if c.reason == "" {
				if err != nil || g.User == nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var refused *TokenError
			if !errors.As(err, &refused) || !errors.Is(err, ErrRefused) ||
				!strings.Contains(refused.Reason, c.reason) ||
				strings.Contains(refused.Reason, "\n") {
				t.Errorf("got %v, want a TokenError with %q", err, c.reason)
			}
			if g.User != nil || g.CpCode != "" {
				t.Errorf("granted %+v", g)
			}
		})
	}
}

func TestUserTokenEndsExactly(t *testing.T) {
	token := userToken(t, nil)
	for after, want := range map[time.Duration]error{
		10*time.Minute - time.Nanosecond: nil, 10 * time.Minute: ErrTokenExpired,
		time.Hour: ErrTokenExpired,
	} {
		if _, err := verifier(t, noon.Add(after), keyA).Check("demo-01", token); !errors.Is(
			err,
			want,
		) {
			t.Errorf("after %v: got %v, want %v", after, err, want)
		}
	}
}

func TestUserTokenIsAsGoodAsItsLicense(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]any
		want   error
	}{
		"ended":         {map[string]any{"endDate": "2026-05-16"}, ErrExpired},
		"not begun":     {map[string]any{"startDate": "2026-05-18"}, ErrNotYet},
		"ends at noon":  {map[string]any{"endDate": "2026-05-17T12:00:00Z"}, ErrExpired},
		"ends today":    {map[string]any{"endDate": "2026-05-17"}, nil},
		"no relay":      {map[string]any{"relay": "none"}, nil},
		"requires this": {map[string]any{"requireUserToken": true}, nil},
	} {
		named := signed(t, keyA, header, with(c.change))
		g, err := verifier(
			t,
			noon,
			keyA,
		).Check("demo-01", userToken(t, map[string]any{"license": named}))
		if !errors.Is(err, c.want) || (err == nil && g.Relay != (name != "no relay")) {
			t.Errorf("%s: got %+v, %v, want %v", name, g, err, c.want)
		}
	}
}

func TestUserTokenThatNamesNoLicense(t *testing.T) {
	_, err := verifier(
		t,
		noon,
		keyA,
	).Check("demo-01", userToken(t, map[string]any{"license": absent}))
	if !errors.Is(err, ErrNoLicense) || errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want %v", err, ErrNoLicense)
	}
}

// Whatever is wrong with the signature, and whether or not the tenant exists, the answer is the
// same.
func TestForgedUserTokensGetOneAnswer(t *testing.T) {
	good := userToken(t, nil)
	parts := strings.Split(good, ".")
	key := tokenKey(keyA, "demo-01")
	for name, token := range map[string]string{
		"the license key": signed(t, keyA, userHeader, minted(t, nil)),
		"another installation's key": signed(
			t, tokenKey(keyB, "demo-01"), userHeader, minted(t, nil),
		),
		"another tenant's key": signed(
			t, tokenKey(keyA, "demo-02"), userHeader, minted(t, nil),
		),
		"the key as base64": signed(
			t, []byte(base64.StdEncoding.EncodeToString(key)), userHeader, minted(t, nil),
		),
		"an empty key":              signed(t, nil, userHeader, minted(t, nil)),
		"signature missing":         parts[0] + "." + parts[1] + ".",
		"signature cut":             good[:len(good)-2],
		"signature with a line end": good + "\n",
		"claims changed": parts[0] + "." +
			encode(t, minted(t, map[string]any{"sub": "lee"})) + "." + parts[2],
		"two segments":  parts[0] + "." + parts[1],
		"four segments": good + ".x",
		"alg none": encode(t, `{"alg":"none","typ":"user+jwt"}`) + "." + parts[1] +
			".",
		"alg none, good signature": encode(t, `{"alg":"none","typ":"user+jwt"}`) + "." + parts[1] +
			"." + parts[2],
		"HS512 header": signed(
			t, key, `{"alg":"HS512","typ":"user+jwt"}`, minted(t, nil),
		),
		"alg missing": signed(t, key, `{"typ":"user+jwt"}`, minted(t, nil)),
		"crit": signed(
			t, key, `{"alg":"HS256","typ":"user+jwt","crit":["b64"]}`, minted(t, nil),
		),
		"a key in the header": signed(
			t, keyB, `{"alg":"HS256","typ":"user+jwt","jwk":{"k":"ZmVk"}}`, minted(t, nil),
		),
		"claims null":   signed(t, key, userHeader, "null") + "x",
		"claims a list": signed(t, key, userHeader, "[]"),
	} {
		_, err := verifier(t, noon, keyA).Check("demo-01", token)
		var refused *TokenError
		if !errors.As(err, &refused) || refused.Reason != unsigned {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, unknown := verifier(
		t,
		noon,
		keyA,
	).Check("nobody", signed(t, keyB, userHeader, minted(t, map[string]any{"authCode": "nobody"})))
	_, known := verifier(
		t,
		noon,
		keyA,
	).Check("demo-01", signed(t, keyB, userHeader, minted(t, nil)))
	if unknown == nil || known == nil || unknown.Error() != known.Error() {
		t.Errorf("an unknown tenant is told %v, a known one %v", unknown, known)
	}
	big := signed(
		t,
		key,
		userHeader,
		minted(t, map[string]any{"pad": strings.Repeat("x", maxToken)}),
	)
	if _, err := verifier(t, noon, keyA).Check("demo-01", big); !errors.Is(err, ErrRefused) {
		t.Errorf("too big: got %v", err)
	}
}

// The two kinds of token are never taken for each other, whichever key signed them.
func TestKindsOfTokensStayApart(t *testing.T) {
	v, key := verifier(t, noon, keyA), tokenKey(keyA, "demo-01")
	for name, token := range map[string]string{
		"user claims typed as a license": signed(t, key, header, minted(t, nil)),
		"user claims without a type": signed(
			t, key, `{"alg":"HS256"}`, minted(t, nil),
		),
		"license claims signed by the tenant":       signed(t, key, header, good()),
		"license claims typed as a user's":          signed(t, keyA, userHeader, good()),
		"license claims typed and signed as a user": signed(t, key, userHeader, good()),
		"user claims signed as a license":           signed(t, keyA, header, minted(t, nil)),
	} {
		if g, err := v.Check("demo-01", token); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: granted %+v, %v", name, g, err)
		}
	}
	for _, typ := range []string{"user+jwt", "USER+JWT", "User+jwt"} {
		if _, err := v.Check(
			"demo-01", signed(t, key, map[string]any{"alg": "HS256", "typ": typ}, minted(t, nil)),
		); err != nil {
			t.Errorf("typ %q: %v", typ, err)
		}
	}
}

func TestUserTokensOutlastARotation(t *testing.T) {
	rotated := verifier(t, noon, keyB, keyA)
	if _, err := rotated.Check("demo-01", userToken(t, nil)); err != nil {
		t.Errorf("signed with the key from before the rotation: %v", err)
	}
	after := signed(t, tokenKey(keyB, "demo-01"), userHeader, minted(t, nil))
	if _, err := rotated.Check("demo-01", after); err != nil {
		t.Errorf("signed with the new key: %v", err)
	}
	if _, err := verifier(t, noon, keyA).Check("demo-01", after); !errors.Is(err, ErrRefused) {
		t.Errorf("a key that is not ours: got %v", err)
	}
	keys := rotated.UserTokenKeys("demo-01")
	if len(keys) != 2 || !hmac.Equal(keys[0], rotated.UserTokenKey("demo-01")) ||
		!hmac.Equal(keys[1], tokenKey(keyA, "demo-01")) {
		t.Error("UserTokenKeys must give the signing key's first, then the old one's")
	}
}

func TestTokenErrorsDoNotQuoteTheToken(t *testing.T) {
	for _, change := range []map[string]any{
		{"sub": "secret\n"}, {"rooms": []string{"secret\n"}}, {"name": "secret\n"},
		{"exp": "secret"}, {"host": "secret"}, {"license": "secret"},
		{"authCode": "secret"}, {"iat": "secret"},
	} {
		token := userToken(t, change)
		_, err := verifier(t, noon, keyA).Check("demo-01", token)
		if err == nil || strings.Contains(err.Error(), "secret") ||
			strings.Contains(err.Error(), token) {
			t.Errorf("%v: error is %v", change, err)
		}
	}
}

func TestIssuedUserTokenSaysWhatWasAsked(t *testing.T) {
	v := verifier(t, noon, keyB, keyA)
	named, err := v.Issue(
		Params{
			Name:             "회사",
			CpCode:           "코드-01",
			MaxUser:          5,
			Start:            noon,
			End:              noon.Add(time.Hour),
			RequireUserToken: true,
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	p := UserParams{
		CpCode:  "코드-01",
		ID:      "김",
		Name:    "Kim",
		Rooms:   []string{"K1"},
		Host:    true,
		Expires: noon.Add(time.Minute),
		License: named,
	}
	token, err := v.IssueUser(p)
	if err != nil {
		t.Fatal(err)
	}
	g, err := v.Check(p.CpCode, token)
	if err != nil {
		t.Fatal(err)
	}
	if u := g.User; u.ID != "김" || u.Name != "Kim" || !u.Host || !slices.Equal(u.Rooms, p.Rooms) ||
		!u.Expires.Equal(p.Expires) ||
		g.MaxUser != 5 {
		t.Errorf("grant %+v, user %+v", g, g.User)
	}
	c, err := Inspect(token)
	if err != nil || c.Err != nil || c.User == nil || c.User.ID != "김" ||
		!strings.Contains(c.String(), "a user token for one user") {
		t.Errorf("inspected %+v, %v:\n%s", c, err, c)
	}
	if c, err := Inspect(userToken(t, map[string]any{"sub": absent})); err != nil || c.Err == nil ||
		!strings.Contains(c.Err.Error(), "sub") {
		t.Errorf("inspected %+v, %v", c, err)
	}
}

func TestIssueUserRefusesWhatCheckWould(t *testing.T) {
	v := verifier(t, noon, keyA)
	fine := UserParams{
		CpCode:  "demo-01",
		ID:      "kim",
		Expires: noon.Add(time.Hour),
		License: signed(t, keyA, header, good()),
	}
	for name, change := range map[string]func(*UserParams){
		"no cpCode":           func(p *UserParams) { p.CpCode, p.License = "", "" },
		"cpCode not UTF-8":    func(p *UserParams) { p.CpCode, p.License = "demo\xff", "" },
		"no user":             func(p *UserParams) { p.ID = "" },
		"user not UTF-8":      func(p *UserParams) { p.ID = "kim\xff" },
		"user __proto__":      func(p *UserParams) { p.ID = "__proto__" },
		"name too long":       func(p *UserParams) { p.Name = strings.Repeat("x", 257) },
		"room without a name": func(p *UserParams) { p.Rooms = []string{""} },
		"too many rooms":      func(p *UserParams) { p.Rooms = slices.Repeat([]string{"K"}, 65) },
		"already past":        func(p *UserParams) { p.Expires = noon },
		"no end":              func(p *UserParams) { p.Expires = time.Time{} },
		"license is text":     func(p *UserParams) { p.License = "hello" },
		"license of another":  func(p *UserParams) { p.CpCode = "demo-02" },
		"license is a token":  func(p *UserParams) { p.License = userToken(t, nil) },
		"too big to be checked": func(p *UserParams) {
			p.License = signed(
				t, keyA, header, with(map[string]any{"pad": strings.Repeat("x", 6000)}),
			)
		},
	} {
		p := fine
		change(&p)
		if token, err := v.IssueUser(p); err == nil || token != "" {
			t.Errorf("%s: issued", name)
		}
	}
	if _, err := v.IssueUser(fine); err != nil {
		t.Error(err)
	}
	_, err := v.IssueUser(UserParams{CpCode: "demo-01", Expires: noon, License: "x"})
	for _, part := range []string{"license", "sub", "past"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("all faults together: %v", err)
		}
	}
}

// FuzzUserClaims signs what the fuzzer writes, so that the claims are reached.
func FuzzUserClaims(f *testing.F) {
	for _, change := range []map[string]any{
		nil, {"rooms": []string{"K1"}}, {"host": true},
		{"exp": json.RawMessage("1e300")}, {"license": "x"}, {"sub": "a\u0000"},
	} {
		text, err := json.Marshal(minted(f, change))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	v, key := verifier(f, noon, keyA), tokenKey(keyA, "demo-01")
	f.Fuzz(func(t *testing.T, claims string) {
		token := signed(t, key, userHeader, claims)
		g, err := v.Check("demo-01", token)
		if err != nil {
			return
		}
		u := g.User
		if u == nil || !validWireID(u.ID) || !noon.Before(u.Expires) || g.CpCode != "demo-01" ||
			(u.Rooms != nil && len(u.Rooms) == 0) {
			t.Errorf("granted %+v to %+v for %q", g, u, claims)
		}
		if c, err := Inspect(token); err != nil || c.Err != nil || c.User == nil {
			t.Errorf("granted, yet Inspect says %v, %v", c.Err, err)
		}
	})
}
