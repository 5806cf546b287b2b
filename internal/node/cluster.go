package node

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/ieum-rtc/ieum/internal/cluster"
	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

const (
	// joinWait is how long a start waits for other nodes, if there are sessions to restore: their
	// user ids must be claimed.
	joinWait = 15 * time.Second
	// leaveTimeout bounds how long a stop waits for the consent of the others.
	leaveTimeout = 2 * time.Second
)

// openCluster connects this node to others, if there are to be any.
func (n *Node) openCluster(cfg *signaling.Config) (err error) {
	p := n.plan.Cluster
	if p == nil {
		local := engine.NewLocal(cfg.Node)
		cfg.Directory, cfg.Bus = local, local
		return nil
	}
	n.fingerprints.Store(fingerprints(n.plan))
	n.others, err = cluster.Open(cluster.Config{
		Node:         p.Node,
		Listen:       p.Listen,
		Peers:        p.Peers,
		Expect:       p.Expect,
		Identity:     p.Identity,
		NATS:         p.NATS,
		NATSTLS:      p.NATSTLS,
		Version:      n.plan.Config.Version,
		Fingerprints: func() []string { return *n.fingerprints.Load() },
		Log:          n.log,
	})
	if err != nil {
		return config.ListenError("--cluster-listen", err)
	}
	cfg.Node = p.Node
	cfg.Directory, cfg.Bus = n.others.Directory(), n.others.Bus()
	if n.store == nil {
		return nil
	}
	select {
	case <-n.others.Joined():
	case <-time.After(joinWait):
		n.log.Warn("sessions are not restored: this node has not found its cluster",
			"reason", n.others.Ready())
	}
	return nil
}

// fingerprints tell nodes with different license signing keys apart, and nothing about the keys.
func fingerprints(p *config.ServerPlan) *[]string {
	var all []string
	for _, derived := range p.Licenses.DeriveAll("cluster fingerprint", 8) {
		all = append(all, hex.EncodeToString(derived))
	}
	return &all
}

// ClusterAddr is the address for other nodes; empty: none.
func (n *Node) ClusterAddr() string {
	if n.others == nil {
		return ""
	}
	return n.others.Addr()
}

func (n *Node) closeCluster() error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	return n.others.Close(ctx)
}

// reloadCluster has new connections between nodes use what a reload has read.
func (n *Node) reloadCluster(p *config.ServerPlan) error {
	if n.others == nil || p.Cluster == nil {
		return nil
	}
	n.fingerprints.Store(fingerprints(p))
	return n.others.Reload(p.Cluster.Identity)
}
