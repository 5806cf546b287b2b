package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lxzan/gws"
	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
)

const adminToken = "the admin token of all nodes"

// admin asks the admin listener with the token.
func (n *clusterNode) ask(t *testing.T, method, page string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequest(method, n.admin+page, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+adminToken)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// balancer knows the nodes that are ready.
type balancer struct {
	mu    sync.Mutex
	nodes []*clusterNode // Guarded by mu.
	next  int            // Guarded by mu.
}

func (b *balancer) remove(n *clusterNode) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes = slices.DeleteFunc(b.nodes, func(o *clusterNode) bool { return o == n })
}

func (b *balancer) add(n *clusterNode) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes = append(b.nodes, n)
}

func (b *balancer) pick() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	return b.nodes[b.next%len(b.nodes)].host
}

// roamer is a user in a room who chats, and comes back to any node when the connection is closed.
type roamer struct {
	t        *testing.T
	balancer *balancer
	cluster  *threeNodeCluster
	user     string
	room     string
	secret   any
	m        *member

	away  []time.Duration // how long without a connection, for each move
	codes []int           // with which connections were closed
}

func (r *roamer) connect(host string) {
	m := &member{
		answers: make(chan map[string]any, 64),
		events:  make(chan map[string]any, 4096),
		passed:  new(atomic.Int64),
		closed:  make(chan int, 1),
	}
	var err error
	m.ws, _, err = gws.NewClient(m, &gws.ClientOption{Addr: "ws://" + host + "/signal?resume"})
	if err != nil {
		r.t.Errorf("%s: %v", r.user, err)
		return
	}
	go m.ws.ReadLoop()
	r.m = m
}

// request sends one, and returns nil if the connection ends before it is answered.
func (r *roamer) request(q map[string]any) map[string]any {
	q["reqId"] = "1"
	b, err := json.Marshal(q)
	if err != nil {
		r.t.Error(err)
	}
	if r.m.ws.WriteMessage(gws.OpcodeText, b) != nil {
		return nil
	}
	select {
	case a := <-r.m.answers:
		return a
	case code := <-r.m.closed:
		r.m.closed <- code
		return nil
	case <-time.After(20 * time.Second):
		r.t.Errorf("%s: no answer to %v", r.user, q)
		return nil
	}
}

// comeBack resumes, with one retry.
func (r *roamer) comeBack() {
	began := time.Now()
	r.codes = append(r.codes, <-r.m.closed)
	r.readEvents()
	for range 2 {
		r.connect(r.balancer.pick())
		a := r.request(r.cluster.register(map[string]any{"userId": r.user, "resume": r.secret}))
		room, _ := a["room"].(map[string]any)
		switch {
		case a["code"] == "543":
			r.t.Logf("%s was told to try again", r.user)
			<-time.After(time.Second)
		case a["resumed"] != true || room["roomId"] != r.room:
			r.t.Errorf("%s came back to %v", r.user, a)
			return
		default:
			r.away = append(r.away, time.Since(began))
			r.secret = a["resume"]
			return
		}
	}
	r.t.Errorf("%s could not come back", r.user)
}

func (r *roamer) readEvents() {
	for len(r.m.events) > 0 {
		if e := <-r.m.events; e["type"] != "chat" && e["type"] != "join" {
			r.t.Errorf("%s saw %v", r.user, e)
		}
	}
}

// run chats until stop is closed. A request that gets no answer is tried once more.
func (r *roamer) run(stop <-chan struct{}) {
	every := time.NewTicker(200 * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-stop:
			r.readEvents()
			return
		case code := <-r.m.closed:
			r.m.closed <- code
			r.comeBack()
			continue
		case <-every.C:
		}
		chat := map[string]any{"eventOp": "chat", "roomId": r.room, "message": "hi"}
		a := r.request(chat)
		if a == nil {
			r.comeBack()
		}
		if a["code"] == "543" { // "try again in a second"
			<-time.After(time.Second)
		}
		if a == nil || a["code"] == "543" {
			a = r.request(chat)
		}
		if a["code"] != "200" {
			r.t.Errorf("%s: chat was answered %v", r.user, a)
		}
		r.readEvents()
	}
}

// hold makes an allocation at the relay of a user's node. An allocation that has ended grants no
// permission.
func hold(t *testing.T, registered map[string]any) (permit func() error, release func()) {
	t.Helper()
	var ice []struct {
		URLs                 []string
		Username, Credential string
	}
	b, err := json.Marshal(registered["iceServers"])
	if err == nil {
		err = json.Unmarshal(b, &ice)
	}
	if err != nil {
		t.Fatal(err)
	}
	relay := ice[len(ice)-1]
	uri, err := stun.ParseURI(relay.URLs[0])
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, err := turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port)),
		Conn:           conn,
		Username:       relay.Username,
		Password:       relay.Credential,
		LoggerFactory:  logging.NewDefaultLoggerFactory(),
	})
	if err == nil {
		err = client.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	relayed, err := client.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	peer := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}
	return func() error { return client.CreatePermission(peer) }, func() {
		_ = relayed.Close()
		client.Close()
		_ = conn.Close()
	}
}

