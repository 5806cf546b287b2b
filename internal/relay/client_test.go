package relay

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// failSafe ends a test that would hang; no test depends on its length.
const failSafe = 20 * time.Second

// maxTest is more than any packet of the tests that arrives.
const maxTest = 16 << 10

var secret = []byte("0123456789abcdef")

// plainDriver is true in the second run of all tests.
var plainDriver bool

// start runs a relay on loopback. Peers live on other loopback addresses, since our own is closed
// but for relay ports.
func start(t testing.TB, change func(*Config)) *Server {
	t.Helper()
	c := Config{
		Listen:     "127.0.0.1:0",
		AllowPeers: nets("127.0.0.0/8", "::1/128"),
		Secret:     secret,
		Quota:      Quota{Source: -1},
	}
	if change != nil {
		change(&c)
	}
	c.plain = c.plain || plainDriver
	s, stop := startHere(t, c)
	t.Cleanup(func() {
		stop()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// startHere runs a relay for whoever closes it, and stop.
func startHere(t testing.TB, c Config) (s *Server, stop func()) {
	t.Helper()
	for try := 1; ; try++ {
		s, err := Start(c)
		if err != nil {
			t.Fatal(err)
		}
		if stop, err = acceptStreams(s); err == nil {
			return s, stop
		}
		// The number is free for UDP and not for TCP.
		_ = s.Close()
		if try == 16 {
			t.Fatal(err)
		}
	}
}

// acceptStreams hands TCP connections at the relay's port to it, as the node does, until stop.
func acceptStreams(s *Server) (stop func(), err error) {
	var accepting sync.WaitGroup
	var open []net.Listener
	stop = func() {
		for _, tcp := range open {
			_ = tcp.Close()
		}
		accepting.Wait()
	}
	for _, a := range s.addresses().listening {
		tcp, err := net.Listen("tcp", netip.AddrPortFrom(a, s.port).String())
		if err != nil {
			return stop, err
		}
		open = append(open, tcp)
		accepting.Go(func() {
			for {
				conn, err := tcp.Accept()
				if err != nil {
					return
				}
				s.ServeConn(conn)
			}
		})
	}
	return stop, nil
}

// peerHost is a loopback address that is not the relay's.
func peerHost(t testing.TB) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has 127.0.0.2 without being told")
	}
	return "127.0.0.2"
}

// udpPeer is a plain UDP socket.
func udpPeer(t testing.TB, host string) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP(
		"udp",
		net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), 0)),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(failSafe)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func localOf(conn *net.UDPConn) netip.AddrPort {
	ap := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// rawClient speaks TURN by hand: it can say what no good client says, and shows the codes.
type rawClient struct {
	t            testing.TB
	conn         net.Conn
	stream       bool
	user, pass   string
	realm, nonce string
	data         [][]byte // messages other than answers
}

// dial connects from host (empty: any) over "udp" or "tcp".
func dial(t testing.TB, s *Server, network, tenant, session string) *rawClient {
	t.Helper()
	host := s.addresses().listening[0]
	return dialTo(t, s, network, netip.AddrPortFrom(host, uint16(s.Port())), tenant, session)
}

func dialTo(
	t testing.TB,
	s *Server,
	network string,
	to netip.AddrPort,
	tenant, session string,
) *rawClient {
	t.Helper()
	conn, err := net.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(failSafe)); err != nil {
		t.Fatal(err)
	}
	c := &rawClient{t: t, conn: conn, stream: network == "tcp"}
	c.user, c.pass = s.Credentials(tenant, session)
	return c
}

