package node

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

// devLicense is what --dev makes so that somebody can try the server with nothing at hand: a key, and a license signed with it
// that the sample pages may fetch. With a data folder it is kept, and a restart changes nothing for pages that are open.
type devLicense struct {
	Key     string `json:"key"`
	CpCode  string `json:"cpCode"`
	AuthKey string `json:"authKey"`
}

const (
	devFile   = "dev-license.json"
	devCpCode = "DEV-LOCAL-01"
	devYears  = 10
)

// loadDevLicense reads what an earlier run kept, or makes a new key.
func loadDevLicense(dir string) (*devLicense, error) {
	d := &devLicense{}
	if dir != "" {
		b, err := os.ReadFile(filepath.Join(dir, devFile))
		if err == nil {
			if err := json.Unmarshal(b, d); err != nil || len(d.Key) < 32 {
				return nil, errors.New(devFile + " is damaged: delete it to get a new license")
			}
			return d, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	key := make([]byte, 36)
	_, _ = rand.Read(key) // never fails
	d.Key = base64.StdEncoding.EncodeToString(key)
	return d, nil
}

// issue signs the license unless a kept one is still good, and keeps it.
func (d *devLicense) issue(v *license.Verifier, dir string, write bool) error {
	if d.AuthKey != "" {
		if _, err := v.Check(d.CpCode, d.AuthKey); err == nil {
			return nil
		}
	}
	now := time.Now()
	token, err := v.Issue(license.Params{
		Name: "Development", CpCode: devCpCode, CompanyCode: "DEV", MaxUser: 1000,
		Start: now.Add(-24 * time.Hour), End: now.AddDate(devYears, 0, 0),
	})
	if err != nil {
		return prefix("dev license", err)
	}
	d.CpCode, d.AuthKey = devCpCode, token
	if dir == "" || d.Key == "" || !write {
		return nil
	}
	b, err := json.Marshal(d)
	if err != nil {
		return prefix("dev license", err)
	}
	return prefix("dev license", os.WriteFile(filepath.Join(dir, devFile), b, 0o600))
}
