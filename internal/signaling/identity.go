package signaling

import (
	"crypto/rand"
	"encoding/base64"
)

// identity tells members whether two joins of a user id are the same party, see protocol.Member. It
// is the same for all sessions that a user token opens, and for a session opened with the secret of
// an earlier one. To others it says no more than that.
func (h *Hub) identity(s *session, shown *resumeToken) string {
	switch {
	case s.grant.User != nil:
		return identityText(mac(h.keys.Load().resume[0], "identity "+s.tenant+"\x00"+s.user))
	case shown != nil && shown.Tenant == s.tenant && shown.User == s.user && shown.Identity != "":
		return shown.Identity
	}
	return newIdentity()
}

func newIdentity() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return identityText(b[:])
}

// identityText has 11 characters.
func identityText(b []byte) string { return base64.RawURLEncoding.EncodeToString(b[:8]) }
