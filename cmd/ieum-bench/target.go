package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/license"
)

// targetFlags say which signaling server is loaded.
type targetFlags struct {
	URL                   string `default:"ws://127.0.0.1:7102/signal" help:"WebSocket endpoint of the server, ws:// or wss:// (default ${default})." placeholder:"WS-URL"`
	Insecure              bool   `help:"With wss://, accept any certificate."`
	LicenseSigningKeyFile string `help:"File with the server's license signing key, to issue a license for the users; or IEUM_LICENSE_SIGNING_KEY." placeholder:"FILE"`
	DevLicense            string `help:"Use the license of a server started with --dev, http://HOST:PORT/dev/license; it allows 1,000 users." placeholder:"URL"`
	Conns                 int    `default:"1000" help:"Connections (default ${default})." placeholder:"N"`
	Size                  int    `default:"1500" help:"Bytes of a message (default ${default})." placeholder:"BYTES"`
	Sources               int    `help:"Loopback addresses to connect from, in rotation, from 127.0.0.2 on; Linux, with a server at 127.0.0.1 (default: one)." placeholder:"N"`
	PID                   int    `name:"pid" help:"Process ID of the server, if it runs on this machine: its CPU and memory are reported." placeholder:"PID"`
}

func (f *targetFlags) target() client.Target {
	return client.Target{
		URL:      f.URL,
		Insecure: f.Insecure,
		Conns:    f.Conns,
		Size:     f.Size,
		PID:      f.PID,
		Sources:  f.Sources,
	}
}

// license issues a license for so many users, or fetches that of a development server.
func (f *targetFlags) license(ctx context.Context, users int) (cpCode, authKey string, err error) {
	if f.DevLicense != "" {
		return fetchLicense(ctx, f.DevLicense)
	}
	v, err := verifier(f.LicenseSigningKeyFile)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w (or --dev-license)", errUsage, err)
	}
	const tenant = "BENCH"
	now := time.Now()
	key, err := v.Issue(license.Params{
		Name:        "Load",
		CpCode:      tenant,
		CompanyCode: tenant,
		// a user who logs in again may arrive before the server has noticed that the old
		// session ended
		MaxUser: 2*users + 1000,
		Start:   now.Add(-time.Hour),
		End:     now.Add(24 * time.Hour),
	})
	return tenant, key, err
}

// verifier signs with the key in a file or, if none is named, in IEUM_LICENSE_SIGNING_KEY.
func verifier(file string) (*license.Verifier, error) {
	text := []byte(os.Getenv("IEUM_LICENSE_SIGNING_KEY"))
	if file != "" {
		var err error
		if text, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("--license-signing-key-file: %w", err)
		}
	}
	keys := license.ParseKeys(text)
	if len(keys) == 0 {
		return nil, errors.New(
			"a license signing key is required: --license-signing-key-file " +
				"or IEUM_LICENSE_SIGNING_KEY",
		)
	}
	return license.New(license.Config{Keys: keys})
}

func fetchLicense(ctx context.Context, url string) (cpCode, authKey string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", "", fmt.Errorf("%w: --dev-license: %w", errUsage, err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", "", fmt.Errorf("--dev-license: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return "", "", fmt.Errorf(
			"--dev-license: %s: was this server started with --dev?",
			resp.Status,
		)
	}
	var d struct{ CpCode, AuthKey string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&d); err != nil {
		return "", "", fmt.Errorf("--dev-license: %w", err)
	}
	return d.CpCode, d.AuthKey, nil
}
