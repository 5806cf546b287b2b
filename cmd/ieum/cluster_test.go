package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// clusterNode is a node as a process of its own.
type clusterNode struct {
	name, host, peer, admin string
	kill                    func()
	process                 *exec.Cmd
}

// startNode starts a node that founds a cluster of three, or joins one.
func startNode(t *testing.T, name, signing, secret string, peers ...string) *clusterNode {
	t.Helper()
	args := []string{
		"--relay-allow-peer", "127.0.0.0/8",
		"--cluster-listen", "127.0.0.1:0",
		"--cluster-secret-file", secret,
		"--cluster-expect", "3",
	}
	for _, p := range peers {
		args = append(args, "--cluster-peer", p)
	}
	n, said := launchNode(t, name, signing, args, `--cluster-peer \S+`)
	n.peer = strings.TrimPrefix(said[0], "--cluster-peer ")
	return n
}

// launchNode starts a node with more flags, and returns more of what it says.
func launchNode(
	t *testing.T, name, signing string, more []string, says ...string,
) (n *clusterNode, said []string) {
	t.Helper()
	args := append([]string{
		"serve",
		"--listen", "127.0.0.1:0",
		"--stun-listen", "off",
		"--relay-ip", "127.0.0.1",
		"--admin-listen", "127.0.0.1:0",
		"--log-level", "error",
		"--license-signing-key-file", signing,
		"--node", name,
	}, more...)
	c := exec.Command(os.Args[0], "-test.run=^$")
	c.Env = append(os.Environ(), runAs+"="+strings.Join(args, "\n"))
	lines := append([]string{`http://\S+/`}, append(says, `http://\S+/metrics`)...)
	said, kill := launch(t, c, os.Stderr, lines...)
	last := len(said) - 1
	return &clusterNode{
		name:    name,
		host:    strings.Trim(strings.TrimPrefix(said[0], "http://"), "/"),
		admin:   strings.TrimSuffix(said[last], "/metrics"),
		kill:    kill,
		process: c,
	}, said[1:last]
}

// status is the status of a page of the admin listener.
func (n *clusterNode) status(t *testing.T, page string) int {
	t.Helper()
	r, err := http.Get(n.admin + page)
	if err != nil {
		return 0
	}
	_ = r.Body.Close()
	return r.StatusCode
}

