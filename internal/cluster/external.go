package cluster

import (
	"errors"

	"github.com/ieum-rtc/ieum/internal/cluster/directory"
)

// openExternal meets other nodes at NATS servers.
func (n *Cluster) openExternal(*directory.Self) error {
	return errors.New("this version cannot use NATS servers yet")
}
