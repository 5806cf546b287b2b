package relay

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// signature is how a request is signed: by which algorithm the key is made, what is said about
// that, and with which attribute.
type signature struct {
	algorithm byte   // 0: nothing is said, and MD5 is meant
	offered   []byte // PASSWORD-ALGORITHMS; nil: left out
	silent    bool   // PASSWORD-ALGORITHM is left out
	whole     bool   // MESSAGE-INTEGRITY-SHA256
	cut       int    // bytes of it that are sent; 0: all
}

func (c *rawClient) key(algorithm byte) []byte {
	text := []byte(c.user + ":" + c.realm + ":" + c.pass)
	if algorithm == algorithmSHA256 {
		sum := sha256.Sum256(text)
		return sum[:]
	}
	sum := md5.Sum(text)
	return sum[:]
}

// integrity computes an integrity attribute of a message that ends before it, as RFC 8489 section
// 14.5 says and without our own code.
func integrity(raw []byte, mac hash.Hash) []byte {
	b := slices.Clone(raw)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-stunHeader+4+mac.Size()))
	mac.Write(b)
	return mac.Sum(nil)
}

// askSigned sends an Allocate request.
func (c *rawClient) askSigned(s signature, attrs ...stun.Setter) *stun.Message {
	c.t.Helper()
	setters := append(
		[]stun.Setter{
			stun.TransactionID,
			stun.NewType(stun.MethodAllocate, stun.ClassRequest),
			transport(17),
		},
		attrs...)
	setters = append(
		setters,
		stun.NewUsername(c.user),
		stun.NewRealm(c.realm),
		stun.NewNonce(c.nonce),
	)
	if s.offered != nil {
		setters = append(
			setters,
			stun.RawAttribute{Type: stun.AttrPasswordAlgorithms, Value: s.offered},
		)
	}
	if s.algorithm != 0 && !s.silent {
		setters = append(
			setters,
			stun.RawAttribute{
				Type:  stun.AttrPasswordAlgorithm,
				Value: []byte{0, s.algorithm, 0, 0},
			},
		)
	}
	m, err := stun.Build(setters...)
	if err != nil {
		c.t.Fatal(err)
	}
	if s.whole && s.cut > 0 {
		// The length that is signed is that of the attribute as it is sent.
		b := slices.Clone(m.Raw)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)-stunHeader+4+s.cut))
		mac := hmac.New(sha256.New, c.key(s.algorithm))
		mac.Write(b)
		m.Add(stun.AttrMessageIntegritySHA256, mac.Sum(nil)[:s.cut])
	} else if s.whole {
		m.Add(
			stun.AttrMessageIntegritySHA256,
			integrity(m.Raw, hmac.New(sha256.New, c.key(s.algorithm))),
		)
	} else {
		m.Add(stun.AttrMessageIntegrity, integrity(m.Raw, hmac.New(sha1.New, c.key(s.algorithm))))
	}
	c.send(m.Raw)
	return c.answerTo(m)
}

// signedAs checks that an answer is signed by the key and attribute of its request.
func (c *rawClient) signedAs(answer *stun.Message, s signature) bool {
	attr, mac := stun.AttrMessageIntegrity, hmac.New(sha1.New, c.key(s.algorithm))
	if s.whole {
		attr, mac = stun.AttrMessageIntegritySHA256, hmac.New(sha256.New, c.key(s.algorithm))
	}
	got, err := answer.Get(attr)
	// It is the last attribute.
	end := len(answer.Raw) - 4 - mac.Size()
	return err == nil && len(got) == mac.Size() &&
		bytes.Equal(got, integrity(answer.Raw[:end], mac))
}

