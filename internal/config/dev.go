package config

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

// DevLicense is the license of --dev, which the sample pages may fetch, with the key that signed
// it. It is kept in Data or DevDir, so that open pages survive a restart.
type DevLicense struct {
	Key     string `json:"key"`
	CpCode  string `json:"cpCode"`
	AuthKey string `json:"authKey"`
}

const (
	devFile   = "dev-license.json"
	devCpCode = "DEV-LOCAL-01"
	devYears  = 10
)

// devLicense returns the license of the running server or of an earlier one, or makes a new key.
// Errors of DevDir, which nobody configured, are only logged.
func (p *ServerPlan) devLicense(running *ServerPlan) (*DevLicense, error) {
	c := &p.Config
	if running != nil {
		kept := *running.Dev
		return &kept, nil
	}
	if c.Data != "" {
		return loadDevLicense(c.Data)
	}
	d, err := loadDevLicense(c.DevDir)
	if err != nil {
		c.Log.Warn(
			"cannot read the development license; making a new one",
			"directory", c.DevDir, "error", err,
		)
		return loadDevLicense("")
	}
	return d, nil
}

// keepDevLicense issues the license, and writes it to Data or DevDir if write is set.
func (p *ServerPlan) keepDevLicense(write bool) error {
	c := &p.Config
	if c.Data != "" || c.DevDir == "" || !write {
		return p.Dev.issue(p.Licenses, c.Data, write)
	}
	err := os.MkdirAll(c.DevDir, 0o700)
	if err == nil {
		err = p.Dev.issue(p.Licenses, c.DevDir, write)
	}
	if err == nil {
		return nil
	}
	c.Log.Warn("cannot store the development license; a restart will end its sessions",
		"directory", c.DevDir, "error", err)
	return p.Dev.issue(p.Licenses, "", false)
}

// loadDevLicense reads the license in dir, or makes a new key.
func loadDevLicense(dir string) (*DevLicense, error) {
	d := &DevLicense{}
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

// issue signs the license, unless the one that was read is still valid, and writes it to dir.
func (d *DevLicense) issue(v *license.Verifier, dir string, write bool) error {
	if d.AuthKey != "" {
		if _, err := v.Check(d.CpCode, d.AuthKey); err == nil {
			return nil
		}
	}
	now := time.Now()
	token, err := v.Issue(license.Params{
		Name:        "Development",
		CpCode:      devCpCode,
		CompanyCode: "DEV",
		MaxUser:     1000,
		Start:       now.Add(-24 * time.Hour),
		End:         now.AddDate(devYears, 0, 0),
	})
	if err != nil {
		return fmt.Errorf("development license: %w", err)
	}
	d.CpCode, d.AuthKey = devCpCode, token
	if dir == "" || d.Key == "" || !write {
		return nil
	}
	b, err := json.Marshal(d)
	if err == nil {
		err = replaceFile(filepath.Join(dir, devFile), b)
	}
	if err != nil {
		return fmt.Errorf("development license: %w", err)
	}
	return nil
}

// replaceFile writes a file atomically, readable by its owner alone: two servers may start at the
// same time.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".ieum-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
