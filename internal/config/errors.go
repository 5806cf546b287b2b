package config

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/ieum-rtc/ieum/internal/relay"
)

// Error says what is wrong with one setting. A caller that took the setting from a file, for
// example, can replace Setting by the place in it.
type Error struct {
	Setting string // a flag such as "--listen", or a variable such as "IEUM_LICENSE_SIGNING_KEY"
	Err     error
}

// Error implements error.
func (e *Error) Error() string { return e.Setting + ": " + e.Err.Error() }

// Unwrap returns what is wrong, without the setting.
func (e *Error) Unwrap() error { return e.Err }

// Blame makes an Error of each error joined in err; nil stays nil.
func Blame(setting string, err error) error {
	var errs []error
	for _, err := range Errors(err) {
		errs = append(errs, &Error{setting, err})
	}
	return errors.Join(errs...)
}

// blamef is Blame for a new error.
func blamef(setting, format string, args ...any) error {
	return &Error{setting, fmt.Errorf(format, args...)}
}

// Errors lists the errors joined in err.
func Errors(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if _, single := err.(interface{ Unwrap() error }); !ok || single {
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, Errors(err)...)
	}
	return all
}

// list collects errors.
type list []error

func (l *list) add(errs ...error) {
	for _, err := range errs {
		*l = append(*l, Errors(err)...)
	}
}

// err joins the errors; nil without any.
func (l list) err() error { return errors.Join(l...) }

// blames reports whether an error of a setting is in the list.
func (l list) blames(setting string) bool {
	for _, err := range l {
		if e, ok := err.(*Error); ok && e.Setting == setting {
			return true
		}
	}
	return false
}

// relaySettings maps fields of relay.Config to settings; those of Listen and Secret depend on the
// command.
var relaySettings = map[string]string{
	"STUN":             "--stun-listen",
	"Addresses":        "--relay-ip",
	"MinPort":          "--relay-ports",
	"AllowPeers":       "--relay-allow-peer",
	"Quota.Session":    "--relay-quota",
	"Quota.Tenant":     "--relay-quota-per-license",
	"Quota.Source":     "--relay-quota-per-address",
	"Quota.Total":      "--relay-quota-total",
	"Bandwidth":        "--relay-bandwidth",
	"SessionBandwidth": "--relay-bandwidth-per-session",
	"Coalesce":         "--relay-coalesce",
	"Workers":          "--relay-workers",
}

// blameRelay maps errors of relay.Config to settings.
func blameRelay(err error, listen, secret string) error {
	var errs []error
	for _, err := range Errors(err) {
		var e *relay.ConfigError
		if !errors.As(err, &e) {
			errs = append(errs, err)
			continue
		}
		setting := relaySettings[e.Field]
		switch e.Field {
		case "Listen":
			setting = listen
		case "Secret":
			setting = secret
		}
		if setting == "" {
			errs = append(errs, e.Err)
			continue
		}
		errs = append(errs, &Error{setting, e.Err})
	}
	return errors.Join(errs...)
}

// ListenError maps an error of opening the sockets of a setting, or those of a relay, to the
// setting and says what to do about it; nil stays nil.
func ListenError(setting string, err error) error {
	if e := (*relay.ConfigError)(nil); errors.As(err, &e) {
		return explainListen(blameRelay(err, setting, ""))
	}
	return explainListen(Blame(setting, err))
}

// explainListen says what to do about an address that cannot be listened on. Other errors stay as
// they are.
func explainListen(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return Blame(e.Setting, explainListen(e.Err))
	}
	at := "the address"
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		at = op.Addr.String()
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf(
			"%s is in use (%w): stop the program that uses it (see ss -lntup), "+
				"or choose another port",
			at, syscall.EADDRINUSE,
		)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %w: ports below 1024 need a privilege. "+
			"Run `setcap cap_net_bind_service=+ep` on this program, "+
			"or set AmbientCapabilities=CAP_NET_BIND_SERVICE in its systemd unit",
			at, syscall.EACCES)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this machine", strings.TrimSuffix(at, ":0"))
	}
	return err
}
