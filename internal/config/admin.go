package config

import (
	"bytes"
	"errors"
	"log/slog"

	"github.com/ieum-rtc/ieum/internal/admin"
)

// AdminSettings configure the admin listener.
type AdminSettings struct {
	// Listen is a TCP address; "off": none. Default "127.0.0.1:7103", if it is free.
	Listen string
	// Token is the bearer token of requests; required unless Listen is on loopback.
	Token, TokenFile string
	// Profile also serves profiles of the Go runtime.
	Profile bool
}

const adminListen = loopback + ":7103"

// plan returns the configuration of the listener; nil: none.
func (s AdminSettings) plan(log *slog.Logger) (*admin.Config, error) {
	if s.Listen == "off" {
		return nil, nil
	}
	var errs list
	text, from, err := secret("--admin-token-file", s.TokenFile, "IEUM_ADMIN_TOKEN", s.Token)
	errs.add(err)
	c := &admin.Config{
		Listen:   literal(s.Listen, loopback),
		Token:    bytes.TrimSpace(text),
		Profile:  s.Profile,
		Optional: s.Listen == "",
		Log:      log,
	}
	if s.Listen == "" {
		c.Listen = adminListen
	}
	errs.add(checkListen("--admin-listen", c.Listen))
	if len(errs) > 0 {
		return nil, errs.err()
	}
	err = c.Validate()
	if errors.Is(err, admin.ErrToken) && from != "" {
		return c, Blame(from, err)
	}
	return c, Blame("--admin-listen", err)
}
