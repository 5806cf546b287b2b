package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// epollDriver moves packets in batches, on a thread of its own. What is received stays in the
// receive buffers until it has been sent.
//
// The system calls in the loop go past Go's scheduler, since they do not wait, or for a millisecond
// at most; only a longer wait tells it.
type epollDriver struct {
	worker    *worker
	epollFD   int
	wakeFD    int
	listeners []listening // by listener.index
	byFD      []*relaySocket
	events    []unix.EpollEvent

	receiver   *receiver
	toClients  *sender
	toPeers    *sender
	heldFrames []*frame // whose bytes wait to be sent
	coalescer  coalescer

	last struct { // the client of the last packet
		from       [unix.SizeofSockaddrInet6]byte
		path       path
		allocation *allocation
		valid      bool
	}
}

// listening is a listener and this worker's socket for it.
type listening struct {
	*listener
	fd int
}

const (
	receiveBatch = 64
	eventBatch   = 256
)

func (s *Server) newDrivers() (openListeners, error) {
	if s.cfg.plain {
		return s.newNetDrivers()
	}
	noGSO := probeGSO()
	if noGSO != nil {
		s.gsoFailed(noGSO)
	}
	for _, w := range s.workers {
		d := &epollDriver{
			worker: w, epollFD: -1, wakeFD: -1, events: make([]unix.EpollEvent, eventBatch),
			receiver: newReceiver(receiveBatch), toClients: newSender(w), toPeers: newSender(w),
		}
		d.toClients.noGSO, d.toPeers.noGSO = noGSO != nil, noGSO != nil
		d.coalescer.maxDelay = s.cfg.Coalesce
		w.driver = d
		var err error
		if d.epollFD, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return nil, err
		}
		if d.wakeFD, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
			return nil, err
		}
		if err = d.register(d.wakeFD); err != nil {
			return nil, err
		}
	}
	return s.openFamilies, nil
}

// probeGSO asks whether the system knows how to send several packets at once: one that does not
// would send them as one.
func probeGSO() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 0)
}

// gsoFailed notes that the system refuses to send several packets at once.
func (s *Server) gsoFailed(err error) {
	s.stats.gsoErrors.Add(1)
	s.gsoWarning.Do(func() {
		s.cfg.Log.Warn("UDP GSO unavailable; sending packets individually", "error", err)
	})
}

// openFamilies opens a port for each family at every worker.
func (s *Server) openFamilies(host netip.Addr, port uint16, binding bool) (uint16, error) {
	var addrs []netip.Addr
	switch {
	case host.IsValid():
		addrs = []netip.Addr{host}
	case hasIPv6():
		addrs = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	default:
		addrs = []netip.Addr{netip.IPv4Unspecified()}
	}
	// A number that is free for one family need not be so for the other.
	const tries = 16
	for try := 1; ; try++ {
		number, err := s.openAt(addrs, port, binding)
		if err == nil || port != 0 || try == tries || !errors.Is(err, unix.EADDRINUSE) {
			return number, err
		}
	}
}

func (s *Server) openAt(addrs []netip.Addr, port uint16, binding bool) (uint16, error) {
	var opened []int
	fail := func(err error) (uint16, error) {
		for _, fd := range opened {
			_ = unix.Close(fd)
		}
		return 0, err
	}
	sockets := make([][]listening, len(s.workers))
	first := len(s.workers[0].driver.(*epollDriver).listeners)
	for i, addr := range addrs {
		// Sockets that share a port are shared with any program of ours: make sure that there is
		// none yet.
		conn, err := openUDP(addr, port)
		if err != nil {
			return fail(err)
		}
		port = addrPort(conn.LocalAddr()).Port()
		_ = conn.Close()
		l := &listener{
			addr:    netip.AddrPortFrom(addr, port),
			index:   first + i,
			wild:    addr.IsUnspecified(),
			binding: binding,
		}
		for j := range s.workers {
			fd, err := openListener(l)
			if err != nil {
				return fail(fmt.Errorf("listen on %v: %w", l.addr, err))
			}
			opened = append(opened, fd)
			sockets[j] = append(sockets[j], listening{l, fd})
		}
	}
	for j, w := range s.workers {
		for _, l := range sockets[j] {
			if err := w.driver.(*epollDriver).register(l.fd); err != nil {
				return fail(err)
			}
		}
	}
	// From here on the drivers close them.
	for j, w := range s.workers {
		d := w.driver.(*epollDriver)
		d.listeners = append(d.listeners, sockets[j]...)
	}
	return port, nil
}

