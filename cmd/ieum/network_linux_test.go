package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/e2e/netlab/netns"
)

// network is a cluster of three nodes, each a process in a network namespace of its own. A fourth
// namespace has the clients, and the bridge that connects them all. A packet filter cuts it.
type network struct {
	t       *testing.T
	prefix  string // of the names of namespaces
	nodes   []*netNode
	signing string // file of the license signing key
	secret  string // file of the secret of all nodes
	flags   []string
	browser http.Client // in the namespace of the clients
}

// netNode is a node of a network. Its addresses stay when it is started again.
type netNode struct {
	*network
	name, space, ip string
	process         *os.Process // Nil until it is started.
	kill            func()
	admin           http.Client // in its namespace
}

const (
	netPort   = "7000"
	peerPort  = "7001"
	adminPort = "7003"
	// netPrefix begins the names of the namespaces of all runs, which go on with a process id.
	netPrefix = "ieum-nodes-"
)

// newNetwork starts three nodes and waits until they are ready.
func newNetwork(t *testing.T, flags ...string) *network {
	t.Helper()
	switch {
	case os.Geteuid() != 0:
		t.Skip("network namespaces need root")
	case underRace:
		t.Skip("runs without the race detector, whose nodes would be too slow")
	}
	sweepNetworks(t)
	n := &network{
		t:       t,
		prefix:  fmt.Sprint(netPrefix, os.Getpid(), "-"),
		signing: file(t, "signing", key+"\n"),
		secret:  file(t, "secret", "a secret of all three nodes, long enough\n"),
		flags:   flags,
	}
	t.Cleanup(func() { n.must(netns.Remove(n.prefix)) })
	n.browser = client(n.prefix + "clients")
	n.addSpace("clients")
	n.run("", "ip", "-n", n.prefix+"clients", "link", "add", "bridge", "type", "bridge")
	n.run("", "ip", "-n", n.prefix+"clients", "addr", "add", "10.0.0.254/24", "dev", "bridge")
	n.run("", "ip", "-n", n.prefix+"clients", "link", "set", "bridge", "up")
	for i, name := range []string{"a", "b", "c"} {
		node := &netNode{
			network: n,
			name:    name,
			space:   n.prefix + name,
			ip:      fmt.Sprint("10.0.0.", i+1),
			admin:   client(n.prefix + name),
		}
		n.nodes = append(n.nodes, node)
		node.plug()
	}
	for _, node := range n.nodes {
		node.start()
	}
	for _, node := range n.nodes {
		node.awaitQuorum()
	}
	return n
}

// sweepNetworks removes what runs left that were ended by force.
func sweepNetworks(t *testing.T) {
	t.Helper()
	spaces, err := filepath.Glob(filepath.Join(netns.Dir, netPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range spaces {
		name := filepath.Base(path)
		number, _, _ := strings.Cut(strings.TrimPrefix(name, netPrefix), "-")
		pid, _ := strconv.Atoi(number)
		if pid != os.Getpid() && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = netns.Remove(name) // another run may do the same
		}
	}
}

func client(space string) http.Client {
	return http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			return dialIn(space, network, addr)
		},
	}}
}

func dialIn(space, network, addr string) (c net.Conn, err error) {
	err = netns.Do(space, func() error {
		c, err = net.DialTimeout(network, addr, 3*time.Second)
		return err
	})
	return c, err
}

func (n *network) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *network) run(input string, argv ...string) {
	n.t.Helper()
	n.must(netns.Run(input, argv...))
}

func (n *network) addSpace(name string) {
	n.t.Helper()
	n.run("", "ip", "netns", "add", n.prefix+name)
	n.run("", "ip", "-n", n.prefix+name, "link", "set", "lo", "up")
}

