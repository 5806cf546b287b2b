package license

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// elsewhere is a license as another service signed it.
func elsewhere(t testing.TB, change map[string]any) string {
	return signed(t, []byte("a short secret of theirs"), header, with(change))
}

func pinning(t testing.TB, now time.Time, list ...Pinned) *Verifier {
	t.Helper()
	v, err := New(Config{Keys: [][]byte{keyA}, Pinned: list, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func ptr[T any](v T) *T { return &v }

func TestPinnedLicenseIsAcceptedVerbatim(t *testing.T) {
	token := elsewhere(t, nil)
	if _, err := verifier(t, noon, keyA).Check("demo-01", token); !errors.Is(err, ErrRefused) {
		t.Fatalf("before it is listed: %v", err)
	}
	v := pinning(t, noon, Pinned{CpCode: "demo-01", AuthKey: token})
	g, err := v.Check("demo-01", token)
	if err != nil {
		t.Fatal(err)
	}
	if g.CpCode != "demo-01" || g.MaxUser != 100 || !g.Relay || !g.LegacyForced ||
		g.RequireUserToken ||
		g.Origins != nil ||
		g.MaxRooms != 0 {
		t.Errorf("grant is %+v", g)
	}
	for name, c := range map[string][2]string{
		"another cpCode":       {"demo-02", token},
		"another case":         {"Demo-01", token},
		"a character less":     {"demo-01", token[:len(token)-1]},
		"a line end":           {"demo-01", token + "\n"},
		"another of their key": {"demo-01", elsewhere(t, map[string]any{"maxUser": 9999})},
	} {
		if _, err := v.Check(c[0], c[1]); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := v.Check(token, "demo-01"); !errors.Is(err, ErrSwapped) {
		t.Errorf("swapped: got %v", err)
	}
}

func TestPinnedLicenseNeedsNoSignatureThatWeKnow(t *testing.T) {
	for name, token := range map[string]string{
		"HS512":                signed(t, keyB, `{"alg":"HS512","typ":"JWT"}`, good()),
		"RS256":                signed(t, keyB, `{"alg":"RS256","kid":"1"}`, good()),
		"an unknown algorithm": signed(t, keyB, `{"alg":"X9"}`, good()),
		"no companyCode":       elsewhere(t, map[string]any{"companyCode": absent}),
		"no iat":               elsewhere(t, map[string]any{"iat": absent}),
	} {
		if _, err := pinning(
			t, noon, Pinned{CpCode: "demo-01", AuthKey: token},
		).Check("demo-01", token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPinnedLicenseHoldsItsDays(t *testing.T) {
	token := elsewhere(t, nil)
	for when, want := range map[time.Time]error{
		time.Date(2025, 12, 31, 12, 0, 0, 0, time.UTC): ErrNotYet,
		time.Date(2026, 12, 31, 23, 0, 0, 0, time.UTC): nil,
		time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC):    ErrExpired,
	} {
		if _, err := pinning(
			t, when, Pinned{CpCode: "demo-01", AuthKey: token},
		).Check("demo-01", token); !errors.Is(
			err,
			want,
		) {
			t.Errorf("%v: got %v, want %v", when, err, want)
		}
	}
}

func TestWhatStandsBesideALicenseOverridesIt(t *testing.T) {
	token := elsewhere(t, map[string]any{
		"origins": []string{
			"https://old.example",
		}, "maxRooms": 5, "relay": "none", "requireUserToken": true, "legacyForced": false,
	})
	check := func(p Pinned) Grant {
		t.Helper()
		p.CpCode, p.AuthKey = "demo-01", token
		g, err := pinning(t, noon, p).checkLicense("demo-01", token)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	g := check(Pinned{})
	if !slices.Equal(g.Origins, []string{"https://old.example"}) || g.MaxRooms != 5 || g.Relay ||
		!g.RequireUserToken ||
		g.LegacyForced {
		t.Errorf("nothing beside it: %+v", g)
	}
	g = check(
		Pinned{
			Origins:          []string{"https://new.example"},
			MaxRooms:         ptr(9),
			Relay:            "all",
			RequireUserToken: ptr(false),
			LegacyForced:     ptr(true),
		},
	)
	if !slices.Equal(g.Origins, []string{"https://new.example"}) || g.MaxRooms != 9 || !g.Relay ||
		g.RequireUserToken ||
		!g.LegacyForced {
		t.Errorf("everything beside it: %+v", g)
	}
	if g = check(Pinned{Origins: []string{"*"}}); g.Origins != nil || g.MaxRooms != 5 {
		t.Errorf("all origins: %+v", g)
	}
}

func TestOurOwnLicenseCanBeListed(t *testing.T) {
	token := signed(t, keyA, header, good())
	v := pinning(
		t,
		noon,
		Pinned{CpCode: "demo-01", AuthKey: token, RequireUserToken: ptr(true), MaxRooms: ptr(2)},
	)
	if _, err := v.Check("demo-01", token); !errors.Is(err, ErrUserTokenNeeded) {
		t.Errorf("got %v, want %v", err, ErrUserTokenNeeded)
	}
	g, err := v.checkLicense("demo-01", token)
	if err != nil || g.MaxRooms != 2 || g.LegacyForced {
		t.Errorf("%v: %+v: being listed must not weaken forced", err, g)
	}
	// the extras belong to this license, not to the tenant
	other := signed(t, keyA, header, with(map[string]any{"maxUser": 7}))
	if g, err := v.Check("demo-01", other); err != nil || g.MaxUser != 7 || g.MaxRooms != 0 {
		t.Errorf("another license of the tenant: %+v, %v", g, err)
	}
}

func TestUserTokenOfAListedLicense(t *testing.T) {
	last := elsewhere(t, map[string]any{"endDate": "2026-05-16", "maxUser": 1})
	now := elsewhere(t, map[string]any{"maxUser": 2})
	next := elsewhere(t, map[string]any{"startDate": "2026-05-18", "maxUser": 3})
	v := pinning(
		t,
		noon,
		Pinned{CpCode: "demo-01", AuthKey: last},
		Pinned{CpCode: "demo-01", AuthKey: now, RequireUserToken: ptr(true)},
		Pinned{CpCode: "demo-01", AuthKey: next},
	)
	check := func(named any) (Grant, error) {
		return v.Check("demo-01", userToken(t, map[string]any{"license": named}))
	}
	if g, err := check(absent); err != nil || g.MaxUser != 2 || g.User.ID != "kim" {
		t.Errorf("none named: %+v, %v, want the one that is valid now", g, err)
	}
	if g, err := check(now); err != nil || g.MaxUser != 2 {
		t.Errorf("named: %+v, %v", g, err)
	}
	if _, err := check(last); !errors.Is(err, ErrExpired) {
		t.Errorf("named, ended: %v", err)
	}
	if g, err := check(signed(t, keyA, header, good())); err != nil || g.MaxUser != 100 {
		t.Errorf("one of ours named: %+v, %v", g, err)
	}
	if _, err := check(elsewhere(t, map[string]any{"maxUser": 9})); !errors.Is(err, ErrRefused) {
		t.Errorf("named, not listed: %v", err)
	}
	v = pinning(t, noon, Pinned{CpCode: "demo-01", AuthKey: last})
	if _, err := check(absent); !errors.Is(err, ErrExpired) {
		t.Errorf("only one that has ended: %v", err)
	}
	v = pinning(
		t,
		noon,
		Pinned{CpCode: "demo-02", AuthKey: elsewhere(t, map[string]any{"authCode": "demo-02"})},
	)
	if _, err := check(absent); !errors.Is(err, ErrNoLicense) {
		t.Errorf("another tenant's: %v", err)
	}
}

func TestLicensesFile(t *testing.T) {
	a, b := elsewhere(t, nil), elsewhere(t, map[string]any{"authCode": "00000012"})
	asJSON, err := json.MarshalIndent([]map[string]any{{
		"cpCode": "demo-01", "authKey": a, "origins": []string{"https://a.example"}, "maxRooms": 3,
		"relay":            "none",
		"requireUserToken": true, "legacyForced": false,
	}, {"cpCode": "00000012", "authKey": b}}, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"JSON": string(asJSON),
		"YAML": "# moved in\n- cpCode: demo-01\n  authKey: " + a +
			"\n  origins: [https://a.example]\n  maxRooms: 3\n  relay: none\n" +
			"  requireUserToken: true\n  legacyForced: false\n- cpCode: 00000012\n  authKey: " + b +
			"\n",
	} {
		list, err := ParsePinned([]byte(text))
		if err != nil || len(list) != 2 {
			t.Fatalf("%s: %v", name, err)
		}
		p := list[0]
		if p.CpCode != "demo-01" || p.AuthKey != a || len(p.Origins) != 1 || *p.MaxRooms != 3 ||
			p.Relay != "none" ||
			!*p.RequireUserToken ||
			*p.LegacyForced {
			t.Errorf("%s: %+v", name, p)
		}
		if list[1].CpCode != "00000012" || list[1].Origins != nil || list[1].MaxRooms != nil {
			t.Errorf("%s: %+v", name, list[1])
		}
	}
	if list, err := ParsePinned([]byte("[]")); err != nil || len(list) != 0 {
		t.Errorf("no license: %v, %v", list, err)
	}
}

func TestErrorsInALicensesFile(t *testing.T) {
	a := elsewhere(t, nil)
	entry := func(more string) string { return "- cpCode: demo-01\n  authKey: " + a + "\n" + more }
	for name, c := range map[string]struct{ text, want string }{
		"empty":                  {"", "empty"},
		"a comment":              {"# none\n", "empty"},
		"not YAML":               {"{", "line 1"},
		"no list":                {"cpCode: demo-01", "line 1"},
		"two documents":          {entry("---\n") + entry(""), "more than one document"},
		"an unknown name":        {entry("  maxUser: 5\n"), "maxUser"},
		"another case":           {entry("  cpcode: demo-01\n"), "cpcode"},
		"a name twice":           {entry("  relay: all\n  relay: none\n"), "relay"},
		"a name without a value": {entry("  requireUserToken:\n"), "line 3: a value is missing"},
		"an entry of nothing":    {"-\n", "a value is missing"},
		"a word for a flag":      {entry("  requireUserToken: perhaps\n"), "line 3"},
		"a word for a number":    {entry("  maxRooms: many\n"), "line 3"},
		"no rooms":               {entry("  maxRooms: 0\n"), "license 1: maxRooms"},
		"no origin":              {entry("  origins: []\n"), "license 1: origins"},
		"an origin with a path": {
			entry("  origins: [https://a.example/x]\n"), "license 1: origins",
		},
		"relay":      {entry("  relay: some\n"), "license 1: relay"},
		"no cpCode":  {"- authKey: " + a + "\n", "license 1: cpCode and authKey"},
		"no authKey": {"- cpCode: demo-01\n", "license 1: cpCode and authKey"},
		"another cpCode": {
			"- cpCode: demo-1\n  authKey: " + a + "\n", "license 1: cpCode is not",
		},
		"no JWT": {
			"- cpCode: demo-01\n  authKey: hello\n", "license 1: authKey is not a JWT",
		},
		"a JWT with a space": {
			"- cpCode: demo-01\n  authKey: '" + a + " '\n", "license 1: authKey is not a JWT",
		},
		"a user token": {
			"- cpCode: demo-01\n  authKey: " + userToken(t, nil) + "\n",
			"license 1: authKey is a user token",
		},
		"claims that are wrong": {
			"- cpCode: demo-01\n  authKey: " +
				elsewhere(t, map[string]any{"maxUser": 0, "name": absent}) + "\n",
			"maxUser",
		},
		"no days": {
			"- cpCode: demo-01\n  authKey: " + elsewhere(t, map[string]any{"endDate": absent}) +
				"\n",
			"endDate",
		},
		"the same twice": {
			entry("") + entry("  relay: none\n"), "license 2: is listed already as license 1",
		},
	} {
		list, err := ParsePinned([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", name, list, err, c.want)
		}
	}
	_, err := ParsePinned([]byte(entry("  relay: some\n") + "- cpCode: x\n  authKey: y\n"))
	if err == nil || !strings.Contains(err.Error(), "license 1") ||
		!strings.Contains(err.Error(), "license 2") {
		t.Errorf("all faults together: %v", err)
	}
}

func TestAnEndedLicenseDoesNotKeepAServerFromStarting(t *testing.T) {
	ended := elsewhere(t, map[string]any{"endDate": "2026-02-01"})
	if _, err := ParsePinned(fmt.Appendf(nil, "- {cpCode: demo-01, authKey: "+
		"%s}", ended)); err != nil {
		t.Error(err)
	}
	if _, err := pinning(
		t, noon, Pinned{CpCode: "demo-01", AuthKey: ended},
	).Check("demo-01", ended); !errors.Is(
		err,
		ErrExpired,
	) {
		t.Errorf("got %v", err)
	}
}

func TestPinnedErrorsAreReportedWithTheOthers(t *testing.T) {
	err := Config{
		Keys:   [][]byte{[]byte("short")},
		Pinned: []Pinned{{CpCode: "x", AuthKey: "y"}},
	}.Validate()
	if err == nil || !strings.Contains(err.Error(), "key 1") ||
		!strings.Contains(err.Error(), "license 1") {
		t.Errorf("got %v", err)
	}
}
