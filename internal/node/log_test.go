package node

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/logtest"
)

// The log of a whole run, with calls, refusals and everything that an operator does, has its lines,
// and none that holds what nobody but its owner may know. The browser tests look through the logs
// of their servers for the same (e2e/lib/stage.mjs).
func TestTheLogOfAWholeRunHoldsNoSecret(t *testing.T) {
	const admin, shared = "the key of the operators", "the secret of the relay"
	revoked := filepath.Join(t.TempDir(), "revoked")
	write(t, revoked, "")
	log := &logtest.Buffer{}
	n := start(t, config.Server{
		Dev:               true,
		LicenseSigningKey: signingKey,
		RevocationList:    revoked,
		TLSSelfSigned:     true,
		Relay:             config.RelaySettings{Secret: shared},
		Admin:             config.AdminSettings{Listen: "127.0.0.1:0", Token: admin},
		Log:               slog.New(slog.NewTextHandler(log, nil)),
	})
	who := licensed(t, signingKey, "KP-1")
	secrets := []string{signingKey, admin, shared, who["authKey"].(string)}
	enter := func(user string) *caller {
		q := maps.Clone(who)
		q["userId"] = user
		c := call(t, n, q)
		turn := c.ice[len(c.ice)-1]
		secrets = append(secrets, turn.Username, turn.Credential)
		return c
	}
	kim, lee := enter("kim"), enter("lee")
	kim.ask(map[string]any{"eventOp": "createRoom", "roomId": "K1", "title": "TITLE-OF-K1"})
	kim.ask(map[string]any{"eventOp": "joinRoom", "roomId": "K1"})
	lee.ask(map[string]any{"eventOp": "joinRoom", "roomId": "K1"})
	for _, m := range []map[string]any{
		{
			"eventOp": "sdp",
			"target":  "lee",
			"sdp":     map[string]any{"type": "offer", "sdp": "v=0\r\na=fingerprint:SDP-OF-KIM"},
		},
		{
			"eventOp":   "candidate",
			"target":    "lee",
			"candidate": "candidate:1 1 udp 1 203.0.113.77 9 typ host",
		},
		{"eventOp": "chat", "roomId": "K1", "message": "CHAT-OF-KIM"},
		{"eventOp": "inform", "target": "lee", "message": "INFORM-OF-KIM"},
	} {
		kim.ask(m)
	}
	secrets = append(
		secrets, "SDP-OF-KIM", "203.0.113.77", "CHAT-OF-KIM", "INFORM-OF-KIM", "TITLE-OF-K1",
		"127.0.0.1:",
	)
	urls := kim.urls()
	for _, url := range urls[len(urls)-2:] {
		if err := kim.allocate(url, nil); err != nil {
			t.Fatal(err)
		}
	}
	turn := &kim.ice[len(kim.ice)-1]
	turn.Credential = "A-WRONG-PASSWORD"
	if kim.allocate(urls[len(urls)-2], nil) == nil {
		t.Error("allocated with a wrong password")
	}

	for _, q := range []map[string]any{
		{"cpCode": "KP-1", "authKey": who["authKey"].(string)[:30] + "FORGED"},
		{"cpCode": who["authKey"], "authKey": "KP-1"},
		{
			"cpCode":  "KP-1",
			"authKey": who["authKey"],
			"userId":  "kim",
			"forced":  true,
			"resume":  "r1.RESUME-SECRET.AAAA",
		},
	} {
		if a := register(t, n, q, true); a["code"] == "200" {
			t.Errorf("%v was let in", q)
		}
	}
	secrets = append(secrets, "FORGED", "RESUME-SECRET", "A-WRONG-PASSWORD")
	q := maps.Clone(who)
	q["userId"] = "pak"
	a := register(t, n, q, false)
	secret, _ := a["resume"].(string)
	secrets = append(secrets, secret)
	body, _ := json.Marshal(map[string]string{"resume": secret})
	res, err := insecure.Post(n.URLs()[0]+"leave", "application/json", bytes.NewReader(body))
	if err != nil || secret == "" || res.StatusCode != http.StatusNoContent {
		t.Fatalf("%v %v", res, err)
	}
	_ = res.Body.Close()
	if res, _ := get(
		t, "http://"+n.AdminAddr().String()+"/metrics",
	); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("metrics without a key: %d", res.StatusCode)
	}
	write(t, revoked, "nonsense "+who["authKey"].(string)+"\n")
	if n.Reload() == nil {
		t.Error("a list with an error was read")
	}
	write(t, revoked, hashOf(who["authKey"].(string)))
	if err := n.Reload(); err != nil {
		t.Fatal(err)
	}
	if code := kim.closing(t); code != 4003 {
		t.Errorf("closed with %d", code)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	text := log.String()
	for _, want := range []string{
		"session opened", "session ended", "login refused", "relay allocation ended",
		"configuration reload failed", "configuration reloaded",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not say %q:\n%s", want, text)
		}
	}
	for _, s := range secrets {
		if s == "" || strings.Contains(text, s) {
			t.Errorf("%.40q is in the log:\n%s", s, text)
		}
	}
}
