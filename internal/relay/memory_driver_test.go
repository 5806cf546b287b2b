package relay

import (
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/pion/stun/v4"
)

// memoryDriver is a driver without a network: what would be sent is kept for the test to look at.
type memoryDriver struct {
	worker         *worker
	sockets        map[uint16]*relaySocket
	replies        [][]byte // to clients, one by one
	peerPayloads   []string // payloads
	clientMessages [][]byte // ChannelData to clients
}

func (d *memoryDriver) run()                     {}
func (d *memoryDriver) wake()                    {}
func (d *memoryDriver) close()                   {}
func (d *memoryDriver) fragments() bool          { return true }
func (d *memoryDriver) watch(*relaySocket) error { return nil }

func (d *memoryDriver) bind(r *relayAddress, port uint16) (*relaySocket, error) {
	if d.sockets[port] != nil {
		return nil, errNoPort
	}
	s := &relaySocket{
		relay:  r,
		port:   port,
		public: endpointOf(netip.AddrPortFrom(r.Public, port)),
		worker: d.worker,
	}
	d.sockets[port] = s
	return s, nil
}

func (d *memoryDriver) closeSocket(s *relaySocket) { delete(d.sockets, s.port) }

func (d *memoryDriver) reply(_ *path, message []byte) bool {
	d.replies = append(d.replies, append([]byte(nil), message...))
	return true
}

func (d *memoryDriver) toPeer(_ *allocation, _ *channel, payload []byte) {
	d.peerPayloads = append(d.peerPayloads, string(payload))
}

func (d *memoryDriver) toPeerNow(
	_ *allocation,
	_ *relaySocket,
	_ endpoint,
	payload []byte,
	_ bool,
) {
	d.peerPayloads = append(d.peerPayloads, string(payload))
}

func (d *memoryDriver) toClient(
	_ *allocation,
	message []byte,
	head *[channelHeader]byte,
	_ *openBatch,
	_ *allocation,
) {
	var b []byte
	if head != nil {
		b = append(b, head[:]...)
	}
	d.clientMessages = append(d.clientMessages, append(b, message...))
}

// forget empties what has been sent.
func (d *memoryDriver) forget() { d.replies, d.peerPayloads, d.clientMessages = nil, nil, nil }

// offline is one worker of a relay at 192.0.2.1 whose network and time are the test's. Its keys are
// always the same.
func offline(ports int) (*worker, *memoryDriver) {
	at := netip.MustParseAddr("192.0.2.1")
	c := Config{
		Listen: "192.0.2.1:3478", Secret: secret, MinPort: 50000,
		MaxPort: 50000 + uint16(ports) - 1,
		Now:     func() time.Time { return time.Unix(1_700_000_000, 0) },
	}.withDefaults()
	s := &Server{
		cfg:      c,
		port:     3478,
		quota:    newQuota(c.Quota),
		done:     make(chan struct{}),
		nonceKey: make([]byte, 32),
		seed:     maphash.MakeSeed(),
	}
	s.secrets.Store(&secrets{current: c.Secret})
	s.limiter.seed = s.seed
	s.streams.init(maxStreams)
	a := Address{Public: at, Private: at}
	s.hostAddrs.Store(
		s.newHostAddresses(
			[]*relayAddress{newRelayAddress(a, c.MinPort, c.MaxPort)},
			[]netip.Addr{at},
		),
	)
	w := newWorker(s, 0)
	d := &memoryDriver{worker: w, sockets: map[uint16]*relaySocket{}}
	w.driver, w.now = d, time.Hour
	s.workers = []*worker{w}
	return w, d
}

// offlinePath is the way to a client of an offline relay.
func offlinePath(port uint16) *path {
	return &path{
		remote: endpointOf(netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), port)),
		local:  endpointOf(netip.MustParseAddrPort("192.0.2.1:3478")), via: &listener{},
	}
}

// sign adds credentials that are good for the client at p, with a nonce that is, and a password
// that may be wrong.
func (w *worker) signAs(m *stun.Message, p *path, session, wrong string) {
	user, password := w.server.Credentials("t", session)
	nonce := string(w.nonces.issue(w.now, p.remote))
	realm := w.server.cfg.Realm
	for _, s := range []stun.Setter{
		stun.NewUsername(user), stun.NewRealm(realm), stun.NewNonce(nonce),
		stun.NewLongTermIntegrity(user, realm, password+wrong),
	} {
		if err := s.AddTo(m); err != nil {
			panic(err) // the attributes have room
		}
	}
}
