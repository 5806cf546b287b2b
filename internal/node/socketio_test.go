package node

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/config"
)

// Both carriers stand side by side; polling goes over HTTP/2 where there is TLS.
func TestSocketIOClientsAreServed(t *testing.T) {
	for name, c := range map[string]config.Server{
		"HTTP/1.1": {Dev: true},
		"HTTP/2.0": {Dev: true, TLSSelfSigned: true},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, c)
			base := n.URLs()[0] + "socket.io/"
			res, opening := get(t, base+"?EIO=4&transport=polling")
			_, rest, ok := strings.Cut(opening, `"sid":"`)
			if !ok || res.Proto != name {
				t.Fatalf("%s %d %s", res.Proto, res.StatusCode, opening)
			}
			sid, _, _ := strings.Cut(rest, `"`)
			session := base + "?EIO=4&transport=polling&sid=" + sid
			ask(t, session, "40", `40{"sid":"`)
			ask(
				t, session, `427["knowledgetalk",{"eventOp":"joinRoom"}]`,
				`437[{"eventOp":"joinRoom"`,
			)
			if res, script := get(t, base+"socket.io.min.js"); res.StatusCode != http.StatusOK ||
				!strings.Contains(script, "EIO") {
				t.Errorf("script: %d", res.StatusCode)
			}
			if res, _ := get(t, base+"nothing.js"); res.StatusCode != http.StatusNotFound {
				t.Errorf("another file: %d", res.StatusCode)
			}
			if _, stats := get(
				t, n.URLs()[0]+"dev/stats",
			); !strings.Contains(stats, `"connections":1`) {
				t.Errorf("stats: %s", stats)
			}
		})
	}
}

// ask posts a packet and polls until something comes that starts with want.
func ask(t *testing.T, session, packet, want string) {
	t.Helper()
	res, err := insecure.Post(session, "text/plain;charset=UTF-8", strings.NewReader(packet))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "ok" {
		t.Fatalf("post: %q %v", body, err)
	}
	if _, got := get(t, session); !strings.HasPrefix(got, want) {
		t.Fatalf("polled %q, want %s…", got, want)
	}
}
