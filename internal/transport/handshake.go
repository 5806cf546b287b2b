package transport

import (
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strings"
)

// handshake judges the request to open a WebSocket (RFC 6455, section 4.2). It returns the answer that accepts it, or the status of
// the one that does not. No subprotocol and no extension is agreed on: compression would cost each connection more memory than
// everything else.
func handshake(r *http.Request) (accepted []byte, refusal int) {
	key := r.Header.Get("Sec-WebSocket-Key")
	nonce, err := base64.StdEncoding.DecodeString(key)
	switch {
	case r.Method != http.MethodGet, !names(r.Header, "Upgrade", "websocket"), r.Header.Get("Sec-WebSocket-Version") != "13":
		return nil, http.StatusUpgradeRequired
	case !names(r.Header, "Connection", "upgrade"), err != nil, len(nonce) != 16:
		return nil, http.StatusBadRequest
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"), 0
}

// names tells whether a header that lists tokens has one of that name; case does not matter.
func names(h http.Header, header, token string) bool {
	for _, line := range h.Values(header) {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}
