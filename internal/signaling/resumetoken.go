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

var errBadResumeToken = errors.New("resume secret not valid")

// resumeToken is what a resume secret says: who was where. It is signed, so that a server without
// memory of the session can still tell that it gave the secret out.
type resumeToken struct {
	Tenant   string `json:"t"`
	User     string `json:"u"`
	location Location
	Node     string `json:"n"`
	ID       string `json:"s"`
	Epoch    uint64 `json:"e"`

	Identity string `json:"i,omitempty"`
}

const resumeTokenVersion = "r1"

// newResumeToken makes the session's secret: version, content and HMAC-SHA256, separated by points.
func (h *Hub) newResumeToken(s *session) string {
	body, err := protocol.Marshal(resumeToken{
		Tenant:   s.tenant,
		User:     s.user,
		Node:     s.location.Node,
		ID:       s.id,
		Epoch:    s.location.Epoch,
		Identity: s.identity,
	})
	if err != nil {
		return "" // cannot happen: strings and a number
	}
	text := resumeTokenVersion + "." + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(mac(h.keys.Load().resume[0], text))
}

func (h *Hub) parseResumeToken(secret string) (resumeToken, error) {
	text, sum, ok := cutLast(secret)
	if !ok || len(secret) > 2048 {
		return resumeToken{}, errBadResumeToken
	}
	given, err := base64.RawURLEncoding.DecodeString(sum)
	if err != nil {
		return resumeToken{}, errBadResumeToken
	}
	genuine := false
	for _, k := range h.keys.Load().resume {
		genuine = genuine || hmac.Equal(given, mac(k, text))
	}
	content, versioned := strings.CutPrefix(text, resumeTokenVersion+".")
	if !genuine || !versioned {
		return resumeToken{}, errBadResumeToken
	}
	body, err := base64.RawURLEncoding.DecodeString(content)
	if err != nil {
		return resumeToken{}, errBadResumeToken
	}
	var p resumeToken
	if err := json.Unmarshal(body, &p); err != nil {
		return resumeToken{}, errBadResumeToken
	}
	p.location = Location{Node: p.Node, Session: p.ID, Epoch: p.Epoch}
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
