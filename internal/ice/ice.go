// Package ice issues the ICE servers of a session: STUN and TURN URLs (RFC 7064, RFC 7065) with
// credentials that expire. Local sends clients to the relay of this process, External to relays
// elsewhere.
package ice

import (
	"crypto/sha256"
	"encoding/hex"
)

// TenantHash stands for the tenant in TURN user names, which are sent in clear text.
func TenantHash(tenant string) string {
	sum := sha256.Sum256([]byte(tenant))
	return hex.EncodeToString(sum[:8])
}