// All nodes are restarted, one after the other, while users chat. Each is told to go elsewhere;
// nobody sees a leave, and no request fails.
func TestNobodyLeavesInARollingRestart(t *testing.T) {
	const rooms = 8
	if underRace {
		t.Skip("nodes with the race detector are late for their leases, and count as dead")
	}
	t.Setenv("IEUM_ADMIN_TOKEN", adminToken)
	t.Setenv("IEUM_DRAIN_TIMEOUT", "6s")
	c := startThree(t)
	b := &balancer{nodes: slices.Clone(c.nodes)}
	roamers := make([]*roamer, 0, 3*rooms)
	var permit func() error
	var release func()
	for i := range rooms {
		id := fmt.Sprint("room", i)
		for at := range c.nodes {
			r := &roamer{t: t, balancer: b, cluster: c, room: id, user: fmt.Sprint("u", i, at)}
			r.connect(c.nodes[(i+at)%3].host)
			registered := r.m.ask(t, c.register(map[string]any{"userId": r.user}))
			r.secret = registered["resume"]
			if at == 0 {
				r.m.ask(t, map[string]any{"eventOp": "createRoom", "roomId": id})
			}
			r.m.ask(t, map[string]any{"eventOp": "joinRoom", "roomId": id})
			if i+at == 0 {
				permit, release = hold(t, registered)
			}
			roamers = append(roamers, r)
		}
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	for _, r := range roamers {
		running.Go(func() { r.run(stop) })
	}
	for i, n := range c.nodes {
		b.remove(n)
		began := time.Now()
		if i == 0 {
			if code, body := n.ask(t, "POST", "/drain"); code != http.StatusAccepted {
				t.Errorf("POST /drain: %d %s", code, body)
			}
		} else if err := n.process.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		n.drains(t, c.nodes[(i+1)%3])
		// A call goes on after its session has moved, which takes 3 s at most. The relay asks for
		// the session every 2 s.
		for i == 0 && time.Since(began) < 5300*time.Millisecond {
			if err := permit(); err != nil {
				t.Fatalf("the allocation has ended after %v: %v", time.Since(began), err)
			}
			<-time.After(50 * time.Millisecond)
		}
		if i == 0 {
			release()
		}
		if err := n.process.Wait(); err != nil {
			t.Errorf("%s ended with %v", n.name, err)
		}
		t.Logf("%s drained in %v", n.name, time.Since(began))
		rest := []string{c.nodes[(i+1)%3].peer, c.nodes[(i+2)%3].peer}
		c.nodes[i] = startNode(t, n.name, c.signing, c.secret, rest...)
		c.nodes[i].awaitReady(t, 200)
		b.add(c.nodes[i])
	}
	close(stop)
	running.Wait()
	var away []time.Duration
	for _, r := range roamers {
		away = append(away, r.away...)
		if slices.ContainsFunc(r.codes, func(code int) bool { return code != 1001 }) {
			t.Errorf("%s was closed with %v", r.user, r.codes)
		}
	}
	slices.Sort(away)
	t.Logf("%d moves, without a connection for %v (median), %v (most)",
		len(away), away[len(away)/2], away[len(away)-1])
}

// A second signal ends a drain, which would last an hour.
func TestASecondSignalEndsADrain(t *testing.T) {
	t.Setenv("IEUM_DRAIN_TIMEOUT", "1h")
	nodes, register := threeNodes(t)
	kim, answer := register(nodes[0], map[string]any{"userId": "kim"})
	if answer["code"] != "200" {
		t.Fatal(answer)
	}
	process := nodes[0].process.Process
	err := process.Signal(syscall.SIGTERM)
	nodes[0].awaitReady(t, http.StatusServiceUnavailable)
	if err := errors.Join(err, process.Signal(syscall.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].process.Wait(); err != nil {
		t.Error(err)
	}
	_ = kim.ws.NetConn().Close()
	resumed, answer := register(nodes[1], map[string]any{
		"userId": "kim", "resume": answer["resume"],
	})
	if answer["resumed"] != true {
		t.Errorf("kim came back to %v", answer)
	}
	_ = resumed.ws.NetConn().Close()
}

// drains checks what a node that was told to drain says.
func (n *clusterNode) drains(t *testing.T, other *clusterNode) {
	t.Helper()
	n.awaitReady(t, http.StatusServiceUnavailable)
	if _, body := n.ask(t, "GET", "/readyz"); !strings.Contains(body, "draining") {
		t.Errorf("/readyz of %s says %q", n.name, body)
	}
	for _, path := range []string{"/signal", "/signal?resume"} {
		if code, after := handshake(t, n.host, path); code != http.StatusServiceUnavailable ||
			after != "1" {
			t.Errorf("%s of %s: %d, Retry-After %q", path, n.name, code, after)
		}
	}
	const known = "\nieum_cluster_nodes{state=\"draining\"} 1\n"
	for end := time.Now().Add(3 * time.Second); ; <-time.After(20 * time.Millisecond) {
		_, text := other.ask(t, "GET", "/metrics")
		if strings.Contains(text, known) {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s does not know that %s drains", other.name, n.name)
			return
		}
	}
}
