package cluster

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ieum-rtc/ieum/internal/cluster/directory"
	"github.com/ieum-rtc/ieum/internal/cluster/streamlog"
)

const (
	externalPing    = 2 * time.Second
	externalPings   = 2
	externalTimeout = 2 * time.Second
)

// openExternal meets other nodes at NATS servers, which need not be there yet.
func (n *Cluster) openExternal(self *directory.Self) (err error) {
	options := []nats.Option{
		nats.Name(n.cfg.Node + "-" + strconv.FormatUint(self.Process, 16)),
		nats.NoEcho(),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.ReconnectBufSize(-1), // what cannot be sent now is lost
		nats.Timeout(externalTimeout),
		nats.PingInterval(externalPing),
		nats.MaxPingsOutstanding(externalPings),
		nats.ErrorHandler(n.natsError),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				n.cfg.Log.Warn("connection to NATS lost; trying again", "error", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) {
			n.cfg.Log.Info("connected to NATS again", "server", c.ConnectedUrlRedacted())
		}),
	}
	if n.cfg.NATSTLS != nil {
		options = append(options, nats.Secure(n.cfg.NATSTLS))
	}
	if n.conn, err = nats.Connect(strings.Join(n.cfg.NATS, ","), options...); err != nil {
		// The error may repeat the password of a URL.
		return errors.New("the URLs of NATS are not usable")
	}
	l, err := streamlog.Start(streamlog.Config{
		Node:         n.cfg.Node,
		Process:      self.Process,
		Machine:      n.machine,
		Conn:         n.conn,
		Prefix:       prefix,
		Version:      n.cfg.Version,
		Fingerprints: n.cfg.Fingerprints,
		Log:          n.cfg.Log,
	})
	if err == nil {
		n.log = l
	}
	return err
}