func TestPasswordAlgorithms(t *testing.T) {
	offer, onlyMD5 := passwordAlgorithms, []byte{0, algorithmMD5, 0, 0}
	for name, c := range map[string]struct {
		by   signature
		want int
	}{
		"as before RFC 8489":           {signature{}, 0},
		"as before, SHA-256 integrity": {signature{whole: true}, 0},
		"MD5 by name":                  {signature{algorithm: algorithmMD5, offered: offer}, 0},
		"SHA-256":                      {signature{algorithm: algorithmSHA256, offered: offer}, 0},
		"SHA-256, SHA-256 integrity": {
			signature{algorithm: algorithmSHA256, offered: offer, whole: true}, 0,
		},
		// Somebody on the way has taken the better one out of our offer.
		"bid down to MD5": {
			signature{algorithm: algorithmMD5, offered: onlyMD5, whole: true}, 400,
		},
		"an offer cut short": {
			signature{algorithm: algorithmSHA256, offered: offer[:4]}, 400,
		},
		"an empty offer": {signature{algorithm: algorithmSHA256, offered: []byte{}}, 400},
		"no offer":       {signature{algorithm: algorithmSHA256}, 400},
		"no choice": {
			signature{algorithm: algorithmMD5, offered: offer, silent: true}, 400,
		},
		"an algorithm not offered": {signature{algorithm: 3, offered: offer}, 400},
		// A truncated MAC is easier to guess.
		"integrity of 16 bytes": {
			signature{algorithm: algorithmSHA256, offered: offer, whole: true, cut: 16}, 401,
		},
		"integrity of 28 bytes": {
			signature{algorithm: algorithmSHA256, offered: offer, whole: true, cut: 28}, 401,
		},
		"integrity of 4 bytes": {
			signature{algorithm: algorithmSHA256, offered: offer, whole: true, cut: 4}, 401,
		},
	} {
		s := start(t, nil)
		client := dial(t, s, "udp", "t", "s")
		client.challenge()
		answer := client.askSigned(c.by)
		if got := code(answer); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		} else if got == 0 && !client.signedAs(answer, c.by) {
			t.Errorf("%s: the answer is not signed as the request: %v", name, answer)
		} else if got != 0 && (answer.Contains(stun.AttrMessageIntegrity) ||
			answer.Contains(stun.AttrMessageIntegritySHA256)) {
			t.Errorf("%s: an answer without credentials is signed: %v", name, answer)
		}
		// An offer is in each challenge, and its presence is in the nonce, which cannot be changed
		// on the way.
		if c.want == 401 {
			if value, err := answer.Get(stun.AttrPasswordAlgorithms); err != nil ||
				!bytes.Equal(value, offer) {
				t.Errorf("%s: the challenge offers %x, %v", name, value, err)
			}
		}
		if want := map[bool]int{true: 1, false: 0}[c.want == 0]; s.Stats().Allocations != want {
			t.Errorf("%s: %d allocations", name, s.Stats().Allocations)
		}
	}
}

// A key made by one algorithm does not pass for that of another.
func TestAlgorithmSaidAndUsedMustAgree(t *testing.T) {
	s := start(t, nil)
	c := dial(t, s, "udp", "t", "s")
	c.challenge()
	m := stun.MustBuild(
		stun.TransactionID,
		stun.NewType(stun.MethodAllocate, stun.ClassRequest),
		transport(17),
		stun.NewUsername(c.user),
		stun.NewRealm(
			c.realm,
		),
		stun.NewNonce(c.nonce),
		stun.RawAttribute{Type: stun.AttrPasswordAlgorithms, Value: passwordAlgorithms},
		stun.RawAttribute{
			Type:  stun.AttrPasswordAlgorithm,
			Value: []byte{0, algorithmSHA256, 0, 0},
		},
		stun.NewLongTermIntegrity(c.user, c.realm, c.pass),
	)
	c.send(m.Raw)
	if got := code(c.answerTo(m)); got != 401 {
		t.Errorf("got %d", got)
	}
}

func TestNonces(t *testing.T) {
	s, clock := startWithClock(t, nil)
	c := dial(t, s, "udp", "t", "s")
	c.challenge()
	good := c.nonce
	changed := func(i int) string {
		b := []byte(good)
		b[i] = map[bool]byte{true: 'B', false: 'A'}[b[i] == 'A']
		return string(b)
	}
	try := func(name, nonce string, want int) {
		t.Helper()
		c.nonce = nonce
		answer := c.ask(stun.MethodRefresh, life(600))
		if got := code(answer); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
		if want != 438 {
			return
		}
		// With it comes what is needed to go on.
		if fresh, err := answer.Get(stun.AttrNonce); err != nil ||
			!answer.Contains(stun.AttrRealm) ||
			!answer.Contains(stun.AttrPasswordAlgorithms) {
			t.Errorf("%s: %v in %v", name, err, answer)
		} else if c.nonce = string(fresh); code(c.ask(stun.MethodRefresh, life(600))) != 437 {
			t.Errorf("%s: the new one is not good", name)
		}
	}
	try("good", good, 437) // there is no allocation
	for name, nonce := range map[string]string{
		"of a client that says nothing": "x", "too short": good[:len(good)-1],
		"too long": good + "A", "another time": changed(len(nonceCookie) + 2),
		"another MAC": changed(len(good) - 3), "other features": changed(len(nonceCookie) - 1),
		"another cookie":   changed(0),
		"a line end in it": good[:20] + "\n" + good[21:], "no base64": good[:20] + "*" + good[21:],
	} {
		try(name, nonce, 438)
	}
	clock.pass(nonceLife)
	try("at the end of its life", good, 437)
	clock.pass(time.Second)
	try("after its life", good, 438)
	other := dial(t, s, "udp", "t", "s")
	other.realm, other.nonce = c.realm, c.nonce
	if got := code(other.ask(stun.MethodRefresh, life(600))); got != 438 {
		t.Errorf("another client's nonce: %d", got)
	}
	if refusedBy(s, reasonStaleNonce) != 11 {
		t.Errorf("counted %d times", refusedBy(s, reasonStaleNonce))
	}
}
