package ice

import (
	"strings"
	"testing"
)

// A browser refuses a whole configuration for a URL that it cannot read.
func TestExternalURLsAreOnesThatBrowsersRead(t *testing.T) {
	for _, u := range []string{
		"turn:[[2001:db8::1]]:3478", "turn:[192.0.2.1]:3478", "turn:192.0.2.1]:3478",
		"turn:[fe80::1%2]:3478", "turn:a..example", "turn:" + strings.Repeat("a", 64) + ".example",
	} {
		if _, err := ParseExternal([]string{u}); err == nil {
			t.Errorf("%s is accepted", u)
		}
	}
	for _, u := range []string{"turn:[2001:db8::1]:3478", "turn:[::1]", "stun:192.0.2.1:3478"} {
		if _, err := ParseExternal([]string{u}); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
}

// Errors of the configuration are logged.
func TestErrorsDoNotQuoteCredentialsInURLs(t *testing.T) {
	_, err := ParseExternal([]string{"turn:user:hunter2@turn.example:3478"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error is %v", err)
	}
}
