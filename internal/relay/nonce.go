package relay

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"time"
)

// Nonces hold no state: a time and a MAC over it and the client's address (RFC 8489 section 9.2).
// They begin with the nonce cookie and the security features: only password algorithms are
// announced, bit 0 (RFC 8489 sections 9.2 and 18.1).
const (
	nonceLife   = 10 * time.Minute
	nonceCookie = "obMatJos2" + "gAAA"
	nonceBytes  = 4 + 12
	nonceLength = len(nonceCookie) + (nonceBytes*8+5)/6
)

type nonces struct {
	mac hash.Hash
	sum []byte
}

func newNonces(key []byte) *nonces { return &nonces{mac: hmac.New(sha256.New, key)} }

// seal computes the bytes of a nonce of a time (whole seconds) for a client.
func (n *nonces) seal(seconds uint32, remote endpoint) (b [nonceBytes]byte) {
	binary.BigEndian.PutUint32(b[:], seconds)
	n.mac.Reset()
	n.mac.Write(b[:4])
	n.mac.Write(remote.ip[:])
	n.mac.Write(
		binary.BigEndian.AppendUint32(
			binary.BigEndian.AppendUint16(nil, remote.port),
			remote.scope,
		),
	)
	n.sum = n.mac.Sum(n.sum[:0])
	copy(b[4:], n.sum)
	return b
}

func (n *nonces) issue(now time.Duration, remote endpoint) []byte {
	b := n.seal(uint32(now/time.Second), remote)
	return base64.RawURLEncoding.AppendEncode([]byte(nonceCookie), b[:])
}

func (n *nonces) valid(nonce []byte, now time.Duration, remote endpoint) bool {
	if len(nonce) != nonceLength || string(nonce[:len(nonceCookie)]) != nonceCookie {
		return false
	}
	var b [nonceBytes + 2]byte
	got, err := base64.RawURLEncoding.Decode(b[:], nonce[len(nonceCookie):])
	if err != nil || got != nonceBytes {
		return false
	}
	seconds := binary.BigEndian.Uint32(b[:])
	age := now/time.Second - time.Duration(seconds)
	want := n.seal(seconds, remote)
	return subtle.ConstantTimeCompare(want[:], b[:nonceBytes]) == 1 && age >= 0 &&
		age <= nonceLife/time.Second
}
