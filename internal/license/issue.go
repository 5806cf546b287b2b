package license

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// Params is what a new license shall say.
type Params struct {
	Name, CpCode, CompanyCode string
	// MaxUser is 1 to 1,000,000.
	MaxUser int
	// Start is the first valid instant, End the first that is no longer valid; whole seconds are
	// kept.
	Start, End time.Time
	// Origins are page origins as browsers write them, or "*"; none: all.
	Origins []string
	// MaxRooms 0: no limit.
	MaxRooms int
	// Relay is "all", "none" or empty, which is "all".
	Relay            string
	RequireUserToken bool
}

// Issue signs a license with the first key. What Check would refuse is not issued; all faults are
// reported together.
func (v *Verifier) Issue(p Params) (token string, err error) {
	claims := jwt.MapClaims{
		"name":        p.Name,
		"authCode":    p.CpCode,
		"companyCode": p.CompanyCode,
		"maxUser":     p.MaxUser,
		"startDate":   p.Start.UTC().Format(time.RFC3339),
		"endDate":     p.End.UTC().Format(time.RFC3339),
		"iat":         v.now().Unix(),
	}
	if len(p.Origins) > 0 {
		claims["origins"] = p.Origins
	}
	if p.MaxRooms != 0 {
		claims["maxRooms"] = p.MaxRooms
	}
	if p.Relay != "" {
		claims["relay"] = p.Relay
	}
	if p.RequireUserToken {
		claims["requireUserToken"] = true
	}
	// JSON would replace broken bytes silently, and the license would be for another cpCode.
	if !utf8.ValidString(p.CpCode + p.Name + p.CompanyCode) {
		return "", errors.New("name, cpCode and companyCode must be UTF-8")
	}
	if !p.End.After(v.now()) {
		return "", errors.New("endDate is already past")
	}
	// The claims take the way through JSON that Check will see, so the rules stand in one place.
	text, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	var raw claimSet
	if err := json.Unmarshal(text, &raw); err != nil {
		return "", err
	}
	if _, _, err := raw.grant(); err != nil {
		return "", err
	}
	token, err = jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(v.keys[0])
	if err != nil {
		return "", err
	}
	if len(token) > maxToken {
		return "", fmt.Errorf("token has %d bytes, at most %d are accepted", len(token), maxToken)
	}
	return token, nil
}
