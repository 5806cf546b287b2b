package node

import (
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// What can change without a restart is what stands in files: the certificate with its key, the keys of licenses and of the relay, licenses
// that are listed with what stands beside them, and what is revoked. It is read and checked as at a start, with everything else, and
// taken over only if there is no fault anywhere: a server with half a configuration is worse than one with yesterday's.

// reloads counts them, and has one done at a time.
type reloads struct {
	one   sync.Mutex
	log   *slog.Logger
	count *prometheus.CounterVec
}

func newReloads(log *slog.Logger) *reloads {
	r := &reloads{log: log, count: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ieum_reloads_total", Help: "Reloads of the configuration: done, or refused because of faults.",
	}, []string{"result"})}
	for _, result := range []string{"done", "refused"} {
		r.count.WithLabelValues(result)
	}
	return r
}

func (r *reloads) warn(warnings error) {
	for _, w := range Faults(warnings) {
		r.log.Warn(w.Error())
	}
}

// do logs what came of it: nobody waits for the answer to a signal.
func (r *reloads) do(reload func() (what []any, err error)) error {
	r.one.Lock()
	defer r.one.Unlock()
	what, err := reload()
	if err != nil {
		r.count.WithLabelValues("refused").Inc()
		r.log.Error("configuration not reloaded: it has faults, and all is as before; fix them and try again", "faults", err)
		return err
	}
	r.count.WithLabelValues("done").Inc()
	r.log.Info("configuration reloaded", what...)
	return nil
}

// Reload reads again what may change while the server runs. With a fault everything stays as it is; the faults are logged, and returned
// together. Sessions and calls go on either way, but those of licenses that are revoked.
func (n *Node) Reload() error {
	return n.reloads.do(func() ([]any, error) {
		c := n.plan.Config
		c.running = n.plan
		p, err := c.plan(false)
		if err != nil {
			return nil, err
		}
		if n.relay != nil { // before anything changes, since it can fail
			if err := n.relay.RefreshAddresses(); err != nil {
				return nil, err
			}
		}
		if err := n.shareRelaySecret(p.relay.Secret); err != nil {
			return nil, err
		}
		n.cert.Set(p.cert)
		n.dev.Store(p.dev)
		n.hub.Renew(p.licenses, p.resumeKeys())
		n.reloads.warn(p.warnings())
		n.revoked.Reload() // not p.list: a newer one may be in force by now
		return []any{"certificateEnds", n.cert.NotAfter(), "revoked", n.plan.revoked.Len()}, nil
	})
}

// shareRelaySecret gives the secret to whoever makes credentials.
func (n *Node) shareRelaySecret(secret []byte) error {
	if n.plan.external != nil {
		n.plan.external.SetSecret(secret)
		return nil
	}
	return n.relay.SetSecret(secret)
}

// Reload reads certificate, key and secret again; see Node.Reload.
func (n *Relay) Reload() error {
	return n.reloads.do(func() ([]any, error) {
		p, err := n.plan.RelayConfig.plan()
		if err != nil {
			return nil, err
		}
		if err := n.relay.RefreshAddresses(); err != nil {
			return nil, err
		}
		if err := n.relay.SetSecret(p.relay.Secret); err != nil {
			return nil, err
		}
		n.cert.Set(p.cert)
		n.reloads.warn(p.warnings())
		return []any{"certificateEnds", n.cert.NotAfter()}, nil
	})
}