func (c *rawClient) send(raw []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(raw); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next message of any kind.
func (c *rawClient) read() []byte {
	c.t.Helper()
	raw, err := c.tryRead()
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

func (c *rawClient) tryRead() ([]byte, error) {
	buf := make([]byte, maxTest)
	if !c.stream {
		n, err := c.conn.Read(buf)
		return buf[:n], err
	}
	if _, err := io.ReadFull(c.conn, buf[:4]); err != nil {
		return nil, err
	}
	rest := int(binary.BigEndian.Uint16(buf[2:]))
	if isChannelData(buf) {
		rest = (rest + 3) &^ 3
	} else {
		rest += stunHeader - 4
	}
	_, err := io.ReadFull(c.conn, buf[4:4+rest])
	return buf[:4+rest], err
}

// ask sends a request with credentials, once they are known, and returns the answer.
func (c *rawClient) ask(method stun.Method, attrs ...stun.Setter) *stun.Message {
	c.t.Helper()
	m := c.signed(method, attrs...)
	c.send(m.Raw)
	return c.answerTo(m)
}

// signed builds a request with credentials, once they are known.
func (c *rawClient) signed(method stun.Method, attrs ...stun.Setter) *stun.Message {
	c.t.Helper()
	setters := append(
		[]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)},
		attrs...)
	if c.nonce != "" {
		key := stun.NewLongTermIntegrity(c.user, c.realm, c.pass)
		setters = append(
			setters,
			stun.NewUsername(c.user),
			stun.NewRealm(c.realm),
			stun.NewNonce(c.nonce),
			key,
		)
	}
	m, err := stun.Build(setters...)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *rawClient) answerTo(m *stun.Message) *stun.Message {
	c.t.Helper()
	for {
		raw := c.read()
		answer := &stun.Message{Raw: raw}
		if isChannelData(raw) || answer.Decode() != nil || answer.TransactionID != m.TransactionID {
			c.data = append(c.data, slices.Clone(raw))
			continue
		}
		return answer
	}
}

// challenge gets realm and nonce.
func (c *rawClient) challenge() {
	c.t.Helper()
	answer := c.ask(stun.MethodAllocate, transport(17))
	var realm stun.Realm
	var nonce stun.Nonce
	if code(answer) != 401 || realm.GetFrom(answer) != nil || nonce.GetFrom(answer) != nil {
		c.t.Fatalf("no challenge but %v", answer)
	}
	c.realm, c.nonce = realm.String(), nonce.String()
}

// renew gets a new nonce.
func (c *rawClient) renew() {
	c.t.Helper()
	c.nonce = ""
	c.challenge()
}

// allocate returns the relayed address.
func (c *rawClient) allocate(attrs ...stun.Setter) netip.AddrPort {
	c.t.Helper()
	if c.nonce == "" {
		c.challenge()
	}
	answer := c.ask(stun.MethodAllocate, append([]stun.Setter{transport(17)}, attrs...)...)
	var relayed stun.XORMappedAddress
	if code(answer) != 0 || relayed.GetFromAs(answer, stun.AttrXORRelayedAddress) != nil {
		c.t.Fatalf("no allocation but code %d", code(answer))
	}
	a, _ := netip.AddrFromSlice(relayed.IP)
	return netip.AddrPortFrom(a.Unmap(), uint16(relayed.Port))
}

func (c *rawClient) permit(peers ...netip.Addr) int {
	c.t.Helper()
	var attrs []stun.Setter
	for _, p := range peers {
		attrs = append(attrs, peer(netip.AddrPortFrom(p, 0)))
	}
	return code(c.ask(stun.MethodCreatePermission, attrs...))
}

func (c *rawClient) bind(channel uint16, to netip.AddrPort) int {
	c.t.Helper()
	number := binary.BigEndian.AppendUint32(nil, uint32(channel)<<16)
	return code(
		c.ask(
			stun.MethodChannelBind,
			stun.RawAttribute{Type: stun.AttrChannelNumber, Value: number},
			peer(to),
		),
	)
}

// indicate sends data to a peer in a Send indication.
func (c *rawClient) indicate(to netip.AddrPort, data string) {
	c.t.Helper()
	m, err := stun.Build(
		stun.TransactionID,
		stun.NewType(stun.MethodSend, stun.ClassIndication),
		peer(to),
		stun.RawAttribute{Type: stun.AttrData, Value: []byte(data)},
	)
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(m.Raw)
}

