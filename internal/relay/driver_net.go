package relay

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// netDriver moves packets with the net package: one read and one write for each. Every socket has a
// goroutine that reads from it and puts what comes into the worker's inbox.
type netDriver struct {
	worker    *worker
	listeners []*net.UDPConn // by listener.index
	readers   sync.WaitGroup
	woken     chan struct{}
}

// maxDatagram is what UDP can carry.
const maxDatagram = 65535

// newNetDrivers gives each worker a driver, and returns what opens listeners. One socket for each
// address makes answers leave from the address the request came to, on all systems alike. They
// cannot be shared between workers: the first has them all.
func (s *Server) newNetDrivers() (openListeners, error) {
	for _, w := range s.workers {
		w.driver = &netDriver{worker: w, woken: make(chan struct{}, 1)}
	}
	first := s.workers[0].driver.(*netDriver)
	open := func(host netip.Addr, port uint16, binding bool) (uint16, error) {
		addrs := []netip.Addr{host}
		if !host.IsValid() || host.IsUnspecified() {
			addrs = s.addresses().listening
		}
		number := port
		for _, a := range addrs {
			conn, err := openUDP(a, number)
			if errors.Is(err, syscall.EADDRNOTAVAIL) && len(addrs) > 1 {
				s.cfg.Log.Warn("relay does not serve an address that cannot be bound", "address", a)
				continue
			}
			if err != nil {
				return 0, err
			}
			// The system caps it; a smaller one only means earlier loss.
			_ = conn.SetReadBuffer(listenerBuffer)
			at := addrPort(conn.LocalAddr())
			number = at.Port()
			l := &listener{addr: at, index: len(first.listeners), binding: binding}
			first.listeners = append(first.listeners, conn)
			first.readers.Go(func() {
				first.read(conn, func(from netip.AddrPort, f *frame) bool {
					return first.worker.tryPost(
						event{frame: f, via: l, from: endpointOf(from), to: endpointOf(at)},
					)
				})
			})
		}
		if number == 0 {
			return 0, errors.New(
				"this machine has no address to listen on at port " + strconv.Itoa(int(port)),
			)
		}
		return number, nil
	}
	return open, nil
}

// read hands on what a socket gets, until it is closed.
func (d *netDriver) read(conn *net.UDPConn, deliver func(netip.AddrPort, *frame) bool) {
	buf := make([]byte, maxDatagram)
	// A failed read, such as Windows reports for an unreachable client, must not end a socket; one
	// that only fails must.
	const maxFailures = 64
	for failures := 0; failures < maxFailures; {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failures++
			continue
		}
		failures = 0
		f := newFrame(n)
		copy(f.bytes(), buf[:n])
		if !deliver(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), f) {
			f.free()
		}
	}
}

func (d *netDriver) run() {
	w := d.worker
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-w.server.done:
			return
		case <-tick.C:
		case <-d.woken:
		case e := <-w.inbox.events:
			w.now = w.server.now()
			w.handle(&e)
			if e.frame != nil {
				e.frame.free()
			}
			continue
		}
		w.now = w.server.now()
		w.sweep()
	}
}

func (d *netDriver) wake() {
	select {
	case d.woken <- struct{}{}:
	default:
	}
}

func (d *netDriver) bind(r *relayAddress, port uint16) (*relaySocket, error) {
	at := netip.AddrPortFrom(r.Private, port)
	conn, err := net.ListenUDP(familyOf(r.Private.As16()).network(), net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, errNoPort
	}
	_ = conn.SetReadBuffer(relayBuffer)
	return &relaySocket{
		relay:      r,
		port:       port,
		public:     endpointOf(netip.AddrPortFrom(r.Public, port)),
		worker:     d.worker,
		descriptor: descriptor{fd: -1, conn: conn},
	}, nil
}

func (d *netDriver) watch(s *relaySocket) error {
	d.readers.Go(func() {
		d.read(s.conn, func(from netip.AddrPort, f *frame) bool {
			return d.worker.tryPost(event{frame: f, socket: s, from: endpointOf(from)})
		})
	})
	return nil
}

func (d *netDriver) closeSocket(s *relaySocket) { _ = s.conn.Close() }

func (d *netDriver) reply(p *path, message []byte) bool {
	_, err := d.conn(p).WriteToUDPAddrPort(message, p.remote.addrPort())
	return err == nil
}

// conn is the listener's socket, which the first worker has.
func (d *netDriver) conn(p *path) *net.UDPConn {
	return d.worker.server.workers[0].driver.(*netDriver).listeners[p.via.index]
}

func (d *netDriver) toPeer(a *allocation, c *channel, payload []byte) {
	d.toPeerNow(a, c.socket, c.peer, payload, false)
}

func (d *netDriver) toPeerNow(
	a *allocation,
	from *relaySocket,
	to endpoint,
	payload []byte,
	_ bool,
) {
	a.count(&a.up, 1, len(payload))
	if _, err := from.conn.WriteToUDPAddrPort(payload, to.addrPort()); err != nil {
		a.count(&a.up, -1, -len(payload))
		a.drop(reasonUnsent)
	}
}

func (d *netDriver) toClient(
	a *allocation,
	message []byte,
	head *[channelHeader]byte,
	_ *openBatch,
	up *allocation,
) {
	size := len(message) - channelHeader
	if head != nil {
		size = len(message)
		d.worker.scratch = append(append(d.worker.scratch[:0], head[:]...), message...)
		message = d.worker.scratch
	}
	count(a, up, 1, size)
	if !d.reply(&a.client, message) {
		countLost(a, up, size)
	}
}

// The net package cannot set the bit for one packet.
func (d *netDriver) fragments() bool { return false }

func (d *netDriver) close() {
	for _, l := range d.listeners {
		_ = l.Close()
	}
	d.readers.Wait()
}
