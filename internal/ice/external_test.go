package ice

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/relay"
)

func TestExternalRelaysAreSpread(t *testing.T) {
	urls := []string{
		"stun:a.example",
		"turn:a.example:3478",
		"turns:a.example:443?transport=tcp",
		"turn:b.example?transport=udp",
		"turns:b.example",
		"turn:b.example?transport=tcp",
	}
	e, err := ParseExternal(urls)
	if err != nil {
		t.Fatal(err)
	}
	shared := []byte("a secret that two machines have")
	e.SetSecret(shared)
	e.now = func() time.Time { return time.Unix(1_000, 0) }
	seen := map[string]int{}
	for i := range 200 {
		servers := e.ICEServers("x", "tenant", fmt.Sprintf("S%d", i), true)
		if len(servers) != 2 || len(servers[1].URLs) != 2 || servers[0].URLs[0] != urls[0] {
			t.Fatalf("%+v", servers)
		}
		turn := servers[1]
		user := fmt.Sprintf("1600:%s.S%d", TenantHash("tenant"), i)
		if !strings.HasPrefix(turn.Username, user) ||
			turn.Credential != relay.RESTPassword(shared, turn.Username) {
			t.Errorf("%+v", turn)
		}
		for _, u := range turn.URLs {
			seen[u]++
		}
	}
	for _, u := range urls[1:] {
		if seen[u] < 20 {
			t.Errorf("%s was given %d of 200 sessions", u, seen[u])
		}
	}
	if s := e.ICEServers("x", "t", "s", false); len(s) != 1 || s[0].Username != "" {
		t.Errorf("a license without relay: %+v", s)
	}
	if one, _ := ParseExternal(urls[1:3]); len(one.ICEServers("x", "t", "s", true)) != 1 {
		t.Error("without a STUN URL there is no STUN server")
	}
}