// plug makes the namespace of a node, and connects it to the bridge.
func (n *netNode) plug() {
	n.t.Helper()
	hub := n.prefix + "clients"
	n.addSpace(n.name)
	n.run("", "ip", "link", "add", "to-"+n.name, "netns", hub,
		"type", "veth", "peer", "name", "eth0", "netns", n.space)
	n.run("", "ip", "-n", hub, "link", "set", "to-"+n.name, "master", "bridge", "up")
	n.run("", "ip", "-n", n.space, "addr", "add", n.ip+"/24", "dev", "eth0")
	n.run("", "ip", "-n", n.space, "link", "set", "eth0", "up")
	n.run("table inet cut {\n"+
		"\tchain in {\n\t\ttype filter hook input priority 0; policy accept;\n\t}\n}\n",
		"ip", "netns", "exec", n.space, "nft", "-f", "-")
}

// start starts the process of a node, again if it was killed.
func (n *netNode) start() {
	n.t.Helper()
	args := append([]string{
		"serve",
		"--listen", n.ip + ":" + netPort,
		"--stun-listen", "off",
		"--relay-ip", n.ip,
		"--admin-listen", "127.0.0.1:" + adminPort,
		"--log-level", "error",
		"--license-signing-key-file", n.signing,
		"--node", n.name,
		"--cluster-listen", n.ip + ":" + peerPort,
		"--cluster-secret-file", n.secret,
		"--cluster-expect", "3",
		"--max-unregistered-per-address", "-1",
		"--max-sessions-per-address", "-1",
		"--max-rooms-per-address", "-1",
		"--max-joins", "-1",
		"--max-failed-joins", "-1",
		"--max-failed-joins-per-address", "-1",
	}, n.flags...)
	for _, other := range n.nodes {
		if other != n {
			args = append(args, "--cluster-peer", other.ip+":"+peerPort)
		}
	}
	c := exec.Command("ip", "netns", "exec", n.space, os.Args[0], "-test.run=^$")
	c.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "IEUM_")
	}), runAs+"="+strings.Join(args, "\n"))
	_, n.kill = launch(n.t, c, os.Stderr, `http://\S+/metrics`)
	n.process = c.Process
}

// cut drops what one node sends to another.
func (n *network) cut(from, to *netNode) {
	n.t.Helper()
	n.run("add rule inet cut in ip saddr "+from.ip+" drop\n",
		"ip", "netns", "exec", to.space, "nft", "-f", "-")
}

// isolate cuts a node off from the others, both ways. Clients reach it.
func (n *network) isolate(alone *netNode) {
	n.t.Helper()
	for _, other := range n.nodes {
		if other != alone {
			n.cut(other, alone)
			n.cut(alone, other)
		}
	}
}

// heal ends all cuts.
func (n *network) heal() {
	n.t.Helper()
	for _, node := range n.nodes {
		n.run("flush chain inet cut in\n", "ip", "netns", "exec", node.space, "nft", "-f", "-")
	}
}

// awaitQuorum waits until a node can have claims decided. /readyz would say so up to 5 s later.
func (n *netNode) awaitQuorum() {
	n.t.Helper()
	until(n.t, n.name+" has a quorum", func() bool { return n.metric("ieum_cluster_quorum") == 1 })
}

// until waits until something holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come true: " + what)
		}
	}
}

// status is the status of a page of the admin listener; 0: no answer.
func (n *netNode) status(page string) int {
	r, err := n.admin.Get("http://127.0.0.1:" + adminPort + page)
	if err != nil {
		return 0
	}
	_ = r.Body.Close()
	return r.StatusCode
}

// metric is the value of a metric without labels; 0: no answer.
func (n *netNode) metric(name string) (value int) {
	r, err := n.admin.Get("http://127.0.0.1:" + adminPort + "/metrics")
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			value, _ = strconv.Atoi(text)
		}
	}
	return value
}

// license issues a license.
func (n *network) license(cpCode string, maxUser int) (authKey string) {
	n.t.Helper()
	code, issued, errs := ieum(n.t, "license", "issue", "--license-signing-key-file", n.signing,
		"--cp-code", cpCode, "--max-user", strconv.Itoa(maxUser))
	if code != exitOK {
		n.t.Fatal(errs)
	}
	_, authKey, _ = strings.Cut(issued, "authKey")
	return strings.Fields(authKey)[0]
}

