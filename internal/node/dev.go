package node

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ieum-rtc/ieum/internal/admin"
	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/transport/socketio"
)

// devLicense is what --dev makes so that somebody can try the server with nothing at hand: a key, and a license signed with it
// that the sample pages may fetch. It is kept in the data folder or else in DevFolder, and a restart changes nothing for pages that
// are open.
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

// loadDev reads what an earlier run kept, or makes a new key. What is wrong in DevFolder, which nobody asked for, is no fault.
func (p *plan) loadDev() (*devLicense, error) {
	if p.Data != "" {
		return loadDevLicense(p.Data)
	}
	d, err := loadDevLicense(p.DevFolder)
	if err != nil {
		p.Log.Warn("the license of --dev is a new one: that of an earlier run cannot be read", "folder", p.DevFolder, "error", err)
		return loadDevLicense("")
	}
	return d, nil
}

// keepDevLicense issues the license and keeps it where that is wanted.
func (p *plan) keepDevLicense(write bool) error {
	if p.Data != "" || p.DevFolder == "" || !write {
		return p.dev.issue(p.licenses, p.Data, write)
	}
	err := os.MkdirAll(p.DevFolder, 0o700)
	if err == nil {
		err = p.dev.issue(p.licenses, p.DevFolder, write)
	}
	if err == nil {
		return nil
	}
	p.Log.Warn("the license of --dev is not kept: a restart will end its sessions", "folder", p.DevFolder, "error", err)
	return p.dev.issue(p.licenses, "", false)
}

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
	return prefix("dev license", replaceFile(filepath.Join(dir, devFile), b))
}

// replaceFile writes a file for its owner alone, whole or not at all: two servers may start at the same time.
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

// ownNames refuses requests for what is there with --dev alone, unless they name this machine: a page of the web could point a name of
// its own here, and read the license. On loopback, where nobody else could come, it must not get a connection either, of which no
// origin is looked at.
func (n *Node) ownNames(next http.Handler) http.Handler {
	var names []string
	if name, err := os.Hostname(); err == nil {
		names = append(names, name, name+".local")
	}
	if n.plan.PublicHost != "" {
		names = append(names, n.plan.PublicHost)
	}
	loopback := n.Addr().Addr().IsLoopback()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.URL.Path
		guarded := strings.HasPrefix(p, "/dev/") || loopback && (p == "/signal" || strings.HasPrefix(p, socketio.Path))
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		own := admin.ByAddress(r.Host) || slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, host) })
		if guarded && !own {
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "With --dev ask by address, or by the name of this machine: "+
				"this name is not known here. --public-host makes one known.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
