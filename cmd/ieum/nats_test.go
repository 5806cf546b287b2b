package main

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsServer starts a NATS server with JetStream.
func natsServer(t *testing.T, folder string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host:      "127.0.0.1",
		Port:      port,
		Username:  "ieum",
		Password:  "pass",
		JetStream: true,
		StoreDir:  folder,
		NoSigs:    true,
		NoLog:     true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS has not started")
	}
	return s
}

// startNATSNode starts a node that meets others at a NATS server.
func startNATSNode(t *testing.T, name, signing, url string) *clusterNode {
	t.Helper()
	n, _ := launchNode(t, name, signing, []string{"--cluster-nats", url})
	return n
}

// Nodes that meet at NATS servers are one service. While NATS is away rooms go on where they are,
// and nobody new is admitted; when it is back everything is as before.
func TestNodesMeetAtNATSServers(t *testing.T) {
	folder := t.TempDir()
	s := natsServer(t, folder, server.RANDOM_PORT)
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	port := s.Addr().(*net.TCPAddr).Port
	signing := file(t, "signing", key+"\n")
	code, issued, errs := ieum(t, "license", "issue", "--license-signing-key-file", signing,
		"--cp-code", "acme", "--max-user", "100")
	if code != exitOK {
		t.Fatal(errs)
	}
	_, license, _ := strings.Cut(issued, "authKey")
	url := fmt.Sprintf("nats://ieum:pass@127.0.0.1:%d", port)
	nodes := []*clusterNode{
		startNATSNode(t, "a", signing, url),
		startNATSNode(t, "b", signing, url),
	}
	var passed atomic.Int64
	try := func(n *clusterNode, user string) (*member, any) {
		m := connect(t, n.host, &passed)
		answer := m.try(t, map[string]any{"eventOp": "register", "cpCode": "acme",
			"authKey": strings.Fields(license)[0], "userId": user})
		return m, answer["code"]
	}
	register := func(n *clusterNode, user string) *member {
		m, code := try(n, user)
		if code != "200" {
			t.Fatalf("%s at %s: %v", user, n.name, code)
		}
		return m
	}
	for _, n := range nodes {
		n.awaitReady(t, 200)
	}
	kim, lee, han := register(nodes[0], "kim"), register(nodes[1], "lee"), register(nodes[0], "han")
	kim.ask(t, map[string]any{"eventOp": "createRoom", "roomId": "room"})
	for _, m := range []*member{kim, han, lee} {
		m.ask(t, map[string]any{"eventOp": "joinRoom", "roomId": "room"})
	}
	says := func(m *member, text string, others ...*member) {
		m.ask(t, map[string]any{"eventOp": "chat", "roomId": "room", "message": text})
		for _, o := range others {
			for e := await(t, o.events); e["message"] != text; e = await(t, o.events) {
				if e["type"] != "join" {
					t.Errorf("before %q came %v", text, e)
				}
			}
		}
	}
	says(lee, "across", kim, han)
	if _, code := try(nodes[1], "kim"); code != "409" {
		t.Errorf("kim on two nodes: %v", code)
	}

	s.Shutdown()
	s.WaitForShutdown()
	for _, n := range nodes {
		n.awaitReady(t, 503)
		if n.status(t, "/healthz") != 200 {
			t.Errorf("%s is not alive", n.name)
		}
		if status, again := handshake(t, n.host, "/signal"); status != 503 || again == "" {
			t.Errorf("%s admits: %d, Retry-After %q", n.name, status, again)
		}
	}
	says(kim, "alone", han)
	s = natsServer(t, folder, port)
	for _, n := range nodes {
		n.awaitReady(t, 200)
	}
	register(nodes[1], "new")
	says(lee, "again", kim, han)
}
