package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/license"
)

// A tenant moves here with the license that another server signed, and with user tokens of its own
// backend.
func TestListedLicenseLetsATenantIn(t *testing.T) {
	now := time.Now()
	verifier := func(key string) *license.Verifier {
		v, err := license.New(license.Config{Keys: [][]byte{[]byte(key)}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	authKey, err := verifier("the key of the server they leave behind").Issue(license.Params{
		Name:    "Moved",
		CpCode:  "MOVED-01",
		MaxUser: 5,
		Start:   now.Add(-time.Hour),
		End:     now.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	const ours = "0123456789abcdef0123456789abcdef"
	path := filepath.Join(t.TempDir(), "licenses.yaml")
	text := fmt.Sprintf("- cpCode: MOVED-01\n  authKey: %s\n  relay: none\n", authKey)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	token, err := verifier(ours).IssueUser(
		license.UserParams{CpCode: "MOVED-01", ID: "kim", Expires: now.Add(time.Minute)},
	)
	if err != nil {
		t.Fatal(err)
	}
	moved := map[string]any{"cpCode": "MOVED-01", "authKey": authKey}
	if a := register(
		t, start(t, config.Server{Dev: true, LicenseSigningKey: ours}), moved, true,
	); a["code"] != "401" {
		t.Errorf("not listed: %v", a)
	}
	n := start(t, config.Server{Dev: true, LicenseSigningKey: ours, Licenses: path})
	if a := register(t, n, moved, true); a["code"] != "200" || len(a["iceServers"].([]any)) != 1 {
		t.Errorf("listed, without relay: %v", a)
	}
	if a := register(
		t, n, map[string]any{"cpCode": "MOVED-01", "authKey": token}, true,
	); a["code"] != "200" || a["userId"] != "kim" {
		t.Errorf("with a user token: %v", a)
	}
}

func TestErrorsInTheLicensesFileAreReportedWithTheOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "licenses.yaml")
	if err := os.WriteFile(
		path, []byte("- {cpCode: a, authKey: b}\n- {cpCode: c, authKey: d}\n"), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	err := config.Server{Licenses: path, Listen: "x"}.Validate()
	for _, part := range []string{
		"--licenses: line 1: license 1", "license 2", "a license signing key is required",
		"--listen",
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not said: %v", part, err)
		}
	}
	if err := (config.Server{Licenses: path + "x", Dev: true}).Validate(); err == nil ||
		!strings.Contains(err.Error(), "--licenses") {
		t.Errorf("a file that is not there: %v", err)
	}
}
