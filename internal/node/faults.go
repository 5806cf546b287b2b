package node

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/ieum-rtc/ieum/internal/relay"
)

// Fault is what is wrong with one setting. Whoever took the setting from somewhere else, a file for example, can say where.
type Fault struct {
	Setting string // a flag such as "--listen", or a variable such as "IEUM_LICENSE_KEY"
	Err     error
}

// Error implements error.
func (f *Fault) Error() string { return f.Setting + ": " + f.Err.Error() }

// Unwrap returns what is wrong, without the setting.
func (f *Fault) Unwrap() error { return f.Err }

// blame makes a Fault of each error that is joined in err; nil stays nil.
func blame(setting string, err error) error {
	var faults []error
	for _, err := range Faults(err) {
		faults = append(faults, &Fault{setting, err})
	}
	return errors.Join(faults...)
}

// blamef is blame for a sentence.
func blamef(setting, format string, args ...any) error {
	return &Fault{setting, fmt.Errorf(format, args...)}
}

// Faults lists what is joined in err.
func Faults(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if _, single := err.(interface{ Unwrap() error }); !ok || single {
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, Faults(err)...)
	}
	return all
}

// list gathers faults; nil is none.
type list []error

func (l *list) add(errs ...error) {
	for _, err := range errs {
		*l = append(*l, Faults(err)...)
	}
}

func (l list) err() error { return errors.Join(l...) }

// has tells whether a setting is blamed already.
func (l list) has(setting string) bool {
	for _, err := range l {
		if f, ok := err.(*Fault); ok && f.Setting == setting {
			return true
		}
	}
	return false
}

// relaySettings names the settings from which the fields of relay.Config come. That of Listen and of Secret depends.
var relaySettings = map[string]string{
	"STUN": "--stun-listen", "Addresses": "--relay-ip", "MinPort": "--relay-ports", "AllowPeers": "--relay-allow-peer",
	"Quota.Session": "--relay-quota", "Quota.Tenant": "--relay-quota-license", "Quota.Source": "--relay-quota-address",
	"Quota.Total": "--relay-quota-total", "Bandwidth": "--relay-bandwidth",
	"SessionBandwidth": "--relay-bandwidth-session", "Linger": "--relay-linger", "Workers": "--relay-workers",
}

// blameRelay tells which settings the relay's faults come from.
func blameRelay(err error, listen, secret string) error {
	var faults []error
	for _, err := range Faults(err) {
		var f *relay.ConfigError
		if !errors.As(err, &f) {
			faults = append(faults, err)
			continue
		}
		setting := relaySettings[f.Field]
		switch f.Field {
		case "Listen":
			setting = listen
		case "Secret":
			setting = secret
		}
		if setting == "" {
			faults = append(faults, f.Err)
			continue
		}
		faults = append(faults, &Fault{setting, f.Err})
	}
	return errors.Join(faults...)
}

// blameListen is for an error of opening a relay's ports: TCP, or what the relay opens itself.
func blameListen(listen string, err error) error {
	if f := (*relay.ConfigError)(nil); errors.As(err, &f) {
		return blameRelay(err, listen, "")
	}
	return blame(listen, err)
}

// opened says what to do about an address that cannot be listened on; other errors stay as they are.
func opened(err error) error {
	var f *Fault
	if errors.As(err, &f) {
		return blame(f.Setting, opened(f.Err))
	}
	at := "the address"
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		at = op.Addr.String()
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use (%w): end the program that has it (ss -lntup shows it), or give another port", at, syscall.EADDRINUSE)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %w: ports below 1024 need a privilege. Run `setcap cap_net_bind_service=+ep` on this program, "+
			"or set AmbientCapabilities=CAP_NET_BIND_SERVICE in its systemd unit", at, syscall.EACCES)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this machine", strings.TrimSuffix(at, ":0"))
	}
	return err
}
