package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/license"
)

type licenseCmd struct {
	Keygen    keygenCmd    `cmd:"" help:"Create a file with a new license signing key."`
	Issue     issueCmd     `cmd:"" help:"Issue a license (authKey) for a tenant (cpCode)."`
	UserToken userTokenCmd `cmd:"" help:"Issue a user token for testing; in production the backend of the tenant issues them."`
	Hash      hashCmd      `cmd:"" help:"Print the line that revokes a license or user token, for the file of --revocation-list."`
	Inspect   inspectCmd   `cmd:"" help:"Show what a license or user token contains, and verify it with the license signing key."`
}

type keygenCmd struct {
	File string `arg:"" optional:"" default:"license-signing.key" placeholder:"FILE" help:"File to create (default ${default}); an existing file is never overwritten."`
}

// Run writes a new key, readable by its owner only.
func (k *keygenCmd) Run(c *console) error {
	f, err := os.OpenFile(k.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf(
			"%s exists and is not overwritten: licenses signed with its key would become invalid",
			k.File,
		)
	}
	if err != nil {
		return err
	}
	key := make([]byte, 36)
	_, _ = rand.Read(key) // never fails
	_, err = fmt.Fprintln(f, base64.StdEncoding.EncodeToString(key))
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(k.File))
	}
	fmt.Fprintf(c.out, "Wrote a new license signing key to %s.\n"+
		"Keep it secret and back it up: without it every license has to be issued again.\n", k.File)
	return nil
}

type issueCmd struct {
	LicenseSigningKeyFile string   `help:"File with the license signing key; or IEUM_LICENSE_SIGNING_KEY." placeholder:"FILE"`
	CpCode                string   `required:"" help:"Code of the tenant, which applications pass to init." placeholder:"CODE"`
	Name                  string   `help:"Name of the tenant (default: its code)." placeholder:"NAME"`
	CompanyCode           string   `help:"Company code (default: the code of the tenant)." placeholder:"CODE"`
	MaxUser               int      `default:"100" help:"Concurrent users." placeholder:"N"`
	Start                 string   `help:"First day, UTC (default: today)." placeholder:"YYYY-MM-DD"`
	End                   string   `help:"Last day, UTC, inclusive (default: in one year)." placeholder:"YYYY-MM-DD"`
	Origin                []string `help:"Origin that may use the license, such as https://example.com; repeatable (default: all)." placeholder:"ORIGIN"`
	MaxRooms              int      `help:"Concurrent rooms (default: unlimited)." placeholder:"N"`
	Relay                 string   `default:"all" enum:"all,none" help:"Whether media may be relayed: all or none."`
	RequireUserToken      bool     `help:"Require a user token of the tenant backend in addition to the license."`
	JSON                  bool     `help:"Print JSON."`

	issued issued // by check
}

// issued is the output of issue; with --json in this form. Grants has what the license grants.
type issued struct {
	CpCode       string `json:"cpCode"`
	AuthKey      string `json:"authKey"`
	UserTokenKey string `json:"userTokenKey"`

	Grants struct {
		First            string   `json:"startDate"` // days, UTC; both count in full
		Last             string   `json:"endDate"`
		MaxUser          int      `json:"maxUser"`
		MaxRooms         int      `json:"maxRooms,omitempty"`
		Origins          []string `json:"origins,omitempty"`
		Relay            string   `json:"relay"`
		RequireUserToken bool     `json:"requireUserToken"`
	} `json:"grants"`
}

