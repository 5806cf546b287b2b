package transport

// StatusCode tells why a WebSocket was closed (RFC 6455, section 7.4). docs/protocol.md lists
// those that clients see.
type StatusCode int

// The codes of RFC 6455, section 7.4.1, and of the IANA registry it opened.
const (
	StatusNormalClosure           StatusCode = 1000
	StatusGoingAway               StatusCode = 1001 // a page is left; or the server stops: resume
	StatusProtocolError           StatusCode = 1002
	StatusUnsupportedData         StatusCode = 1003 // a binary message
	StatusNoStatusRcvd            StatusCode = 1005 // the close frame had no code; never sent
	StatusAbnormalClosure         StatusCode = 1006 // there was no close frame; never sent
	StatusInvalidFramePayloadData StatusCode = 1007 // text that is not UTF-8
	StatusPolicyViolation         StatusCode = 1008 // not registered in time, origin refused, flood
	StatusMessageTooBig           StatusCode = 1009
	StatusInternalError           StatusCode = 1011 // a message handler panicked: register again
	StatusTryAgainLater           StatusCode = 1013 // the outbox is full: reconnect and resume
)

// The codes of this application, from the range for private use.
const (
	StatusSessionResumed StatusCode = 4001 // the session has another connection now
	StatusTakenOver      StatusCode = 4002 // the user id has another session now
	StatusLicenseEnded   StatusCode = 4003 // the license has expired or was revoked
)

// Final tells whether a client closed with c must not reconnect.
func (c StatusCode) Final() bool {
	switch c {
	case StatusSessionResumed, StatusTakenOver, StatusLicenseEnded:
		return true
	}
	return false
}

// valid tells whether c may stand in a close frame.
func (c StatusCode) valid() bool {
	switch c {
	case StatusNoStatusRcvd, StatusAbnormalClosure, 1004: // 1004 is reserved
		return false
	}
	return c >= 1000 && c < 1015 || c >= 3000 && c < 5000 // 1015 and above are reserved
}
