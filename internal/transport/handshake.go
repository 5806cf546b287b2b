package transport

import (
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strings"
)

const (
	// subprotocol is what the SDK offers.
	subprotocol = "ieum"
	// earlyMessagePrefix begins the name of a second subprotocol, which is offered beside the first
	// and never agreed on. The rest of the name is the client's early message in base64url without
	// padding. Its answer follows the answer to the handshake at once, which saves a round trip. A
	// page can choose no other header; it can choose the URL, but that is logged by proxies.
	earlyMessagePrefix = "ieum.hello."
)

// handshake checks the request to open a WebSocket (RFC 6455, section 4.2). It returns the response
// that accepts it and its early message, if there is one, or the HTTP status that refuses it. No
// extension is agreed on: compression would take more memory than everything else of a connection.
func handshake(r *http.Request) (accepted, early []byte, refusal int) {
	key := r.Header.Get("Sec-WebSocket-Key")
	nonce, err := base64.StdEncoding.DecodeString(key)
	switch {
	case r.Method != http.MethodGet,
		!headerHasToken(r.Header, "Upgrade", "websocket"),
		r.Header.Get("Sec-WebSocket-Version") != "13":
		return nil, nil, http.StatusUpgradeRequired
	case !headerHasToken(r.Header, "Connection", "upgrade"), err != nil, len(nonce) != 16:
		return nil, nil, http.StatusBadRequest
	}
	agreed := ""
	offered, early, err := parseSubprotocols(r.Header["Sec-Websocket-Protocol"])
	if err != nil {
		return nil, nil, http.StatusBadRequest
	}
	if offered {
		agreed = "Sec-WebSocket-Protocol: " + subprotocol + "\r\n"
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return []byte("HTTP/1.1 101 Switching Protocols\r\n" +
		"Upgrade: websocket\r\n" +
		"Connection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n" +
		agreed + "\r\n"), early, 0
}

// parseSubprotocols tells whether the client offers our subprotocol, and returns the early message
// that came with it.
func parseSubprotocols(lines []string) (offered bool, early []byte, err error) {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			t = strings.TrimSpace(t)
			if t == subprotocol {
				offered = true
			} else if text, ok := strings.CutPrefix(t, earlyMessagePrefix); ok {
				early, err = base64.RawURLEncoding.DecodeString(text)
			}
		}
	}
	if !offered {
		return false, nil, nil
	}
	return true, early, err
}

// headerHasToken tells whether a header that lists tokens contains one, ignoring case.
func headerHasToken(h http.Header, header, token string) bool {
	for _, line := range h.Values(header) {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}
