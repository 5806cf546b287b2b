package node

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/license"
)

// Origins of web views and extensions are taken by licenses as they are sent, and decide as those
// of sites do, on both carriers.
func TestWebViewsAreAdmittedWhereTheLicenseNamesThem(t *testing.T) {
	const key = "0123456789abcdef0123456789abcdef"
	listed := []string{
		"https://app.example", "http://localhost:3000", "https://[::1]:8443",
		"capacitor://localhost", "ionic://localhost", "tauri://localhost",
		"app://localhost", "app://.", "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
		"moz-extension://8f2f9d60-1111-4c4c-9c9c-000000000000",
		"safari-web-extension://8F2F9D60-1111-4C4C-9C9C-000000000000",
	}
	v, err := license.New(license.Config{Keys: [][]byte{[]byte(key)}})
	if err != nil {
		t.Fatal(err)
	}
	issue := func(origins ...string) (string, error) {
		now := time.Now()
		return v.Issue(
			license.Params{
				Name:    "A",
				CpCode:  "A-1",
				MaxUser: 100,
				Start:   now.Add(-time.Hour),
				End:     now.Add(time.Hour),
				Origins: origins,
			},
		)
	}
	some, err := issue(listed...)
	if err != nil {
		t.Fatal(err)
	}
	all, err := issue("*")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"null", "file://", "file://localhost", "capacitor://", "capacitor://localhost/",
		"HTTPS://app.example", "data:x", "wss://app.example",
	} {
		if _, err := issue(bad); err == nil {
			t.Errorf("a license may name %s", bad)
		}
	}
	n := start(t, config.Server{LicenseSigningKey: key})
	base := n.URLs()[0]
	login := func(origin, authKey string) string {
		t.Helper()
		h := &answers{got: make(chan []byte, 1), done: make(chan struct{})}
		ws, res, err := gws.NewClient(
			h,
			&gws.ClientOption{
				Addr:          "ws" + strings.TrimPrefix(base, "http") + "signal",
				RequestHeader: http.Header{"Origin": {origin}},
			},
		)
		if err != nil {
			if res == nil {
				t.Fatal(err)
			}
			return res.Status[:3]
		}
		go ws.ReadLoop()
		b, _ := json.Marshal(
			map[string]string{"eventOp": "register", "cpCode": "A-1", "authKey": authKey},
		)
		if err := ws.WriteMessage(gws.OpcodeText, b); err != nil {
			t.Fatal(err)
		}
		var a struct{ Code string }
		if err := json.Unmarshal(<-h.got, &a); err != nil {
			t.Fatal(err)
		}
		_ = ws.NetConn().Close()
		<-h.done
		return a.Code
	}
	polled := func(origin string) string {
		t.Helper()
		r, _ := http.NewRequestWithContext(
			t.Context(), "GET", base+"socket.io/?EIO=4&transport=polling", nil,
		)
		r.Header.Set("Origin", origin)
		res, err := insecure.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.Status[:3] + " " + res.Header.Get("Access-Control-Allow-Origin")
	}
	for _, o := range listed {
		if got := login(o, some); got != "200" {
			t.Errorf("%s, listed: %s", o, got)
		}
		if got := login(o, all); got != "200" {
			t.Errorf("%s, all: %s", o, got)
		}
		if got := polled(o); got != "200 "+o {
			t.Errorf("%s, polling: %s", o, got)
		}
	}
	for _, o := range []string{
		"capacitor://other", "capacitor://localhost:1", "ionic://app",
		"tauri://localhost.evil.example", "https://localhost", "chrome-extension://x",
	} {
		if got := login(o, some); got != "413" {
			t.Errorf("%s, not listed: %s", o, got)
		}
	}
	for _, o := range []string{
		"null", "file://", "file://localhost", "capacitor:localhost", "data:x",
	} {
		if got := login(o, all); got != "403" {
			t.Errorf("%s: %s", o, got)
		}
		if got := polled(o); got != "403 " {
			t.Errorf("%s, polling: %s", o, got)
		}
	}
}
