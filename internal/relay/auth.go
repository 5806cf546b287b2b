package relay

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"time"

	"github.com/pion/stun/v4"
)

// Password algorithms of RFC 8489 section 18.5.
const (
	algorithmMD5    = 1
	algorithmSHA256 = 2
)

// passwordAlgorithms is what we offer, the better first (RFC 8489 section 14.11).
var passwordAlgorithms = []byte{0, algorithmSHA256, 0, 0, 0, algorithmMD5, 0, 0}

// credential is what a request proved, and what the answer is signed with.
type credential struct {
	username  string
	tenant    string
	session   string // tenantHash.session
	algorithm byte
	key       []byte
	// sha256: MESSAGE-INTEGRITY-SHA256 was used.
	sha256 bool
}

// authenticate checks a request (RFC 8489 section 9.2.4). The code is 0 when it is good. known is
// the credential of the client's allocation, whose key is taken again when the user name is the
// same.
func (w *worker) authenticate(
	m *stun.Message,
	p *path,
	known *credential,
) (c credential, reason reasonCode, code stun.ErrorCode) {
	mi, _ := m.Get(stun.AttrMessageIntegrity)
	mi256, _ := m.Get(stun.AttrMessageIntegritySHA256)
	if mi == nil && mi256 == nil {
		return c, reasonUnsigned, stun.CodeUnauthorized
	}
	username, err1 := m.Get(stun.AttrUsername)
	realm, err2 := m.Get(stun.AttrRealm)
	nonce, err3 := m.Get(stun.AttrNonce)
	if err1 != nil || err2 != nil || err3 != nil {
		return c, reasonMalformed, stun.CodeBadRequest
	}
	c.algorithm = algorithmMD5
	offered, err1 := m.Get(stun.AttrPasswordAlgorithms)
	chosen, err2 := m.Get(stun.AttrPasswordAlgorithm)
	if err1 == nil || err2 == nil {
		// Who names an algorithm must repeat our offer, which is signed by that: nobody on the way
		// has made it worse.
		if err1 != nil || err2 != nil || len(chosen) < 4 ||
			string(offered) != string(passwordAlgorithms) {
			return c, reasonMalformed, stun.CodeBadRequest
		}
		if c.algorithm = chosen[1]; chosen[0] != 0 ||
			(c.algorithm != algorithmMD5 && c.algorithm != algorithmSHA256) {
			return c, reasonMalformed, stun.CodeBadRequest
		}
	}
	if !w.nonces.valid(nonce, w.now, p.remote) {
		return c, reasonStaleNonce, stun.CodeStaleNonce
	}
	w.server.limiter.prove(sourceOf(p.remote), w.now)
	if string(realm) != w.server.cfg.Realm {
		return c, reasonBadCredentials, stun.CodeUnauthorized
	}
	var keys [][]byte
	if known != nil && known.username == string(username) && known.algorithm == c.algorithm {
		c = *known
		keys = [][]byte{c.key}
	} else {
		c.username = string(username)
		expiry, session, ok := parseUsername(c.username)
		if !ok {
			return c, reasonBadCredentials, stun.CodeUnauthorized
		}
		// Later requests need the allocation, which is found by session: a call may outlast its
		// credentials.
		if m.Type.Method == stun.MethodAllocate && !w.server.cfg.Now().Before(expiry) {
			return c, reasonExpired, stun.CodeUnauthorized
		}
		c.session, c.tenant = session, tenantOf(session)
		for _, secret := range w.server.secrets.Load().keysFor(expiry) {
			password := RESTPassword(secret, c.username)
			keys = append(keys, longTermKey(c.algorithm, c.username, w.server.cfg.Realm, password))
		}
	}
	c.sha256 = mi256 != nil
	for _, c.key = range keys {
		if verifyIntegrity(m.Raw, c.key, mi, mi256) {
			return c, reasonNone, 0
		}
	}
	return c, reasonBadCredentials, stun.CodeUnauthorized
}

// verifyIntegrity checks the one integrity attribute that counts: MESSAGE-INTEGRITY-SHA256, if
// there is one. It must not be truncated, which a usage would have to allow (RFC 8489 section
// 14.6).
func verifyIntegrity(raw, key, mi, mi256 []byte) bool {
	if mi256 != nil {
		return len(mi256) == sha256.Size &&
			verifyMAC(
				raw,
				uint16(stun.AttrMessageIntegritySHA256),
				hmac.New(sha256.New, key),
				mi256,
			)
	}
	return len(mi) == sha1.Size &&
		verifyMAC(raw, uint16(stun.AttrMessageIntegrity), hmac.New(sha1.New, key), mi)
}

// longTermKey is that of RFC 8489 section 9.2.2.
func longTermKey(algorithm byte, username, realm, password string) []byte {
	text := []byte(username + ":" + realm + ":" + password)
	if algorithm == algorithmSHA256 {
		sum := sha256.Sum256(text)
		return sum[:]
	}
	sum := md5.Sum(text)
	return sum[:]
}

// verifyMAC checks an integrity attribute: the MAC covers what is before it, with the length that
// ends with it (RFC 8489 sections 14.5 and 14.6). The first attribute of that type counts, as for
// the codec.
func verifyMAC(raw []byte, attr uint16, mac hash.Hash, want []byte) bool {
	for at := stunHeader; at+4 <= len(raw); {
		length := int(binary.BigEndian.Uint16(raw[at+2:]))
		if binary.BigEndian.Uint16(raw[at:]) == attr {
			sum := macOver(raw[:at], mac, length)
			return subtle.ConstantTimeCompare(sum[:len(want)], want) == 1
		}
		at += 4 + (length+3)&^3
	}
	return false
}

func macOver(message []byte, mac hash.Hash, length int) []byte {
	var head [4]byte
	copy(head[:], message[:2])
	binary.BigEndian.PutUint16(head[2:], uint16(len(message)-stunHeader+4+length))
	mac.Write(head[:])
	mac.Write(message[4:])
	return mac.Sum(nil)
}

// sign adds the integrity attribute of the kind that the request had.
func (c *credential) sign(m *stun.Message) {
	if !c.sha256 {
		m.Add(stun.AttrMessageIntegrity, macOver(m.Raw, hmac.New(sha1.New, c.key), sha1.Size))
		return
	}
	m.Add(stun.AttrMessageIntegritySHA256, macOver(m.Raw, hmac.New(sha256.New, c.key), sha256.Size))
}

// deadline bounds a lifetime by the greatest age of an allocation.
func (s *Server) deadline(now, made, life time.Duration) time.Duration {
	end := now + life
	if s.cfg.MaxAge > 0 {
		end = min(end, made+s.cfg.MaxAge)
	}
	return end
}