// guest is a client whose connection may break at any time.
type guest struct {
	gws.BuiltinEventHandler
	ws      *gws.Conn
	asked   atomic.Int64
	answers chan map[string]any
	gone    chan struct{} // closed with the connection
	ended   chan struct{} // for one: the room has ended

	mu     sync.Mutex
	code   int              // Guarded by mu: with which the server closed.
	events []map[string]any // Guarded by mu: presence events.
}

// dialer dials in the namespace of clients.
type dialer string

func (d dialer) Dial(network, addr string) (net.Conn, error) {
	return dialIn(string(d), network, addr)
}

// visit connects a client to a node.
func (n *netNode) visit(path string) (*guest, error) {
	g := &guest{
		answers: make(chan map[string]any, 64),
		gone:    make(chan struct{}),
		ended:   make(chan struct{}, 1),
	}
	var err error
	g.ws, _, err = gws.NewClient(g, &gws.ClientOption{
		Addr:             "ws://" + n.ip + ":" + netPort + path,
		HandshakeTimeout: 3 * time.Second,
		NewDialer: func() (gws.Dialer, error) {
			return dialer(n.prefix + "clients"), nil
		},
	})
	if err != nil {
		return nil, err
	}
	go g.ws.ReadLoop()
	return g, nil
}

// OnClose implements gws.Event.
func (g *guest) OnClose(_ *gws.Conn, err error) {
	if e := (*gws.CloseError)(nil); errors.As(err, &e) {
		g.mu.Lock()
		g.code = int(e.Code)
		g.mu.Unlock()
	}
	close(g.gone)
}

// OnMessage implements gws.Event.
func (g *guest) OnMessage(_ *gws.Conn, b *gws.Message) {
	defer b.Close()
	var v map[string]any
	switch _ = json.Unmarshal(b.Bytes(), &v); {
	case v["code"] != nil:
		select {
		case g.answers <- v:
		case <-time.After(time.Second): // nobody waits for it any more
		}
	case v["eventOp"] == "presence":
		g.mu.Lock()
		g.events = append(g.events, v)
		g.mu.Unlock()
		if v["type"] == "destroy" {
			select {
			case g.ended <- struct{}{}:
			default:
			}
		}
	}
}

// seen are the presence events of this connection so far.
func (g *guest) seen() []map[string]any {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.events[:len(g.events):len(g.events)]
}

// enter registers a user.
func (n *netNode) enter(tenant, authKey, user string) (*guest, error) {
	g, err := n.visit("/signal")
	if err != nil {
		return nil, err
	}
	a := g.ask(map[string]any{
		"eventOp": "register", "cpCode": tenant, "authKey": authKey, "userId": user,
	})
	if a["code"] != "200" {
		g.leave()
		return nil, fmt.Errorf("%s at %s: %v", user, n.name, a)
	}
	return g, nil
}

// do sends a request about a room that must succeed.
func (g *guest) do(t *testing.T, op, room string) map[string]any {
	t.Helper()
	a := g.ask(map[string]any{"eventOp": op, "roomId": room})
	if a["code"] != "200" {
		t.Fatalf("%s %s: %v", op, room, a)
	}
	return a
}

// leave breaks the connection, and waits until nothing comes any more.
func (g *guest) leave() {
	_ = g.ws.NetConn().Close()
	<-g.gone
}

// quit ends the session.
func (g *guest) quit() {
	g.ws.WriteClose(1000, nil)
	g.leave()
}

// answerTime bounds the wait for an answer. A node answers sooner, or says why not.
const answerTime = 8 * time.Second

// ask sends a request and returns the answer; nil: none came.
func (g *guest) ask(q map[string]any) map[string]any {
	id := strconv.FormatInt(g.asked.Add(1), 10)
	q["reqId"] = id
	b, err := json.Marshal(q)
	if err != nil {
		panic(err)
	}
	if g.ws.WriteMessage(gws.OpcodeText, b) != nil {
		return nil
	}
	end := time.NewTimer(answerTime)
	defer end.Stop()
	for {
		select {
		case a := <-g.answers:
			if a["reqId"] == id {
				return a
			}
		case <-g.gone:
			return nil
		case <-end.C:
			return nil
		}
	}
}
