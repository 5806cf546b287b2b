package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// drainPoll is how often a drain looks whether anything is left.
const drainPoll = 50 * time.Millisecond

// drain is the way of a node out of its cluster.
type drain struct {
	asked  chan struct{} // closed by ask
	ask    func()
	active prometheus.Gauge
	moved  *prometheus.CounterVec
}

func newDrain() *drain {
	d := &drain{
		asked: make(chan struct{}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ieum_cluster_draining",
			Help: "1 while this node drains.",
		}),
		moved: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ieum_cluster_drained_total",
			Help: "What a drain has moved to other nodes.",
		}, []string{"kind"}),
	}
	d.ask = sync.OnceFunc(func() { close(d.asked) })
	for _, kind := range []string{"connection", "room"} {
		d.moved.WithLabelValues(kind)
	}
	return d
}

// Drained is closed when the admin listener was asked to drain: whoever runs this node calls Drain
// and Close then.
func (n *Node) Drained() <-chan struct{} { return n.drain.asked }

// Drain has everything move to other nodes: rooms at once, then clients, spread over time, which
// come back to another node and resume. It returns when nothing is left, or when ctx is done after
// timeout. Without other nodes it does nothing.
func (n *Node) Drain(ctx context.Context, timeout time.Duration) {
	if n.others == nil {
		return
	}
	began := time.Now()
	n.drain.active.Set(1)
	if n.admin != nil {
		n.admin.SetDraining()
	}
	n.conns.Drain()
	n.log.Info("draining", "connections", n.conns.Open())
	err := n.handOverRooms(ctx, n.hub.Drain)
	if !errors.Is(err, signaling.ErrLastNode) {
		// Load balancers learn first that this node is not ready.
		n.sendAway(ctx, began.Add(timeout/10), timeout*4/10)
		n.awaitMoved(ctx, timeout/5)
	}
	stats := n.hub.Stats()
	n.log.Info("drained", "after", time.Since(began),
		"sessions", stats.Sessions, "rooms", stats.Rooms, "allocations", n.allocations())
}

// handOverRooms counts the rooms that move hands over.
func (n *Node) handOverRooms(
	ctx context.Context, move func(context.Context) (rooms int, err error),
) error {
	rooms, err := move(ctx)
	n.drain.moved.WithLabelValues("room").Add(float64(rooms))
	if err != nil {
		n.log.Warn("rooms not handed over", "error", err)
	}
	return err
}

// sendAway closes all connections, spread evenly over a time, and waits until they are closed.
func (n *Node) sendAway(ctx context.Context, from time.Time, over time.Duration) {
	told := map[transport.Conn]bool{}
	for all := n.connections(); len(all) > 0 && ctx.Err() == nil; all = n.connections() {
		for i, c := range all {
			if told[c] {
				continue
			}
			pause(ctx, time.Until(from.Add(over*time.Duration(i)/time.Duration(len(all)))))
			c.Close(transport.StatusGoingAway, "this server stops: reconnect")
			told[c] = true
			n.drain.moved.WithLabelValues("connection").Inc()
		}
		from, over = time.Now(), 0 // those that came just before the drain
		pause(ctx, drainPoll)
	}
}

func (n *Node) connections() []transport.Conn { return append(n.ws.Conns(), n.sio.Conns()...) }

// awaitMoved waits for sessions to be resumed elsewhere, which takes a moment, and hands over rooms
// that were created meanwhile. Then it waits until no call uses the relay.
func (n *Node) awaitMoved(ctx context.Context, resume time.Duration) {
	soon, cancel := context.WithTimeout(ctx, resume)
	defer cancel()
	for n.hub.Stats().Sessions > 0 && soon.Err() == nil {
		pause(soon, drainPoll)
	}
	_ = n.handOverRooms(ctx, n.hub.HandOverRooms) // the log says why not
	n.hub.AwaitDelivered(ctx)
	for n.allocations() > 0 && ctx.Err() == nil {
		pause(ctx, drainPoll)
	}
}

// allocations are those of the relay of this node.
func (n *Node) allocations() int {
	if n.relay == nil {
		return 0
	}
	return n.relay.Stats().Allocations
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
