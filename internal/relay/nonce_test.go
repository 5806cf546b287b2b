package relay

import (
	"net/netip"
	"testing"
	"time"
)

func TestNonceIsGoodForAClientAndATime(t *testing.T) {
	client := endpointOf(netip.MustParseAddrPort("192.0.2.1:1000"))
	const made = 1000 * time.Second
	n := newNonces([]byte("key"))
	nonce := n.issue(made, client)
	for name, c := range map[string]struct {
		age    time.Duration
		client string
		key    string
		nonce  []byte
		want   bool
	}{
		"at once":           {0, "192.0.2.1:1000", "key", nonce, true},
		"ten minutes later": {nonceLife, "192.0.2.1:1000", "key", nonce, true},
		"still later": {
			nonceLife + time.Second, "192.0.2.1:1000", "key", nonce, false,
		},
		"before its time":  {-time.Second, "192.0.2.1:1000", "key", nonce, false},
		"another address":  {0, "192.0.2.2:1000", "key", nonce, false},
		"another port":     {0, "192.0.2.1:1001", "key", nonce, false},
		"the same in IPv6": {0, "[::ffff:192.0.2.1]:1000", "key", nonce, true},
		"another key":      {0, "192.0.2.1:1000", "other", nonce, false},
		"one byte less":    {0, "192.0.2.1:1000", "key", nonce[:len(nonce)-1], false},
		"one byte more": {
			0, "192.0.2.1:1000", "key", append(nonce[:len(nonce):len(nonce)], 'A'), false,
		},
		"other security features": {
			0, "192.0.2.1:1000", "key", changed(nonce, len(nonceCookie)-1), false,
		},
		"a time that is made up": {
			0, "192.0.2.1:1000", "key", changed(nonce, len(nonceCookie)+4), false,
		},
		"a signature that is not": {
			0, "192.0.2.1:1000", "key", changed(nonce, len(nonce)-2), false,
		},
		"what is no base64": {
			0, "192.0.2.1:1000", "key", append(nonce[:len(nonce)-1:len(nonce)-1], '='), false,
		},
		"nothing":                   {0, "192.0.2.1:1000", "key", nil, false},
		"nothing behind the cookie": {0, "192.0.2.1:1000", "key", []byte(nonceCookie), false},
	} {
		if got := newNonces([]byte(c.key)).valid(
			c.nonce, made+c.age, endpointOf(netip.MustParseAddrPort(c.client)),
		); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// changed is a copy with one letter another one.
func changed(nonce []byte, at int) []byte {
	out := append([]byte(nil), nonce...)
	if out[at]++; out[at] == 'z'+1 {
		out[at] = 'a'
	}
	return out
}
