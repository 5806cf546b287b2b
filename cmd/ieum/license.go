package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

type licenseCmd struct {
	Issue     issueCmd     `cmd:"" help:"Make a license (authKey) for a tenant (cpCode)."`
	UserToken userTokenCmd `cmd:"" help:"Make a user token, for trying: a tenant's backend makes its own."`
	Hash      hashCmd      `cmd:"" help:"Print the line that revokes a license or a user token in the file of --license-revoked."`
	Inspect   inspectCmd   `cmd:"" help:"Show what a license or a user token says, without checking its signature."`
}

type issueCmd struct {
	LicenseKeyFile   string   `help:"File with the secret that signs licenses; or IEUM_LICENSE_KEY." placeholder:"FILE"`
	CpCode           string   `required:"" help:"The tenant's code, as applications pass it to init." placeholder:"CODE"`
	Name             string   `help:"Name of the tenant (default: its code)." placeholder:"NAME"`
	CompanyCode      string   `help:"Company code (default: the tenant's code)." placeholder:"CODE"`
	MaxUser          int      `default:"100" help:"Users at the same time." placeholder:"N"`
	Start            string   `help:"First day, UTC (default: today)." placeholder:"YYYY-MM-DD"`
	End              string   `help:"Last day, UTC, included (default: in one year)." placeholder:"YYYY-MM-DD"`
	Origin           []string `help:"Origin whose pages may use the license, like https://example.com; repeatable (default: all)." placeholder:"ORIGIN"`
	MaxRooms         int      `help:"Rooms at the same time (default: no limit)." placeholder:"N"`
	Relay            string   `default:"all" enum:"all,none" help:"Whether calls may be relayed: all or none."`
	RequireUserToken bool     `help:"Admit nobody with the license alone: each user needs a token of the tenant's backend."`
	JSON             bool     `help:"Print JSON."`
}

// issued is what issue prints with --json.
type issued struct {
	CpCode       string `json:"cpCode"`
	AuthKey      string `json:"authKey"`
	UserTokenKey string `json:"userTokenKey"`
}

// Run prints the license and the key with which the tenant's backend signs user tokens.
func (i *issueCmd) Run(c *console) error {
	p := license.Params{
		Name: i.Name, CpCode: i.CpCode, CompanyCode: i.CompanyCode, MaxUser: i.MaxUser, Origins: i.Origin, MaxRooms: i.MaxRooms, Relay: i.Relay,
		RequireUserToken: i.RequireUserToken,
	}
	if p.Name == "" {
		p.Name = i.CpCode
	}
	if p.CompanyCode == "" {
		p.CompanyCode = i.CpCode
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	var err error
	if p.Start, err = day("--start", i.Start, today); err != nil {
		return err
	}
	if p.End, err = day("--end", i.End, today.AddDate(1, 0, 0)); err != nil {
		return err
	}
	p.End = p.End.AddDate(0, 0, 1) // the last day counts whole
	v, err := i.verifier()
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	token, err := v.Issue(p)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	out := issued{i.CpCode, token, base64.StdEncoding.EncodeToString(v.UserTokenKey(i.CpCode))}
	if i.JSON {
		return json.NewEncoder(c.out).Encode(out)
	}
	fmt.Fprintf(c.out, "cpCode          %s\nauthKey         %s\n", out.CpCode, out.AuthKey)
	fmt.Fprintf(c.out, "userTokenKey    %s\n(base64; keep it on the tenant's backend, it signs user tokens; cpCode and authKey are public)\n", out.UserTokenKey)
	return nil
}

func (i *issueCmd) verifier() (*license.Verifier, error) { return withKeyOf(i.LicenseKeyFile) }

// withKeyOf takes the license key from the file, or from the environment when none is given.
func withKeyOf(file string) (*license.Verifier, error) {
	text := []byte(os.Getenv("IEUM_LICENSE_KEY"))
	if file != "" {
		var err error
		if text, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("--license-key-file: %w", err)
		}
	}
	keys := license.ParseKeys(text)
	if len(keys) == 0 {
		return nil, fmt.Errorf("a license key is required: --license-key-file or IEUM_LICENSE_KEY")
	}
	return license.New(license.Config{Keys: keys})
}

func day(flag, text string, fallback time.Time) (time.Time, error) {
	if text == "" {
		return fallback, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return t, fmt.Errorf("%w: %s: %q is not of the form YYYY-MM-DD", errUsage, flag, text)
	}
	return t, nil
}

type userTokenCmd struct {
	LicenseKeyFile string   `help:"File with the secret that signs licenses; or IEUM_LICENSE_KEY." placeholder:"FILE"`
	CpCode         string   `required:"" help:"The tenant's code." placeholder:"CODE"`
	User           string   `required:"" help:"The user id that the token is good for." placeholder:"ID"`
	Name           string   `help:"Name that others see, unless the page gives another." placeholder:"NAME"`
	Room           []string `help:"Room id that the user may create and enter; repeatable (default: all)." placeholder:"ID"`
	Host           bool     `help:"Make the user host of each room it enters."`
	Minutes        int      `default:"60" help:"How long the token lets the user in." placeholder:"N"`
	AuthKey        string   `help:"The license that the token names (default: the one that the server's --licenses has for the tenant)." placeholder:"LICENSE"`
}

// Run prints the token alone, so that it can be handed on.
func (u *userTokenCmd) Run(c *console) error {
	v, err := withKeyOf(u.LicenseKeyFile)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if u.Minutes < 1 {
		return fmt.Errorf("%w: --minutes: %d is not at least 1", errUsage, u.Minutes)
	}
	token, err := v.IssueUser(license.UserParams{
		CpCode: u.CpCode, ID: u.User, Name: u.Name, Rooms: u.Room, Host: u.Host, License: u.AuthKey,
		Expires: time.Now().Add(time.Duration(u.Minutes) * time.Minute),
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if u.AuthKey == "" {
		fmt.Fprintln(c.err, "Note: the token names no license. It is good where --licenses lists one for this cpCode; else give --auth-key.")
	}
	fmt.Fprintln(c.out, token)
	return nil
}

type inspectCmd struct {
	AuthKey string `arg:"" optional:"" help:"The license or user token; - or nothing reads it from standard input."`
}

// Run prints the claims.
func (i *inspectCmd) Run(c *console) error {
	claims, err := inspect(i.AuthKey)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.out, claims)
	return nil
}

// inspect reads a token from the command line or from standard input.
func inspect(text string) (license.Claims, error) {
	if text == "" || text == "-" {
		var b bytes.Buffer
		if _, err := b.ReadFrom(os.Stdin); err != nil {
			return license.Claims{}, err
		}
		text = b.String()
	}
	return license.Inspect(strings.TrimSpace(text))
}

type hashCmd struct {
	AuthKey string `arg:"" optional:"" help:"The license or user token; - or nothing reads it from standard input."`
}

// Run prints the hash of the token as it is written, and beside it whose it is. A token with faults has a hash, too: the server that
// takes it may know better, since such licenses can be listed.
func (h *hashCmd) Run(c *console) error {
	claims, err := inspect(h.AuthKey)
	if err != nil {
		return err
	}
	what := strconv.Quote(claims.Grant.CpCode)
	switch {
	case claims.User != nil:
		what += ", a user token of " + strconv.Quote(claims.User.ID)
	case !claims.Grant.End.IsZero():
		what += ", ends " + claims.Grant.End.Format(time.RFC3339)
	}
	fmt.Fprintf(c.out, "%x # %s\n", claims.Grant.Hash, what)
	return nil
}
