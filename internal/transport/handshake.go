package transport

import (
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strings"
)

// The subprotocol that our clients offer, and what begins the name of another one that they offer beside it and that is never agreed
// on: it carries their first message, in base64url without padding. The answer to it is sent right behind the answer to the request,
// which saves a round trip. It is the only header that a page can choose; the address, which it can choose too, stands in logs.
const (
	subprotocol        = "ieum"
	earlyMessagePrefix = "ieum.hello."
)

// handshake judges the request to open a WebSocket (RFC 6455, section 4.2). It returns the answer that accepts it and the message that
// came with it, if one did, or the status of the answer that does not. No extension is agreed on: compression would cost each
// connection more memory than everything else.
func handshake(r *http.Request) (accepted, hello []byte, refusal int) {
	key := r.Header.Get("Sec-WebSocket-Key")
	nonce, err := base64.StdEncoding.DecodeString(key)
	switch {
	case r.Method != http.MethodGet, !headerHasToken(r.Header, "Upgrade", "websocket"), r.Header.Get("Sec-WebSocket-Version") != "13":
		return nil, nil, http.StatusUpgradeRequired
	case !headerHasToken(r.Header, "Connection", "upgrade"), err != nil, len(nonce) != 16:
		return nil, nil, http.StatusBadRequest
	}
	agreed := ""
	ours, hello, err := parseSubprotocols(r.Header["Sec-Websocket-Protocol"])
	if err != nil {
		return nil, nil, http.StatusBadRequest
	}
	if ours {
		agreed = "Sec-WebSocket-Protocol: " + subprotocol + "\r\n"
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n" + agreed + "\r\n"), hello, 0
}

// offered tells whether our subprotocol is among the offers, and what came with it.
func parseSubprotocols(lines []string) (ours bool, hello []byte, err error) {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			t = strings.TrimSpace(t)
			if t == subprotocol {
				ours = true
			} else if text, ok := strings.CutPrefix(t, earlyMessagePrefix); ok {
				hello, err = base64.RawURLEncoding.DecodeString(text)
			}
		}
	}
	if !ours {
		return false, nil, nil
	}
	return true, hello, err
}

// names tells whether a header that lists tokens has one of that name; case does not matter.
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
