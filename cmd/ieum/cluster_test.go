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
}

// startNode starts a node that founds a cluster of three, or joins one.
func startNode(t *testing.T, name, signing, secret string, peers ...string) *clusterNode {
	t.Helper()
	args := []string{
		"serve",
		"--listen", "127.0.0.1:0",
		"--stun-listen", "off",
		"--relay-allow-peer", "127.0.0.0/8",
		"--relay-ip", "127.0.0.1",
		"--admin-listen", "127.0.0.1:0",
		"--log-level", "error",
		"--license-signing-key-file", signing,
		"--node", name,
		"--cluster-listen", "127.0.0.1:0",
		"--cluster-secret-file", secret,
		"--cluster-expect", "3",
	}
	for _, p := range peers {
		args = append(args, "--cluster-peer", p)
	}
	c := exec.Command(os.Args[0], "-test.run=^$")
	c.Env = append(os.Environ(), runAs+"="+strings.Join(args, "\n"))
	said, kill := launch(t, c, os.Stderr, `http://\S+/`, `--cluster-peer \S+`, `http://\S+/metrics`)
	n := &clusterNode{name: name, kill: kill}
	n.host = strings.Trim(strings.TrimPrefix(said[0], "http://"), "/")
	n.peer = strings.TrimPrefix(said[1], "--cluster-peer ")
	n.admin = strings.TrimSuffix(said[2], "/metrics")
	return n
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

// Three nodes are one service: users on different nodes meet in a room, and when a node is killed
// the others go on.
func TestThreeNodesAreOneService(t *testing.T) {
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
	b := startNode(t, "b", signing, secret, a.peer)
	c := startNode(t, "c", signing, secret, a.peer)
	nodes := []*clusterNode{a, b, c}
	for _, n := range nodes {
		n.awaitReady(t, 200)
	}

	var passed atomic.Int64
	register := func(n *clusterNode, user string) *member {
		m := connect(t, n.host, &passed)
		m.ask(t, map[string]any{
			"eventOp": "register",
			"cpCode":  "acme",
			"authKey": license,
			"userId":  user,
		})
		return m
	}
	kim, lee := register(b, "kim"), register(c, "lee")
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
