package node

import (
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/config"
)

// A reload replaces what is read from files: the certificate, the license signing keys and the
// relay secret, the listed licenses and the revocation list. The whole configuration is read and
// checked as at a start, and applied only if there is no error anywhere: half a configuration is
// worse than yesterday's.

// reloads serializes and counts reloads.
type reloads struct {
	mu    sync.Mutex
	log   *slog.Logger
	count *prometheus.CounterVec
}

func newReloads(log *slog.Logger) *reloads {
	r := &reloads{log: log, count: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ieum_config_reloads_total",
		Help: "Reloads of the configuration by result.",
	}, []string{"result"})}
	for _, result := range []string{"success", "failure"} {
		r.count.WithLabelValues(result)
	}
	return r
}

func (r *reloads) warn(warnings error) {
	for _, w := range config.Errors(warnings) {
		r.log.Warn(w.Error())
	}
}

// do logs the result, since a signal has no other response. attrs are attributes of the log line.
func (r *reloads) do(reload func() (attrs []any, err error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	attrs, err := reload()
	if err != nil {
		r.count.WithLabelValues("failure").Inc()
		r.log.Error(
			"configuration reload failed; previous configuration remains active", "error", err,
		)
		return err
	}
	r.count.WithLabelValues("success").Inc()
	r.log.Info("configuration reloaded", attrs...)
	return nil
}

// Reload reads again what may change while the server runs. After an error nothing changes; the
// errors are logged, and returned together. Sessions and calls continue, except for those of
// revoked licenses.
func (n *Node) Reload() error {
	return n.reloads.do(func() ([]any, error) {
		p, err := n.plan.Config.Plan(n.plan, false)
		if err != nil {
			return nil, err
		}
		if n.relay != nil { // before anything changes, since it can fail
			if err := n.relay.RefreshAddresses(); err != nil {
				return nil, err
			}
		}
		if err := n.setRelaySecret(p.Relay.Secret); err != nil {
			return nil, err
		}
		if err := n.reloadCluster(p); err != nil {
			return nil, err
		}
		n.cert.Set(p.Cert)
		n.dev.Store(p.Dev)
		n.hub.Renew(p.Licenses, p.ResumeKeys())
		n.reloads.warn(p.Warnings())
		n.revoked.Reload() // not p.Revocations: a newer list may be in force by now
		return []any{"certificateNotAfter", n.cert.NotAfter(), "revoked", n.plan.Revoked.Len()}, nil
	})
}

// setRelaySecret sets the secret of relay credentials.
func (n *Node) setRelaySecret(secret []byte) error {
	if n.plan.External != nil {
		n.plan.External.SetSecret(secret)
		return nil
	}
	return n.relay.SetSecret(secret)
}

// Reload reads certificate and secret again; see Node.Reload.
func (n *Relay) Reload() error {
	return n.reloads.do(func() ([]any, error) {
		p, err := n.plan.Config.Plan()
		if err != nil {
			return nil, err
		}
		if err := n.relay.RefreshAddresses(); err != nil {
			return nil, err
		}
		if err := n.relay.SetSecret(p.Relay.Secret); err != nil {
			return nil, err
		}
		n.cert.Set(p.Cert)
		n.reloads.warn(p.Warnings())
		return []any{"certificateNotAfter", n.cert.NotAfter()}, nil
	})
}
