package license

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var (
	keyA = []byte("0123456789abcdef0123456789abcdef")
	keyB = []byte("fedcba9876543210fedcba9876543210")
	noon = time.Date(2026, 5, 17, 12, 0, 0, 0, time.UTC)
)

func verifier(t testing.TB, now time.Time, keys ...[]byte) *Verifier {
	t.Helper()
	v, err := New(Config{Keys: keys, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// good are the claims of a valid license, written as the original's are.
func good() map[string]any {
	return map[string]any{
		"name": "Demo", "maxUser": "100", "startDate": "2026-01-01", "endDate": "2026-12-31",
		"authCode": "demo-01", "companyCode": "00000001", "iat": 1767225600,
	}
}

func with(change map[string]any) map[string]any {
	claims := good()
	for name, value := range change {
		if value == absent {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	return claims
}

var absent = new(struct{})

func encode(t testing.TB, v any) string {
	t.Helper()
	text, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// signed makes a token by hand, so that the tests do not lean on the library under test. Header and
// claims may be JSON text.
func signed(t testing.TB, key []byte, header, claims any) string {
	t.Helper()
	text := encode(t, header) + "." + encode(t, claims)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

const header = `{"alg":"HS256","typ":"JWT"}`

func TestLicenseOfTheOriginalIsGranted(t *testing.T) {
	token := signed(t, keyA, header, good())
	g, err := verifier(t, noon, keyA).Check("demo-01", token)
	if err != nil {
		t.Fatal(err)
	}
	if g.CpCode != "demo-01" || g.Name != "Demo" || g.CompanyCode != "00000001" ||
		g.MaxUser != 100 || g.MaxRooms != 0 ||
		!g.Relay ||
		g.RequireUserToken ||
		g.LegacyForced ||
		g.Origins != nil {
		t.Errorf("grant is %+v", g)
	}
	if want := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC); !g.Start.Equal(want) {
		t.Errorf("start is %v, want %v", g.Start, want)
	}
	if want := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC); !g.End.Equal(want) {
		t.Errorf("a bare end date counts in full: end is %v, want %v", g.End, want)
	}
	if g.Hash != sha256.Sum256([]byte(token)) {
		t.Error("hash is not the token's")
	}
}

func TestExtrasAreGranted(t *testing.T) {
	token := signed(t, keyA, header, with(map[string]any{
		"origins": []string{
			"https://a.example",
			"http://localhost:8080",
		}, "maxRooms": 5, "relay": "none",
		"legacyForced": true,
	}))
	g, err := verifier(t, noon, keyA).Check("demo-01", token)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Origins) != 2 || g.Origins[0] != "https://a.example" || g.MaxRooms != 5 || g.Relay ||
		!g.LegacyForced {
		t.Errorf("grant is %+v", g)
	}
}

func TestClaims(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]any
		want   error
	}{
		"maxUser as a number":    {map[string]any{"maxUser": 7}, nil},
		"maxUser at the limit":   {map[string]any{"maxUser": 1000000}, nil},
		"maxUser over the limit": {map[string]any{"maxUser": 1000001}, ErrRefused},
		"maxUser zero":           {map[string]any{"maxUser": 0}, ErrRefused},
		"maxUser -1":             {map[string]any{"maxUser": -1}, ErrRefused},
		"maxUser NaN":            {map[string]any{"maxUser": "NaN"}, ErrRefused},
		"maxUser 1e99": {
			map[string]any{"maxUser": json.RawMessage("1e99")}, ErrRefused,
		},
		"maxUser 1e2": {
			map[string]any{"maxUser": json.RawMessage("1e2")}, ErrRefused,
		},
		"maxUser fraction": {
			map[string]any{"maxUser": json.RawMessage("10.0")}, ErrRefused,
		},
		"maxUser beyond 64 bits": {
			map[string]any{"maxUser": json.RawMessage("18446744073709551617")}, ErrRefused,
		},
		"maxUser empty":               {map[string]any{"maxUser": ""}, ErrRefused},
		"maxUser with a space":        {map[string]any{"maxUser": "10 "}, ErrRefused},
		"maxUser with a sign":         {map[string]any{"maxUser": "+10"}, ErrRefused},
		"maxUser with a leading zero": {map[string]any{"maxUser": "010"}, ErrRefused},
		"maxUser in other digits":     {map[string]any{"maxUser": "１０"}, ErrRefused},
		"maxUser as a list":           {map[string]any{"maxUser": []int{1}}, ErrRefused},
		"maxUser null":                {map[string]any{"maxUser": nil}, ErrRefused},
		"maxUser missing":             {map[string]any{"maxUser": absent}, ErrRefused},
		"maxUser in other case": {
			map[string]any{"maxUser": absent, "maxuser": 5}, ErrRefused,
		},
		"name missing":            {map[string]any{"name": absent}, ErrRefused},
		"name null":               {map[string]any{"name": nil}, ErrRefused},
		"companyCode missing":     {map[string]any{"companyCode": absent}, ErrRefused},
		"companyCode as a number": {map[string]any{"companyCode": 1}, ErrRefused},
		"iat missing":             {map[string]any{"iat": absent}, ErrRefused},
		"iat as text":             {map[string]any{"iat": "1767225600"}, ErrRefused},
		"iat negative":            {map[string]any{"iat": -1}, ErrRefused},
		"iat out of range": {
			map[string]any{"iat": json.RawMessage("1e300")}, ErrRefused,
		},
		"iat a minute ahead": {map[string]any{"iat": noon.Add(time.Minute).Unix()}, nil},
		"iat 61 s ahead": {
			map[string]any{"iat": noon.Add(61 * time.Second).Unix()}, ErrNotYet,
		},
		"startDate missing":        {map[string]any{"startDate": absent}, ErrRefused},
		"startDate unreadable":     {map[string]any{"startDate": "soon"}, ErrRefused},
		"startDate no such day":    {map[string]any{"startDate": "2026-02-30"}, ErrRefused},
		"startDate as a number":    {map[string]any{"startDate": 20260101}, ErrRefused},
		"startDate is today":       {map[string]any{"startDate": "2026-05-17"}, nil},
		"startDate is tomorrow":    {map[string]any{"startDate": "2026-05-18"}, ErrNotYet},
		"startDate a minute ahead": {map[string]any{"startDate": "2026-05-17T12:01:00Z"}, nil},
		"startDate 61 s ahead": {
			map[string]any{"startDate": "2026-05-17T12:01:01Z"}, ErrNotYet,
		},
		"endDate missing":       {map[string]any{"endDate": absent}, ErrRefused},
		"endDate unreadable":    {map[string]any{"endDate": "2026-13-01"}, ErrRefused},
		"endDate is today":      {map[string]any{"endDate": "2026-05-17"}, nil},
		"endDate was yesterday": {map[string]any{"endDate": "2026-05-16"}, ErrExpired},
		"endDate in a second":   {map[string]any{"endDate": "2026-05-17T12:00:01Z"}, nil},
		"endDate is now": {
			map[string]any{"endDate": "2026-05-17T12:00:00Z"}, ErrExpired,
		},
		"endDate in another zone": {
			map[string]any{"endDate": "2026-05-17T21:00:01+09:00"}, nil,
		},
		"endDate without offset": {map[string]any{"endDate": "2026-05-17T12:00:01"}, nil},
		"endDate before startDate": {
			map[string]any{"startDate": "2026-05-17", "endDate": "2026-05-16"}, ErrRefused,
		},
		"endDate equal to startDate": {
			map[string]any{"startDate": "2026-05-01T00:00:00Z", "endDate": "2026-05-01T00:00:00Z"},
			ErrRefused,
		},
		"one day": {
			map[string]any{"startDate": "2026-05-17", "endDate": "2026-05-17"}, nil,
		},
		"exp shortens": {map[string]any{"exp": noon.Unix()}, ErrExpired},
		"exp cannot lengthen": {
			map[string]any{"endDate": "2026-05-16", "exp": noon.Add(time.Hour).Unix()}, ErrExpired,
		},
		"nbf delays": {
			map[string]any{"nbf": noon.Add(time.Hour).Unix()}, ErrNotYet,
		},
		"authCode missing":       {map[string]any{"authCode": absent}, ErrRefused},
		"authCode in other case": {map[string]any{"authCode": "Demo-01"}, ErrRefused},
		"authCode with a space":  {map[string]any{"authCode": "demo-01 "}, ErrRefused},
		"authCode as a list": {
			map[string]any{"authCode": []string{"demo-01"}}, ErrRefused,
		},
		"authCode null":            {map[string]any{"authCode": nil}, ErrRefused},
		"maxRooms zero":            {map[string]any{"maxRooms": 0}, ErrRefused},
		"relay unknown":            {map[string]any{"relay": "some"}, ErrRefused},
		"relay as a bool":          {map[string]any{"relay": false}, ErrRefused},
		"requireUserToken as text": {map[string]any{"requireUserToken": "true"}, ErrRefused},
		"requireUserToken null":    {map[string]any{"requireUserToken": nil}, ErrRefused},
		"origins any":              {map[string]any{"origins": []string{"*"}}, nil},
		"origins empty":            {map[string]any{"origins": []string{}}, ErrRefused},
		"origins as text": {
			map[string]any{"origins": "https://a.example"}, ErrRefused,
		},
		"origins with null": {map[string]any{"origins": []any{nil}}, ErrRefused},
		"origin null":       {map[string]any{"origins": []string{"null"}}, ErrRefused},
		"origin with a path": {
			map[string]any{"origins": []string{"https://a.example/"}}, ErrRefused,
		},
		"origin in upper case": {
			map[string]any{"origins": []string{"https://A.example"}}, ErrRefused,
		},
		"origin with its default port": {
			map[string]any{"origins": []string{"https://a.example:443"}}, ErrRefused,
		},
		"origin with a wildcard": {
			map[string]any{"origins": []string{"https://*.example"}}, ErrRefused,
		},
		"origin with a user": {
			map[string]any{"origins": []string{"https://x@a.example"}}, ErrRefused,
		},
		"origin of an app": {
			map[string]any{"origins": []string{"capacitor://localhost"}}, nil,
		},
		"unknown claims are ignored": {map[string]any{"color": []int{1, 2}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			token := signed(t, keyA, header, with(c.change))
			if _, err := verifier(t, noon, keyA).Check("demo-01", token); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestTokensThatAreNotOurs(t *testing.T) {
	ours := signed(t, keyA, header, good())
	parts := strings.Split(ours, ".")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	by := func(method jwt.SigningMethod, key any) string {
		token, err := jwt.NewWithClaims(method, jwt.MapClaims(good())).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	last := parts[2][len(parts[2])-1]
	// 32 bytes leave two unused bits in the last character: another character with the same used
	// bits is the same signature.
	sibling := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	other := sibling[strings.IndexByte(sibling, last)|1]
	if other == last {
		other = sibling[strings.IndexByte(sibling, last)&^1]
	}
	for name, token := range map[string]string{
		"empty":                      "",
		"text":                       "hello",
		"alg none, no signature":     encode(t, `{"alg":"none"}`) + "." + parts[1] + ".",
		"alg None":                   encode(t, `{"alg":"None"}`) + "." + parts[1] + ".",
		"alg none, our signature":    encode(t, `{"alg":"none"}`) + "." + parts[1] + "." + parts[2],
		"alg empty":                  signed(t, keyA, `{"alg":""}`, good()),
		"alg missing":                signed(t, keyA, `{"typ":"JWT"}`, good()),
		"alg as a list":              signed(t, keyA, `{"alg":["HS256"]}`, good()),
		"alg in lower case":          signed(t, keyA, `{"alg":"hs256"}`, good()),
		"RS256":                      by(jwt.SigningMethodRS256, rsaKey),
		"RS256 header, HMAC signed":  signed(t, keyA, `{"alg":"RS256"}`, good()),
		"ES256 header, HMAC signed":  signed(t, keyA, `{"alg":"ES256"}`, good()),
		"HS384":                      by(jwt.SigningMethodHS384, keyA),
		"HS512":                      by(jwt.SigningMethodHS512, keyA),
		"HS384 header, HS256 signed": signed(t, keyA, `{"alg":"HS384"}`, good()),
		"key in the header, its sign": signed(
			t, keyB, `{"alg":"HS256","jwk":{"k":"ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA"}}`,
			good(),
		),
		"crit": signed(
			t, keyA, `{"alg":"HS256","crit":["b64"],"b64":false}`, good(),
		),
		"a user token's type":       signed(t, keyA, `{"alg":"HS256","typ":"user+jwt"}`, good()),
		"a type that is no string":  signed(t, keyA, `{"alg":"HS256","typ":1}`, good()),
		"another key":               signed(t, keyB, header, good()),
		"signature missing":         parts[0] + "." + parts[1] + ".",
		"signature cut":             ours[:len(ours)-4],
		"signature padded":          ours + "=",
		"signature with stray bits": ours[:len(ours)-1] + string(other),
		"signature with a line end": ours + "\n",
		"a line end inside":         parts[0] + "\n." + parts[1] + "." + parts[2],
		"claims changed": parts[0] + "." +
			encode(t, with(map[string]any{"maxUser": 9})) + "." + parts[2],
		"two segments":         parts[0] + "." + parts[1],
		"four segments":        ours + "." + parts[2],
		"JWE":                  strings.Repeat("eyJhbGciOiJkaXIifQ.", 4) + "x",
		"thousands of periods": strings.Repeat(".", maxToken),
		"too big": signed(
			t, keyA, header, with(map[string]any{"pad": strings.Repeat("x", maxToken)}),
		),
		"claims null":        signed(t, keyA, header, "null"),
		"claims a list":      signed(t, keyA, header, "[]"),
		"claims with a tail": signed(t, keyA, header, `{"authCode":"demo-01"}{}`),
		"header null":        signed(t, keyA, "null", good()),
		"deep claims":        signed(t, keyA, header, strings.Repeat("[", 5000)),
		"not UTF-8":          signed(t, keyA, header, "{\"authCode\":\"demo-01\xff\"}"),
	} {
		t.Run(name, func(t *testing.T) {
			g, err := verifier(t, noon, keyA).Check("demo-01", token)
			if !errors.Is(err, ErrRefused) {
				t.Errorf("got %v, want %v", err, ErrRefused)
			}
			if g.CpCode != "" || g.MaxUser != 0 {
				t.Errorf("granted %+v", g)
			}
		})
	}
}

func TestHeaderKeysAreIgnored(t *testing.T) {
	v := verifier(t, noon, keyA)
	for _, h := range []string{
		`{"alg":"HS256"}`, `{"alg":"HS256","typ":"jwt"}`, `{"alg":"HS256","kid":"../../dev/null"}`,
		`{"alg":"HS256","jku":"https://evil.example/keys","x5u":"https://evil.example"}`,
		`{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}`,
	} {
		if _, err := v.Check("demo-01", signed(t, keyA, h, good())); err != nil {
			t.Errorf("%s: %v", h, err)
		}
	}
}

func TestCpCodeIsComparedByteForByte(t *testing.T) {
	v := verifier(t, noon, keyA)
	token := signed(t, keyA, header, good())
	for _, code := range []string{
		"", "demo-1", "Demo-01", "demo-01 ", " demo-01", "demo-01\x00", "demo-0",
		strings.Repeat("d", 200),
	} {
		if _, err := v.Check(code, token); !errors.Is(err, ErrRefused) {
			t.Errorf("%q: got %v", code, err)
		}
	}
}

// A stranger must not learn whether a tenant exists.
func TestUnknownTenantAndBadSignatureGetOneAnswer(t *testing.T) {
	v := verifier(t, noon, keyA)
	_, unknown := v.Check(
		"nobody",
		signed(t, keyB, header, with(map[string]any{"authCode": "nobody"})),
	)
	_, foreign := v.Check("demo-01", signed(t, keyB, header, good()))
	_, expired := v.Check(
		"demo-01",
		signed(t, keyB, header, with(map[string]any{"endDate": "2026-01-02"})),
	)
	_, other := v.Check("demo-02", signed(t, keyA, header, good()))
	for _, err := range []error{unknown, foreign, expired, other} {
		if err == nil || err.Error() != ErrRefused.Error() {
			t.Errorf("got %q, want %q", err, ErrRefused)
		}
	}
}

func TestErrorsDoNotQuoteTheToken(t *testing.T) {
	v := verifier(t, noon, keyA)
	for _, token := range []string{
		signed(t, keyB, header, good()), "eyJzZWNyZXQ.eyJzZWNyZXQ.c2VjcmV0", "secret",
		signed(t, keyA, header, with(map[string]any{"maxUser": "secret"})),
		signed(
			t, keyA, header,
			with(
				map[string]any{
					"relay": "secret", "origins": []string{"secret"}, "startDate": "secret",
				},
			),
		),
	} {
		_, err := v.Check("demo-01", token)
		if err == nil || strings.Contains(err.Error(), "secret") ||
			strings.Contains(err.Error(), token) {
			t.Errorf("error is %v", err)
		}
	}
}

func TestSwappedArguments(t *testing.T) {
	v := verifier(t, noon, keyA)
	token := signed(t, keyA, header, good())
	if _, err := v.Check(token, "demo-01"); !errors.Is(err, ErrSwapped) {
		t.Errorf("got %v, want %v", err, ErrSwapped)
	}
	for _, c := range [][2]string{
		{"demo-01", "demo-01"}, {token, token}, {"a.b.c", "demo-01"}, {"", ""},
	} {
		if _, err := v.Check(c[0], c[1]); errors.Is(err, ErrSwapped) ||
			!errors.Is(err, ErrRefused) {
			t.Errorf("%.20q: got %v, want %v", c, err, ErrRefused)
		}
	}
}

func TestSecondKeyVerifiesButDoesNotSign(t *testing.T) {
	old, rotated := verifier(t, noon, keyA), verifier(t, noon, keyB, keyA)
	p := Params{Name: "Demo", CpCode: "demo-01", MaxUser: 5, Start: noon, End: noon.Add(time.Hour)}
	before, err := old.Issue(p)
	if err != nil {
		t.Fatal(err)
	}
	after, err := rotated.Issue(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rotated.Check("demo-01", before); err != nil {
		t.Errorf("a license from before the rotation: %v", err)
	}
	if _, err := rotated.Check("demo-01", after); err != nil {
		t.Errorf("a license from after the rotation: %v", err)
	}
	if _, err := old.Check("demo-01", after); !errors.Is(err, ErrRefused) {
		t.Errorf("the new key signs: got %v", err)
	}
}

func TestIssuedLicenseSaysWhatWasAsked(t *testing.T) {
	v := verifier(t, noon, keyA)
	p := Params{
		Name: "회사", CpCode: "코드-01", CompanyCode: "7", MaxUser: 12, Start: noon,
		End:     noon.Add(48 * time.Hour),
		Origins: []string{"https://a.example"}, MaxRooms: 3, Relay: "none", RequireUserToken: true,
	}
	token, err := v.Issue(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Check(p.CpCode, token); !errors.Is(err, ErrUserTokenNeeded) {
		t.Errorf("alone: got %v, want %v", err, ErrUserTokenNeeded)
	}
	g, err := v.checkLicense(p.CpCode, token)
	if err != nil {
		t.Fatal(err)
	}
	if g.Name != p.Name || g.CompanyCode != "7" || g.MaxUser != 12 || !g.Start.Equal(p.Start) ||
		!g.End.Equal(p.End) ||
		len(g.Origins) != 1 || g.MaxRooms != 3 ||
		g.Relay ||
		!g.RequireUserToken ||
		g.LegacyForced {
		t.Errorf("grant is %+v", g)
	}
}

func TestIssueRefusesWhatCheckWould(t *testing.T) {
	fine := Params{
		Name:    "Demo",
		CpCode:  "demo-01",
		MaxUser: 5,
		Start:   noon,
		End:     noon.Add(time.Hour),
	}
	for name, change := range map[string]func(*Params){
		"no cpCode":          func(p *Params) { p.CpCode = "" },
		"cpCode too long":    func(p *Params) { p.CpCode = strings.Repeat("x", 129) },
		"control character":  func(p *Params) { p.CpCode = "demo\n01" },
		"cpCode not UTF-8":   func(p *Params) { p.CpCode = "demo\xff" },
		"name too long":      func(p *Params) { p.Name = strings.Repeat("x", 300) },
		"no user":            func(p *Params) { p.MaxUser = 0 },
		"too many users":     func(p *Params) { p.MaxUser = maxCount + 1 },
		"negative rooms":     func(p *Params) { p.MaxRooms = -1 },
		"relay":              func(p *Params) { p.Relay = "maybe" },
		"origin with a path": func(p *Params) { p.Origins = []string{"https://a.example/x"} },
		"no end":             func(p *Params) { p.End = time.Time{} },
		"end before start":   func(p *Params) { p.Start = p.End.Add(time.Second) },
		"already past": func(p *Params) {
			p.Start, p.End = noon.Add(-2*time.Hour), noon.Add(-time.Hour)
		},
		"too big to be " +
			"checked": func(p *Params) { p.Origins = make([]string, 64); fill(p.Origins) },
	} {
		p := fine
		change(&p)
		if token, err := verifier(t, noon, keyA).Issue(p); err == nil || token != "" {
			t.Errorf("%s: issued", name)
		}
	}
	if _, err := verifier(t, noon, keyA).Issue(fine); err != nil {
		t.Error(err)
	}
}

func fill(origins []string) {
	for i := range origins {
		origins[i] = "https://" + strings.Repeat("a", 200) + ".example"
	}
}

func TestConfigErrorsAreReportedTogether(t *testing.T) {
	for name, keys := range map[string][][]byte{
		"none": nil, "empty": {{}}, "31 bytes": {keyA[:31]}, "zeros": {make([]byte, 32)}, "three": {
			keyA, keyB, append(keyA[:31:31], '!'),
		},
		"the same twice": {keyA, bytes.Clone(keyA)}, "the second weak": {keyA, []byte("short")},
	} {
		if _, err := New(Config{Keys: keys}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	err := Config{Keys: [][]byte{[]byte("a"), []byte("b")}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "key 1") ||
		!strings.Contains(err.Error(), "key 2") {
		t.Errorf("got %v", err)
	}
	if err := (Config{Keys: [][]byte{keyA, keyB}}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestKeysAreCopied(t *testing.T) {
	key := bytes.Clone(keyA)
	v := verifier(t, noon, key)
	clear(key)
	if _, err := v.Check("demo-01", signed(t, keyA, header, good())); err != nil {
		t.Error(err)
	}
}

func TestDerivedKeysDependOnKeyAndLabel(t *testing.T) {
	a, ab := verifier(t, noon, keyA), verifier(t, noon, keyB, keyA)
	all := ab.DeriveAll("relay", 32)
	if len(all) != 2 || !bytes.Equal(all[0], ab.Derive("relay", 32)) ||
		!bytes.Equal(all[1], a.Derive("relay", 32)) {
		t.Error("DeriveAll must give the signing key's first, then the old one's")
	}
	seen := map[string]bool{}
	for _, k := range [][]byte{
		all[0], all[1], a.Derive("resume", 32), a.UserTokenKey("relay"), a.UserTokenKey("resume"),
	} {
		if len(k) != 32 || seen[string(k)] {
			t.Errorf("key %x is repeated or has a wrong length", k)
		}
		seen[string(k)] = true
	}
	mac := hmac.New(sha256.New, keyA)
	mac.Write([]byte("user-token:demo-01"))
	if !bytes.Equal(a.UserTokenKey("demo-01"), mac.Sum(nil)) {
		t.Error(
			"a tenant's backend computes the user token key as HMAC-SHA256(license key, " +
				"\"user-token:\"+cpCode)",
		)
	}
}

func TestInspectSaysThatNothingIsVerified(t *testing.T) {
	c, err := Inspect(signed(t, keyB, header, good()))
	if err != nil || c.Err != nil {
		t.Fatal(err, c.Err)
	}
	if c.Grant.CpCode != "demo-01" || c.Grant.MaxUser != 100 || c.Issued.Unix() != 1767225600 {
		t.Errorf("claims are %+v", c)
	}
	if text := c.String(); !strings.HasPrefix(text, "Signature NOT verified") ||
		!strings.Contains(text, `"authCode": "demo-01"`) {
		t.Errorf("text is %s", text)
	}
	c, err = Inspect(
		signed(t, keyB, `{"alg":"none"}`, with(map[string]any{"maxUser": 0, "name": "a\u009b31m"})),
	)
	if err != nil || c.Err == nil || !strings.Contains(c.Err.Error(), "maxUser") ||
		!strings.Contains(c.Err.Error(), "alg") {
		t.Errorf("got %v, fault %v", err, c.Err)
	}
	if strings.ContainsRune(c.String(), '\u009b') {
		t.Error("a control character reaches the terminal")
	}
	for _, bad := range []string{
		"", "a", "a.b", "a.b.c", "a.b.c.d", strings.Repeat("e", maxToken+1),
	} {
		if _, err := Inspect(bad); err == nil {
			t.Errorf("%.10q: no error", bad)
		}
	}
}

// FuzzCheck: nothing is granted that was not signed with one of the keys, for this cpCode, in time;
// nothing panics or is quoted.
func FuzzCheck(f *testing.F) {
	ours := signed(f, keyA, header, good())
	f.Add("demo-01", ours)
	f.Add("demo-01", ours+"\n")
	f.Add("demo-01", signed(f, keyB, header, good()))
	f.Add("demo-01", strings.Replace(ours, ".", "..", 1))
	f.Add(ours, "demo-01")
	for _, change := range []map[string]any{
		{"endDate": "x"}, {"origins": []string{"*"}}, {"maxUser": 1.5},
	} {
		claims := good()
		maps.Copy(claims, change)
		f.Add("demo-01", signed(f, keyA, header, claims))
	}
	v := verifier(f, noon, keyA)
	f.Fuzz(func(t *testing.T, cpCode, authKey string) {
		g, err := v.Check(cpCode, authKey)
		if err != nil {
			if len(authKey) > 20 && strings.Contains(err.Error(), authKey) {
				t.Error("the error quotes the token")
			}
			return
		}
		cut := strings.LastIndexByte(authKey, '.')
		mac := hmac.New(sha256.New, keyA)
		mac.Write([]byte(authKey[:cut]))
		if authKey[cut+1:] != base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) {
			t.Errorf("granted without our signature: %q", authKey)
		}
		if g.CpCode != cpCode || g.MaxUser < 1 || g.MaxUser > maxCount || !noon.Before(g.End) {
			t.Errorf("granted %+v", g)
		}
	})
}

// FuzzClaims signs what the fuzzer writes, so that the claims are reached.
func FuzzClaims(f *testing.F) {
	for _, change := range []map[string]any{
		{}, {"maxUser": 1e99}, {"origins": []string{"https://a.example"}}, {"iat": 1e300},
	} {
		text, err := json.Marshal(with(change))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	v := verifier(f, noon, keyA)
	f.Fuzz(func(t *testing.T, claims string) {
		token := signed(t, keyA, header, claims)
		g, err := v.Check("demo-01", token)
		inTime := noon.Before(g.End) && !g.Start.After(noon.Add(skew))
		if err == nil &&
			(g.MaxUser < 1 || g.MaxUser > maxCount || !inTime || g.CpCode != "demo-01") {
			t.Errorf("granted %+v for %q", g, claims)
		}
		if c, inspectErr := Inspect(token); inspectErr == nil {
			if err == nil && c.Err != nil {
				t.Errorf("granted, yet Inspect says %v", c.Err)
			}
			if c.String() == "" {
				t.Error("no text")
			}
		} else if err == nil {
			t.Errorf("granted, yet not inspected: %v", inspectErr)
		}
	})
}

func TestKeyFileHasOneKeyALine(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "",
		"\n \n":               "",
		"one":                 "one",
		"one\n":               "one",
		" one \r\n\ntwo\r\n":  "one|two",
		"one\ntwo\nthree\n\n": "one|two|three",
	} {
		if got := string(bytes.Join(ParseKeys([]byte(text)), []byte("|"))); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