// sendChannelData sends data on a channel.
func (c *rawClient) channelData(channel uint16, data string) {
	c.t.Helper()
	raw := binary.BigEndian.AppendUint16(nil, channel)
	raw = binary.BigEndian.AppendUint16(raw, uint16(len(data)))
	raw = append(raw, data...)
	for c.stream && len(raw)%4 != 0 {
		raw = append(raw, 0)
	}
	c.send(raw)
}

// receive returns the next relayed data and, for a Data indication, the peer it came from.
func (c *rawClient) receive() (data string, from netip.AddrPort) {
	c.t.Helper()
	var raw []byte
	if len(c.data) > 0 {
		raw, c.data = c.data[0], c.data[1:]
	} else {
		raw = c.read()
	}
	if isChannelData(raw) {
		return string(raw[4 : 4+binary.BigEndian.Uint16(raw[2:])]), netip.AddrPort{}
	}
	m := &stun.Message{Raw: raw}
	var p stun.XORMappedAddress
	if m.Decode() != nil || p.GetFromAs(m, stun.AttrXORPeerAddress) != nil {
		c.t.Fatalf("no data but %x", raw)
	}
	content, err := m.Get(stun.AttrData)
	if err != nil {
		c.t.Fatal(err)
	}
	a, _ := netip.AddrFromSlice(p.IP)
	return string(content), netip.AddrPortFrom(a.Unmap(), uint16(p.Port))
}

func (c *rawClient) refresh(lifetime uint32) int {
	c.t.Helper()
	return code(c.ask(stun.MethodRefresh, life(lifetime)))
}

func life(seconds uint32) stun.Setter {
	return stun.RawAttribute{
		Type:  stun.AttrLifetime,
		Value: binary.BigEndian.AppendUint32(nil, seconds),
	}
}

func transport(protocol byte) stun.Setter {
	return stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{protocol, 0, 0, 0}}
}

func inFamily(f byte) stun.Setter {
	return stun.RawAttribute{Type: stun.AttrRequestedAddressFamily, Value: []byte{f, 0, 0, 0}}
}

type peer netip.AddrPort

func (p peer) AddTo(m *stun.Message) error {
	ap := netip.AddrPort(p)
	a := stun.XORMappedAddress{IP: ap.Addr().AsSlice(), Port: int(ap.Port())}
	// The codec writes a mapped address as IPv4; as it stands is what a hostile client sends.
	if ap.Addr().Is4In6() {
		ip := ap.Addr().As16()
		value := []byte{0, 2, byte(ap.Port()>>8) ^ 0x21, byte(ap.Port()) ^ 0x12}
		mask := append([]byte{0x21, 0x12, 0xa4, 0x42}, m.TransactionID[:]...)
		for i := range ip {
			value = append(value, ip[i]^mask[i])
		}
		m.Add(stun.AttrXORPeerAddress, value)
		return nil
	}
	return a.AddToAs(m, stun.AttrXORPeerAddress)
}

// code is that of an error response, 0 for success.
func code(m *stun.Message) int {
	var e stun.ErrorCodeAttribute
	if err := e.GetFrom(m); errors.Is(err, stun.ErrAttributeNotFound) &&
		m.Type.Class == stun.ClassSuccessResponse {
		return 0
	} else if err != nil {
		return -1
	}
	return int(e.Code)
}

// receiveAt reads one packet at a plain peer.
func receiveAt(t testing.TB, conn *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	buf := make([]byte, maxTest)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func sendFrom(t testing.TB, conn *net.UDPConn, to netip.AddrPort, data string) {
	t.Helper()
	if _, err := conn.WriteToUDPAddrPort([]byte(data), to); err != nil {
		t.Fatal(err)
	}
}

// refusedBy is how often the relay refused for a reason.
func refusedBy(s *Server, r reasonCode) uint64 { return s.Stats().Rejected[reasonNames[r]] }

// eventually waits for another goroutine's work; it looks again as fast as it can and fails only
// when the work is never done.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(failSafe); !done(); {
		if time.Now().After(limit) {
			t.Fatal("never happened")
		}
		tick := time.NewTimer(time.Millisecond)
		<-tick.C
	}
}
