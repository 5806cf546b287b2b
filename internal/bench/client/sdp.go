package client

import "strings"

// SDP is the content of a JSON string, size bytes long. It looks like the SDP of a browser: short
// lines, each with its escapes. Digits fill what remains after the last whole line.
func SDP(size int) string {
	var b strings.Builder
	for i := 0; b.Len()+len(sdpLines[i]) <= size; i = (i + 1) % len(sdpLines) {
		b.WriteString(sdpLines[i])
	}
	b.WriteString(strings.Repeat("0", size-b.Len()))
	return b.String()
}

// sdpLines is the beginning of a browser's offer, audio first. Addresses are of the documentation
// range (RFC 5737).
var sdpLines = []string{
	`v=0\r\n`,
	`o=- 4611731400430051336 2 IN IP4 127.0.0.1\r\n`,
	`s=-\r\n`,
	`t=0 0\r\n`,
	`a=group:BUNDLE 0 1 2 3 4\r\n`,
	`a=extmap-allow-mixed\r\n`,
	`a=msid-semantic: WMS\r\n`,
	`m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\n`,
	`c=IN IP4 0.0.0.0\r\n`,
	`a=rtcp:9 IN IP4 0.0.0.0\r\n`,
	`a=ice-ufrag:x5Qb\r\n`,
	`a=ice-pwd:7ndGFl2tJ3aMLx8sT9rQbW1e\r\n`,
	`a=ice-options:trickle\r\n`,
	`a=fingerprint:sha-256 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:` +
		`19:E5:7C:AB:5B:15:A1:63:72:5D:6F:8E:01:C7:2B:9A\r\n`,
	`a=setup:actpass\r\n`,
	`a=mid:0\r\n`,
	`a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n`,
	`a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n`,
	`a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n`,
	`a=sendrecv\r\n`,
	`a=msid:- 5f2d1a9c-60a1-4c0b-8f3e-2a9f6d8e1b7c\r\n`,
	`a=rtcp-mux\r\n`,
	`a=rtcp-rsize\r\n`,
	`a=rtpmap:111 opus/48000/2\r\n`,
	`a=rtcp-fb:111 transport-cc\r\n`,
	`a=fmtp:111 minptime=10;useinbandfec=1\r\n`,
	`a=candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 0.0.0.0 rport 0\r\n`,
}