func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Bind(fd, &unix.SockaddrInet6{}) == nil
}

func openListener(l *listener) (int, error) {
	return openSocket(l.addr, listenerBuffer, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
		// Where the link merges packets, they come merged; an old kernel does not know how.
		_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
		switch {
		case !l.wild:
			return nil
		case l.addr.Addr().Is4():
			return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
		}
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
}

// openSocket binds a UDP socket that does not block.
func openSocket(at netip.AddrPort, buffer int, set func(fd int) error) (int, error) {
	kind := unix.AF_INET6
	var address unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if at.Addr().Is4() {
		kind, address = unix.AF_INET, &unix.SockaddrInet4{
			Port: int(at.Port()),
			Addr: at.Addr().As4(),
		}
	}
	fd, err := unix.Socket(kind, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, option := range [][2]int{
		{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF},
		{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF},
	} {
		// By force where we may; else the system caps it, and a smaller buffer only means earlier
		// loss.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[0], buffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[1], buffer)
		}
	}
	if kind == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
	} else {
		// Routers may cut what we relay, unless its client asks that they do not (RFC 8656 section
		// 14).
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	}
	if err == nil && set != nil {
		err = set(fd)
	}
	if err == nil {
		err = unix.Bind(fd, address)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (d *epollDriver) register(fd int) error {
	return unix.EpollCtl(
		d.epollFD,
		unix.EPOLL_CTL_ADD,
		fd,
		&unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)},
	)
}

func (d *epollDriver) wake() {
	one := [8]byte{7: 1, 0: 1}
	_, _ = unix.Write(d.wakeFD, one[:])
}

func (d *epollDriver) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Sleeps of a fraction of a millisecond need a timer that is not rounded up by 50 microseconds.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
	w := d.worker
	for wait := false; ; {
		n := 0
		if wait {
			t := unix.NsecToTimespec(int64(d.coalescer.maxDelay))
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
			n = d.poll(0)
		} else {
			n = d.wait()
		}
		select {
		case <-w.server.done:
			return
		default:
		}
		w.now = w.server.now()
		received := d.serve(n)
		wait = d.coalescer.shouldWait(received, w.now)
		w.sweep()
	}
}

// wait blocks until there is something to do.
func (d *epollDriver) wait() int {
	w := d.worker
	timeout := -1
	if !w.nothingToSweep() {
		timeout = int(sweepInterval / time.Millisecond)
	}
	w.inbox.asleep.Store(true)
	if len(w.inbox.events) > 0 {
		timeout = 0
	}
	if timeout == 0 {
		w.inbox.asleep.Store(false)
		return d.poll(0)
	}
	// While packets come fast the wait is short and not worth telling the scheduler, which would
	// look after this thread each time. A collection of garbage does not wait for it: its signal
	// ends the call.
	const brief = 1
	n := d.poll(brief)
	if n == 0 {
		var err error
		if n, err = unix.EpollWait(d.epollFD, d.events, timeout); err != nil {
			n = 0
		}
	}
	w.inbox.asleep.Store(false)
	return n
}