// check makes the license, and reports all errors at once.
func (i *issueCmd) check() error {
	var errs []error
	p := license.Params{
		Name:        cmp.Or(i.Name, i.CpCode),
		CpCode:      i.CpCode,
		CompanyCode: cmp.Or(i.CompanyCode, i.CpCode),
		MaxUser:     i.MaxUser,
		Origins:     i.Origin,
		MaxRooms:    i.MaxRooms,
		Relay:       i.Relay,

		RequireUserToken: i.RequireUserToken,
	}
	if strings.ContainsFunc(i.CpCode, unicode.IsSpace) {
		errs = append(errs, fmt.Errorf(
			"--cp-code: %q contains white space, which applications would have to repeat exactly",
			i.CpCode,
		))
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	var startErr, endErr error
	p.Start, startErr = day("--start", i.Start, today)
	last, endErr := day("--end", i.End, today.AddDate(1, 0, 0))
	p.End = last.AddDate(0, 0, 1) // the last day counts whole
	v, keyErr := withKeyOf(i.LicenseSigningKeyFile)
	errs = append(errs, startErr, endErr, keyErr)
	if keyErr != nil { // reported already; any key shows the other errors
		v, _ = license.New(
			license.Config{Keys: [][]byte{[]byte("a key that signs nothing anybody gets")}},
		)
	}
	token, err := v.Issue(p)
	for _, err := range config.Errors(err) {
		errs = append(errs, i.blame(err, startErr != nil || endErr != nil))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	i.issued = issued{
		CpCode:       i.CpCode,
		AuthKey:      token,
		UserTokenKey: base64.StdEncoding.EncodeToString(v.UserTokenKey(i.CpCode)),
	}
	g := &i.issued.Grants
	g.First, g.Last = p.Start.Format(time.DateOnly), last.Format(time.DateOnly)
	g.MaxUser, g.MaxRooms, g.Origins = i.MaxUser, i.MaxRooms, i.Origin
	g.Relay, g.RequireUserToken = i.Relay, i.RequireUserToken
	return nil
}

// claimFlags are the flags that claims of a license come from.
var claimFlags = map[string]string{
	"authCode":    "--cp-code",
	"name":        "--name",
	"companyCode": "--company-code",
	"maxUser":     "--max-user",
	"startDate":   "--start",
	"endDate":     "--end",
	"origins":     "--origin",
	"maxRooms":    "--max-rooms",
	"relay":       "--relay",
}

// blame returns the flag that a wrong claim comes from. Unreadable dates and a missing code are
// reported elsewhere.
func (i *issueCmd) blame(err error, daysUnread bool) error {
	claim, rest, _ := strings.Cut(err.Error(), " ")
	flag, ok := claimFlags[claim]
	if (daysUnread && (flag == "--start" || flag == "--end")) ||
		(i.CpCode == "" && (flag == "--cp-code" || flag == "--name" || flag == "--company-code")) {
		return nil
	}
	if !ok {
		return err
	}
	return fmt.Errorf("%s: %s", flag, strings.ReplaceAll(rest, "startDate", "--start"))
}

// Run prints the license that check has made, what it grants, and the key with which the tenant's
// backend signs user tokens.
func (i *issueCmd) Run(c *console) error {
	out := i.issued
	if i.JSON {
		return json.NewEncoder(c.out).Encode(out)
	}
	fmt.Fprintf(c.out, "cpCode          %s\nauthKey         %s\n", out.CpCode, out.AuthKey)
	fmt.Fprintf(
		c.out,
		"userTokenKey    %s\n(base64; secret of the tenant backend, which signs user tokens; "+
			"cpCode and authKey are public)\n\n",
		out.UserTokenKey,
	)
	row := func(name, text string) { fmt.Fprintf(c.out, "%-15s %s\n", name, text) }
	row(
		"valid",
		fmt.Sprintf("%s to %s, UTC, inclusive (--start, --end)", out.Grants.First, out.Grants.Last),
	)
	row("users", fmt.Sprintf("%d concurrently (--max-user)", out.Grants.MaxUser))
	rooms := "unlimited (--max-rooms)"
	if n := out.Grants.MaxRooms; n != 0 {
		rooms = fmt.Sprintf("%d concurrently (--max-rooms)", n)
	}
	row("rooms", rooms)
	row("origins", cmp.Or(strings.Join(out.Grants.Origins, " "), "all")+" (--origin)")
	row("relay", out.Grants.Relay+" (--relay)")
	if out.Grants.RequireUserToken {
		row("user tokens", "required in addition to the license")
	}
	return nil
}

// withKeyOf reads the license signing key from the file, or from the environment without one.
func withKeyOf(file string) (*license.Verifier, error) {
	text, from := []byte(os.Getenv("IEUM_LICENSE_SIGNING_KEY")), "IEUM_LICENSE_SIGNING_KEY"
	if file != "" {
		var err error
		from = "--license-signing-key-file"
		if text, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
	}
	keys := license.ParseKeys(text)
	if len(keys) == 0 && file != "" {
		return nil, fmt.Errorf("%s: contains no key", from)
	}
	if len(keys) == 0 {
		return nil, errNoKey
	}
	v, err := license.New(license.Config{Keys: keys})
	var errs []error
	for _, err := range config.Errors(err) {
		errs = append(errs, fmt.Errorf("%s: %w", from, err))
	}
	return v, errors.Join(errs...)
}

var errNoKey = errors.New("a license signing key is required: " +
	"--license-signing-key-file or IEUM_LICENSE_SIGNING_KEY")

func day(flag, text string, fallback time.Time) (time.Time, error) {
	if text == "" {
		return fallback, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return t, fmt.Errorf("%s: %q is not a day of the form YYYY-MM-DD", flag, text)
	}
	return t, nil
}

type userTokenCmd struct {
	LicenseSigningKeyFile string   `help:"File with the license signing key; or IEUM_LICENSE_SIGNING_KEY." placeholder:"FILE"`
	CpCode                string   `required:"" help:"Code of the tenant." placeholder:"CODE"`
	User                  string   `required:"" help:"User id that the token is valid for." placeholder:"ID"`
	Name                  string   `help:"Display name, unless the page sets another." placeholder:"NAME"`
	Room                  []string `help:"Room id that the user may create and join; repeatable (default: all)." placeholder:"ID"`
	Host                  bool     `help:"Make the user host of every room it joins."`
	Minutes               int      `default:"60" help:"Minutes until the token expires." placeholder:"N"`
	AuthKey               string   `help:"License that the token refers to (default: the one that --licenses of the server lists for the tenant)." placeholder:"LICENSE"`

	token string // by check
}

// check makes the token, and reports all errors at once.
func (u *userTokenCmd) check() error {
	v, err := withKeyOf(u.LicenseSigningKeyFile)
	var minutes error
	if u.Minutes < 1 {
		minutes = fmt.Errorf("--minutes: %d is not at least 1", u.Minutes)
	}
	if err != nil || minutes != nil {
		return errors.Join(err, minutes)
	}
	u.token, err = v.IssueUser(license.UserParams{
		CpCode: u.CpCode, ID: u.User, Name: u.Name, Rooms: u.Room, Host: u.Host, License: u.AuthKey,
		Expires: time.Now().Add(time.Duration(u.Minutes) * time.Minute),
	})
	return err
}

// Run prints nothing but the token on standard output, for scripts.
func (u *userTokenCmd) Run(c *console) error {
	if u.AuthKey == "" {
		fmt.Fprintln(c.err, "Note: the token refers to no license. It is valid only where "+
			"--licenses lists one for this cpCode. Otherwise set --auth-key.")
	}
	fmt.Fprintln(c.out, u.token)
	return nil
}

type inspectCmd struct {
	LicenseSigningKeyFile string `help:"File with the license signing key; or IEUM_LICENSE_SIGNING_KEY (default: none, the signature is not verified)." placeholder:"FILE"`
	AuthKey               string `arg:"" optional:"" help:"License or user token; read from standard input if omitted or -."`

	verifier *license.Verifier // by check; nil without a key
}

func (i *inspectCmd) check() (err error) {
	if i.verifier, err = withKeyOf(i.LicenseSigningKeyFile); errors.Is(err, errNoKey) {
		return nil
	}
	return err
}

// Run prints the claims. It fails if a server with the license signing key would refuse them now.
func (i *inspectCmd) Run(c *console) error {
	text, err := tokenFrom(i.AuthKey)
	if err != nil {
		return err
	}
	inspect := license.Inspect
	if i.verifier != nil {
		inspect = i.verifier.Inspect
	}
	claims, err := inspect(text)
	if err != nil {
		return err
	}
	fmt.Fprint(c.out, claims)
	if claims.Refused != nil {
		return fmt.Errorf("a server with this license signing key refuses it: %w", claims.Refused)
	}
	return nil
}

// tokenFrom is the token from the command line or standard input.
func tokenFrom(text string) (string, error) {
	if text == "" || text == "-" {
		var b bytes.Buffer
		if _, err := b.ReadFrom(os.Stdin); err != nil {
			return "", err
		}
		text = b.String()
	}
	return strings.TrimSpace(text), nil
}

type hashCmd struct {
	AuthKey string `arg:"" optional:"" help:"License or user token; read from standard input if omitted or -."`
}

// Run prints the hash of the token, and whose it is as a comment. An invalid token has a hash too:
// a server may accept it, since licenses issued elsewhere can be listed.
func (h *hashCmd) Run(c *console) error {
	text, err := tokenFrom(h.AuthKey)
	if err != nil {
		return err
	}
	claims, err := license.Inspect(text)
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
