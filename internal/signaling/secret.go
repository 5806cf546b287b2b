package signaling

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"github.com/ieum-rtc/ieum/internal/protocol"
)

var errNoProof = errors.New("resume secret not valid")

// proof is what a resume secret says: who was where. It is signed, so that a server without memory of the session can still
// tell that it gave the secret out.
type proof struct {
	Tenant string `json:"t"`
	User   string `json:"u"`
	seat   Seat
	Node   string `json:"n"`
	ID     string `json:"s"`
	Epoch  uint64 `json:"e"`

	Identity string `json:"i,omitempty"`
}

const resumeVersion = "r1"

// resumeSecret makes the session's secret: version, content and HMAC-SHA256, separated by points.
func (h *Hub) resumeSecret(s *session) string {
	body, err := protocol.Marshal(proof{
		Tenant: s.tenant, User: s.user, Node: s.seat.Node, ID: s.id, Epoch: s.seat.Epoch, Identity: s.identity,
	})
	if err != nil {
		return "" // cannot happen: strings and a number
	}
	text := resumeVersion + "." + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(mac(h.keys.Load().resume[0], text))
}

func (h *Hub) parseResume(secret string) (proof, error) {
	text, sum, ok := cutLast(secret)
	if !ok || len(secret) > 2048 {
		return proof{}, errNoProof
	}
	given, err := base64.RawURLEncoding.DecodeString(sum)
	if err != nil {
		return proof{}, errNoProof
	}
	genuine := false
	for _, k := range h.keys.Load().resume {
		genuine = genuine || hmac.Equal(given, mac(k, text))
	}
	content, versioned := strings.CutPrefix(text, resumeVersion+".")
	if !genuine || !versioned {
		return proof{}, errNoProof
	}
	body, err := base64.RawURLEncoding.DecodeString(content)
	if err != nil {
		return proof{}, errNoProof
	}
	var p proof
	if err := json.Unmarshal(body, &p); err != nil {
		return proof{}, errNoProof
	}
	p.seat = Seat{p.Node, p.ID, p.Epoch}
	return p, nil
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