func (n *clusterNode) awaitReady(t *testing.T, want int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); n.status(t, "/readyz") != want; {
		if time.Now().After(end) {
			t.Fatalf("/readyz of %s is not %d", n.name, want)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// A node is killed that has users and owns rooms. They resume on the others, in their rooms; nobody
// sees a leave.
func TestNobodyLeavesWhenANodeIsKilled(t *testing.T) {
	const rooms = 20
	nodes, register := threeNodes(t)
	victim := nodes[1]
	members := map[string]*member{}
	secrets := map[string]any{}
	for i := range rooms {
		id := fmt.Sprint("room", i)
		for at := range nodes {
			k := (i + at) % len(nodes) // the first owns the room
			user := fmt.Sprint(nodes[k].name, i)
			m, answer := register(nodes[k], map[string]any{"userId": user})
			if answer["code"] != "200" {
				t.Fatal(answer)
			}
			members[user], secrets[user] = m, answer["resume"]
			if at == 0 {
				m.ask(t, map[string]any{"eventOp": "createRoom", "roomId": id})
			}
			m.ask(t, map[string]any{"eventOp": "joinRoom", "roomId": id})
		}
	}
	victim.kill()
	began := time.Now()
	for i := range rooms {
		user := fmt.Sprint(victim.name, i)
		for again := true; again; {
			q := map[string]any{"userId": user, "resume": secrets[user]}
			m, answer := register(nodes[2*(i%2)], q)
			members[user], again = m, answer["code"] == "543"
			room, _ := answer["room"].(map[string]any)
			if in, _ := room["members"].(map[string]any); !again && len(in) != len(nodes) {
				t.Fatalf("%s resumed: %v, in %v", user, answer["resumed"], room)
			}
		}
	}
	t.Logf("resumed %v after the kill", time.Since(began))
	for i := range rooms {
		id, speaker := fmt.Sprint("room", i), members[fmt.Sprint(victim.name, i)]
		speaker.ask(t, map[string]any{"eventOp": "chat", "roomId": id, "message": "back"})
		for _, n := range []*clusterNode{nodes[0], nodes[2]} {
			m := members[fmt.Sprint(n.name, i)]
			for e := await(t, m.events); e["type"] != "chat"; e = await(t, m.events) {
				if e["type"] != "join" {
					t.Errorf("a member of %s saw %v", id, e)
				}
			}
		}
	}
}

// handshake asks for a connection, and returns what is answered.
func handshake(t *testing.T, host, path string) (status int, retryAfter string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(path, "transport=polling") {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Sec-WebSocket-Version", "13")
		r.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode, res.Header.Get("Retry-After")
}

// threeNodes starts a cluster, and returns what registers a user on one of its nodes.
func threeNodes(t *testing.T) (
	nodes []*clusterNode, register func(*clusterNode, map[string]any) (*member, map[string]any),
) {
	t.Helper()
	c := startThree(t)
	var passed atomic.Int64
	return c.nodes, func(n *clusterNode, q map[string]any) (*member, map[string]any) {
		m := connect(t, n.host, &passed)
		return m, m.try(t, c.register(q))
	}
}

// threeNodeCluster is a cluster with one license.
type threeNodeCluster struct {
	nodes           []*clusterNode
	signing, secret string // files
	license         string
}

// register adds to a request what registers a user.
func (c *threeNodeCluster) register(q map[string]any) map[string]any {
	q["eventOp"], q["cpCode"], q["authKey"] = "register", "acme", c.license
	return q
}

func startThree(t *testing.T) *threeNodeCluster {
	t.Helper()
	signing := file(t, "signing", key+"\n")
	secret := file(t, "secret", "a secret of all three nodes, long enough\n")
	code, issued, errs := ieum(t, "license", "issue", "--license-signing-key-file", signing,
		"--cp-code", "acme", "--max-user", "100")
	if code != exitOK {
		t.Fatal(errs)
	}
	_, license, _ := strings.Cut(issued, "authKey")
	license = strings.Fields(license)[0]
	a := startNode(t, "a", signing, secret)
	if a.status(t, "/healthz") != 200 || a.status(t, "/readyz") != 503 {
		t.Error("a node without quorum is not alive, or ready")
	}
	for path, want := range map[string]int{
		"/signal":                             http.StatusServiceUnavailable,
		"/signal?resume":                      http.StatusSwitchingProtocols,
		"/socket.io/?EIO=4&transport=polling": http.StatusServiceUnavailable,
	} {
		if got, again := handshake(t, a.host, path); got != want ||
			again == "" && want == http.StatusServiceUnavailable {
			t.Errorf("%s of a node without quorum: %d, Retry-After %q", path, got, again)
		}
	}
	b := startNode(t, "b", signing, secret, a.peer)
	c := startNode(t, "c", signing, secret, a.peer)
	nodes := []*clusterNode{a, b, c}
	for _, n := range nodes {
		n.awaitReady(t, 200)
	}
	return &threeNodeCluster{nodes, signing, secret, license}
}

// Three nodes are one service: users on different nodes meet in a room, and when a node is killed
// the others go on.
func TestThreeNodesAreOneService(t *testing.T) {
	nodes, try := threeNodes(t)
	register := func(n *clusterNode, user string) *member {
		m, answer := try(n, map[string]any{"userId": user})
		if answer["code"] != "200" {
			t.Fatal(answer)
		}
		return m
	}
	kim, lee := register(nodes[1], "kim"), register(nodes[2], "lee")
	kim.ask(t, map[string]any{"eventOp": "createRoom", "roomId": "room"})
	kim.ask(t, map[string]any{"eventOp": "joinRoom", "roomId": "room"})
	joined := lee.ask(t, map[string]any{"eventOp": "joinRoom", "roomId": "room"})
	if members, _ := joined["members"].(map[string]any); len(members) != 2 {
		t.Errorf("lee joined %v", joined)
	}
	if e := await(t, kim.events); e["type"] != "join" {
		t.Errorf("kim saw %v", e)
	}

	var leader *clusterNode
	for _, n := range nodes {
		_, text := get(t, n.admin+"/metrics")
		if strings.Contains(text, "\nieum_cluster_raft_leader 1\n") {
			leader = n
		}
	}
	if leader == nil {
		t.Fatal("no node leads")
	}
	leader.kill()
	rest := make([]*clusterNode, 0, 2)
	for _, n := range nodes {
		if n != leader {
			rest = append(rest, n)
		}
	}
	began := time.Now()
	for i, n := range rest {
		register(n, fmt.Sprint("new", i)) // waits for the next leader
	}
	t.Logf("claims went on %v after the leader was killed", time.Since(began))
	for _, n := range rest {
		n.awaitReady(t, 200)
	}
	rest[0].kill()
	rest[1].awaitReady(t, 503)
	if rest[1].status(t, "/healthz") != 200 {
		t.Error("the last node is not alive")
	}
}