// poll looks for events for some milliseconds.
func (d *epollDriver) poll(timeout int) int {
	n, _, errno := unix.RawSyscall6(
		unix.SYS_EPOLL_PWAIT,
		uintptr(d.epollFD),
		uintptr(unsafe.Pointer(&d.events[0])),
		uintptr(len(d.events)),
		uintptr(timeout),
		0,
		0,
	)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// serve serves what has come and returns how many packets that were.
func (d *epollDriver) serve(n int) (received int) {
	used := 0
	for i := range d.events[:n] {
		fd := int(d.events[i].Fd)
		if fd == d.wakeFD {
			var b [8]byte
			_, _ = unix.Read(fd, b[:])
			continue
		}
		if receiveBatch-used < receiveBatch/4 {
			d.flush()
			used = 0
		}
		if fd < len(d.byFD) && d.byFD[fd] != nil {
			got := d.receiveFromPeers(d.byFD[fd], used)
			used, received = used+got, received+got
			continue
		}
		for j := range d.listeners {
			if d.listeners[j].fd == fd {
				got := d.receiveFromClients(&d.listeners[j], used)
				used, received = used+got, received+got
			}
		}
	}
	received += d.fromInbox()
	d.flush()
	return received
}

// fromInbox serves what other goroutines have put there, as much as fits into a batch.
func (d *epollDriver) fromInbox() int {
	for i := range inboxLength {
		select {
		case e := <-d.worker.inbox.events:
			d.worker.handle(&e)
			if e.frame != nil {
				d.heldFrames = append(d.heldFrames, e.frame)
			}
		default:
			return i
		}
	}
	return inboxLength
}

// flush sends everything gathered, after which the receive buffers may be used again.
func (d *epollDriver) flush() {
	d.toPeers.flush()
	d.toClients.flush()
	for i, f := range d.heldFrames {
		f.free()
		d.heldFrames[i] = nil
	}
	d.heldFrames = d.heldFrames[:0]
}

// receiveFromClients serves a batch of packets at a listener.
func (d *epollDriver) receiveFromClients(l *listening, first int) int {
	w, last := d.worker, &d.last
	n := d.receiver.receive(l.fd, first)
	for i := first; i < first+n; i++ {
		if !d.receiver.complete(i) {
			w.server.stats.reject(reasonMalformed)
			continue
		}
		from := &d.receiver.from[i]
		local := last.path.local
		if !l.wild || !d.receiver.destination(i, &local) {
			local = endpoint{ip: l.addr.Addr().As16()}
		}
		local.port = l.addr.Port()
		if d.receiver.headers[i].Namelen < unix.SizeofSockaddrInet6 {
			clear(from[unix.SizeofSockaddrInet4:])
		}
		if last.from != *from || last.path.local != local || last.path.via != l.listener {
			last.from = *from
			last.path = path{remote: readSockaddr(from), local: local, via: l.listener}
			last.valid = false
		}
		framed := d.receiver.headroom(i)
		size := d.receiver.segmentSize(i)
		if size == 0 || size >= len(framed)-channelHeader {
			d.clientPacket(framed[channelHeader:])
			continue
		}
		rest := framed[channelHeader:]
		for len(rest) > 0 {
			b := rest[:min(size, len(rest))]
			rest = rest[len(b):]
			w.server.stats.groPackets.Add(1)
			d.clientPacket(b)
		}
	}
	return n
}

// clientPacket serves one packet of the last client. A request may give it an allocation, or end
// it, as a panic does: then the next packet, which may have come merged with this one, must look
// again.
func (d *epollDriver) clientPacket(b []byte) {
	last := &d.last
	if !last.valid || (last.allocation != nil && last.allocation.closed.Load()) {
		last.allocation, last.valid = d.worker.lookup(&last.path), true
	}
	d.worker.fromClient(&last.path, last.allocation, b)
	last.valid = isChannelData(b)
}

// receiveFromPeers serves a batch of packets at a relay socket, until one of them closes it.
func (d *epollDriver) receiveFromPeers(s *relaySocket, first int) int {
	w := d.worker
	n := d.receiver.receive(s.fd, first)
	for i := first; i < first+n && !s.closed.Load(); i++ {
		if !d.receiver.complete(i) {
			s.allocation.drop(reasonMalformed)
			continue
		}
		from := readSockaddr(&d.receiver.from[i])
		framed := d.receiver.headroom(i)
		size := d.receiver.segmentSize(i)
		if size == 0 || size >= len(framed)-channelHeader {
			w.fromPeer(s, from, packet{framed[channelHeader:], framed})
			continue
		}
		rest := framed[channelHeader:]
		for len(rest) > 0 && !s.closed.Load() {
			b := rest[:min(size, len(rest))]
			rest = rest[len(b):]
			w.server.stats.groPackets.Add(1)
			w.fromPeer(s, from, packet{payload: b})
		}
	}
	return n
}

func (d *epollDriver) bind(r *relayAddress, port uint16) (*relaySocket, error) {
	fd, err := openSocket(netip.AddrPortFrom(r.Private, port), relayBuffer, func(fd int) error {
		_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
		return nil
	})
	if err != nil {
		return nil, errNoPort
	}
	return &relaySocket{
		relay:      r,
		port:       port,
		public:     endpointOf(netip.AddrPortFrom(r.Public, port)),
		worker:     d.worker,
		descriptor: descriptor{fd: fd},
	}, nil
}

func (d *epollDriver) watch(s *relaySocket) error {
	if err := d.register(s.fd); err != nil {
		return err
	}
	for len(d.byFD) <= s.fd {
		d.byFD = append(d.byFD, nil)
	}
	d.byFD[s.fd] = s
	return nil
}

func (d *epollDriver) closeSocket(s *relaySocket) {
	if s.fd < 0 {
		return
	}
	// What waits to leave by this socket goes first.
	d.toPeers.flush()
	if s.fd < len(d.byFD) && d.byFD[s.fd] == s {
		d.byFD[s.fd] = nil
	}
	_ = unix.Close(s.fd)
	s.fd = -1
}

func (d *epollDriver) reply(p *path, message []byte) bool {
	to := sockaddrOf(p.remote)
	l := &d.listeners[p.via.index]
	return sendOne(l.fd, &to, l.source(&p.local), message) == nil
}

// source is the address to name as the source of a packet, if one must be named.
func (l *listening) source(of *endpoint) *endpoint {
	if l.wild {
		return of
	}
	return nil
}

// sendOne sends one packet at once.
func sendOne(fd int, to *sockaddr, source *endpoint, message []byte) error {
	var control [sendControl]byte
	iov := unix.Iovec{}
	if len(message) > 0 {
		iov.Base = &message[0]
	}
	iov.SetLen(len(message))
	h := unix.Msghdr{Name: &to.raw[0], Namelen: to.size, Iov: &iov}
	h.SetIovlen(1)
	if size := putSource(control[:], source); size > 0 {
		h.Control = &control[0]
		h.SetControllen(size)
	}
	for {
		_, _, errno := unix.RawSyscall(
			unix.SYS_SENDMSG,
			uintptr(fd),
			uintptr(unsafe.Pointer(&h)),
			0,
		)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

func (d *epollDriver) toPeer(a *allocation, c *channel, payload []byte) {
	if c.socket.fd < 0 {
		a.drop(reasonNoPermission)
		return
	}
	d.toPeers.add(
		gsoBatch{fd: c.socket.fd, to: &c.to, size: len(payload), payload: len(payload), up: a},
		payload,
		nil,
		&c.batch,
	)
}

func (d *epollDriver) toPeerNow(
	a *allocation,
	from *relaySocket,
	to endpoint,
	payload []byte,
	dontFragment bool,
) {
	address := sockaddrOf(to)
	a.count(&a.up, 1, len(payload))
	level, option, always := unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	usual := unix.IP_PMTUDISC_DONT
	if to.family() == v6 {
		level, option = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER
		always, usual = unix.IPV6_PMTUDISC_DO, unix.IPV6_PMTUDISC_WANT
	}
	if dontFragment {
		_ = unix.SetsockoptInt(from.fd, level, option, always)
	}
	err := sendOne(from.fd, &address, nil, payload)
	if dontFragment {
		_ = unix.SetsockoptInt(from.fd, level, option, usual)
	}
	if err != nil {
		a.count(&a.up, -1, -len(payload))
		a.drop(reasonUnsent)
	}
}

func (d *epollDriver) toClient(
	a *allocation,
	message []byte,
	head *[channelHeader]byte,
	out *openBatch,
	up *allocation,
) {
	l := &d.listeners[a.client.via.index]
	size, payload := len(message), len(message)-channelHeader
	if head != nil {
		size, payload = size+channelHeader, size
	}
	d.toClients.add(
		gsoBatch{
			fd:      l.fd,
			to:      &a.clientAddr,
			source:  l.source(&a.client.local),
			size:    size,
			payload: payload,
			down:    a,
			up:      up,
		},
		message,
		head,
		out,
	)
}

func (d *epollDriver) fragments() bool { return true }

func (d *epollDriver) close() {
	for _, l := range d.listeners {
		_ = unix.Close(l.fd)
	}
	d.listeners = nil
	for _, fd := range []int{d.wakeFD, d.epollFD} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// coalescer decides whether to wait a little before the next read, so that batches grow: only while
// packets come fast and batches are small, never when it is quiet.
type coalescer struct {
	maxDelay time.Duration // 0 or less: never
	since    time.Duration
	count    int
	rate     float64 // packets a second, lately
}

const (
	coalesceRate   = 5000 // packets a second from which on it pays
	coalesceWindow = 5 * time.Millisecond
)

// shouldWait is told how many packets the last read brought; true: wait a little before the next.
func (l *coalescer) shouldWait(received int, now time.Duration) bool {
	if l.maxDelay <= 0 {
		return false
	}
	l.count += received
	if passed := now - l.since; passed >= coalesceWindow {
		l.rate = float64(l.count) / passed.Seconds()
		l.count, l.since = 0, now
	}
	return received > 0 && received <= receiveBatch/2 && l.rate >= coalesceRate
}
