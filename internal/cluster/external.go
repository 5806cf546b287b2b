package cluster

import (
	"errors"

	"github.com/ieum-rtc/ieum/internal/cluster/directory"
)

// openExternal meets other nodes at NATS servers.
func (n *Cluster) openExternal(*directory.Self) error {
	return errors.New("--cluster-nats is not implemented: use --cluster-listen")
}
