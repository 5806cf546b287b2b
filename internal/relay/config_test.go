package relay

import (
	"flag"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// underRace is true with the race detector.
var underRace bool

func TestMain(m *testing.M) { goleak.VerifyTestMain(bothDrivers{m}) }

// bothDrivers runs all tests with the driver of this system, and again with the one for all
// systems.
type bothDrivers struct{ m *testing.M }

func (b bothDrivers) Run() int {
	code := b.m.Run()
	if plainDriver = code == 0 && runtime.GOOS == "linux" &&
		flag.Lookup("test.fuzz").Value.String() == ""; plainDriver {
		code = b.m.Run()
	}
	return code
}

func TestConfigErrorsAreReportedTogether(t *testing.T) {
	four := Address{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.1")}
	err := Config{
		Listen: "localhost:3478", Addresses: []Address{four, four, {}}, MinPort: 9, MaxPort: 8,
		AllowPeers: []netip.Prefix{{}},
		Secret: []byte(
			"short",
		), Realm: "a\"b", Quota: Quota{Session: -2}, CredentialLife: time.Millisecond,
	}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{
		"localhost", "both halves", "one address of each family", "9 to 8", "allowed peers",
		"5 bytes", "realm", "quota", "lifetime",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}
	if strings.Contains(err.Error(), "short") {
		t.Error("the secret is quoted")
	}
}

func TestListenAddresses(t *testing.T) {
	for listen, ok := range map[string]bool{
		":3478": true, "[::]:3478": true, "0.0.0.0:3478": true, "127.0.0.1:0": true,
		"[::1]:3478": true, "[::ffff:1.2.3.4]:1": true,
		"": false, "3478": false, "::1:3478x": false, "host:3478": false, ":65536": false,
		":x": false, ":-1": false,
	} {
		err := Config{Listen: listen, Secret: make([]byte, 16)}.Validate()
		if (err == nil) != ok {
			t.Errorf("%q: %v", listen, err)
		}
	}
}
