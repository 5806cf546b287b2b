package license

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Pinned is a license that is accepted because it is listed, whoever signed it: a tenant can move
// here with the key that stands in its pages. What stands beside the key overrides its claims of
// the same name.
type Pinned struct {
	CpCode  string `yaml:"cpCode"`
	AuthKey string `yaml:"authKey"`
	// Origins nil: as the license says.
	Origins []string `yaml:"origins"`
	// MaxRooms nil: as the license says.
	MaxRooms *int `yaml:"maxRooms"`
	// Relay is "all", "none" or empty: as the license says.
	Relay string `yaml:"relay"`
	// RequireUserToken nil: as the license says.
	RequireUserToken *bool `yaml:"requireUserToken"`
	// LegacyForced nil: as the license says; when it says nothing, true for a license that was
	// signed elsewhere.
	LegacyForced *bool `yaml:"legacyForced"`
}

// validatePinned reports the faults of all entries together.
func validatePinned(list []Pinned) error {
	var errs []error
	for i, err := range pinnedErrors(list) {
		if err != nil {
			errs = append(errs, fmt.Errorf("license %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

// pinnedErrors has an error, or nil, for each entry. A license that has ended is no fault: it must
// not keep a server, on which others have licenses, from starting.
func pinnedErrors(list []Pinned) []error {
	errs := make([]error, len(list))
	seen := map[[sha256.Size]byte]int{}
	for i, p := range list {
		if _, err := p.read(); err != nil {
			errs[i] = err
			continue
		}
		hash := sha256.Sum256([]byte(p.AuthKey))
		if first := seen[hash]; first > 0 {
			errs[i] = fmt.Errorf("is listed already as license %d", first)
			continue
		}
		seen[hash] = i + 1
	}
	return errs
}

// listed is a license of the configuration, read.
type listed struct {
	grant  Grant
	issued time.Time
	// says tells that legacyForced was decided, by the license or beside it.
	says bool
}

// read turns the entry into what it grants. companyCode and iat may be missing: others do not write
// them.
func (p Pinned) read() (listed, error) {
	if p.CpCode == "" || p.AuthKey == "" {
		return listed{}, errors.New("cpCode and authKey are both needed")
	}
	if len(p.AuthKey) > maxToken || !tokenText(p.AuthKey) {
		return listed{}, fmt.Errorf("authKey is not a JWT of at most %d bytes", maxToken)
	}
	raw := claimSet{}
	_, parts, err := jwt.NewParser(jwt.WithStrictDecoding()).ParseUnverified(p.AuthKey, &raw)
	// An algorithm that we do not know is no matter here.
	if parts == nil || (err != nil && !errors.Is(err, jwt.ErrTokenUnverifiable)) {
		return listed{}, errors.New("authKey is not a JWT")
	}
	if isUserToken(p.AuthKey) {
		return listed{}, errors.New("authKey is a user token; a license is needed")
	}
	for name, missing := range map[string]string{"companyCode": `""`, "iat": "0"} {
		if !raw.has(name) {
			raw[name] = json.RawMessage(missing)
		}
	}
	if err := p.override(raw); err != nil {
		return listed{}, err
	}
	grant, issued, err := raw.grant()
	if err == nil && subtle.ConstantTimeCompare([]byte(grant.CpCode), []byte(p.CpCode)) != 1 {
		err = errors.New("cpCode is not the authCode in the authKey")
	}
	if err != nil {
		return listed{}, err
	}
	grant.Hash = sha256.Sum256([]byte(p.AuthKey))
	return listed{grant, issued, raw.has("legacyForced")}, nil
}

// override puts what stands beside the key into its claims, so that one set of rules judges both.
func (p Pinned) override(raw claimSet) error {
	var errs []error
	set := func(name string, given bool, value any) {
		if !given {
			return
		}
		text, err := json.Marshal(value)
		raw[name] = text
		errs = append(errs, err)
	}
	set("origins", p.Origins != nil, p.Origins)
	set("maxRooms", p.MaxRooms != nil, p.MaxRooms)
	set("relay", p.Relay != "", p.Relay)
	set("requireUserToken", p.RequireUserToken != nil, p.RequireUserToken)
	set("legacyForced", p.LegacyForced != nil, p.LegacyForced)
	return errors.Join(errs...)
}

// list notes the licenses of the configuration, which has been validated.
func (v *Verifier) list(all []Pinned) error {
	v.byHash, v.byCode = map[[sha256.Size]byte]listed{}, map[string][]listed{}
	for _, p := range all {
		l, err := p.read()
		if err != nil {
			return err
		}
		if !l.says {
			// The original's forced is for those who move here: no license of ours gets a weaker
			// rule by being listed.
			_, foreign := v.verify(p.AuthKey, licenseType, v.keys)
			l.grant.LegacyForced = foreign != nil
		}
		v.byHash[l.grant.Hash] = l
		v.byCode[l.grant.CpCode] = append(v.byCode[l.grant.CpCode], l)
	}
	return nil
}

// listedFor is the license that the configuration has for a tenant: the first that is valid now and
// not revoked. With several one can follow another without a gap.
func (v *Verifier) listedFor(cpCode string) (Grant, error) {
	reason := error(ErrNoLicense)
	for _, l := range v.byCode[cpCode] {
		if v.revoked.contains(l.grant.Hash) {
			continue
		}
		err := v.inTime(l)
		if err == nil {
			return l.grant, nil
		}
		if reason == ErrNoLicense {
			reason = err
		}
	}
	return Grant{}, reason
}
