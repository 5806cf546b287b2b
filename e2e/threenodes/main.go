// Command threenodes starts three nodes of a cluster and a load balancer before them, for trying.
// It prints the address to open, and how to kill a node. Ctrl-C ends everything.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"syscall"
	"time"
)

const startTimeout = 30 * time.Second

func main() {
	program := flag.String("ieum", "bin/ieum", "server program")
	listen := flag.String("listen", "127.0.0.1:7102", "address of the load balancer")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *program, *listen, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "threenodes:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, program, listen string, out io.Writer) error {
	folder, err := os.MkdirTemp("", "ieum-nodes-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	starter := &starter{program: program, folder: folder, secret: rand.Text() + rand.Text()}
	var nodes []*node
	defer func() {
		for _, n := range nodes {
			n.stop()
		}
	}()
	for _, name := range []string{"n1", "n2", "n3"} {
		n, err := starter.start(name, out)
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if err := n.awaitReady(ctx); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		say(out, "%s: process %d at http://%s/, metrics http://%s/metrics. To kill it: kill -9 %d",
			n.name, n.command.Process.Pid, n.host, n.admin, n.command.Process.Pid)
	}
	say(out, "Three nodes are one service. Open http://%s/sample", listener.Addr())
	server := &http.Server{Handler: newBalancer(nodes), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = server.Close() // the clients' connections end with the nodes
	}
	return err
}

// say prints a line. Nobody can be told that it failed.
func say(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, format+"\n", args...)
}

// starter starts nodes that share a secret and a development license.
type starter struct {
	program, folder, secret string
	peer                    string // the first node's address for others
}

// node is a running node.
type node struct {
	name, host, admin string
	command           *exec.Cmd
	stopped           atomic.Bool   // by this program
	ended             chan struct{} // closed at its end
}

var (
	hostLine  = regexp.MustCompile(`^\s+http://([\d.:]+)/$`)
	peerLine  = regexp.MustCompile(`--cluster-peer (\S+)`)
	adminLine = regexp.MustCompile(`http://([\d.:]+)/metrics`)
)

func (s *starter) start(name string, out io.Writer) (*node, error) {
	args := []string{"serve", "--dev", "--listen", "127.0.0.1:0", "--stun-listen", "off",
		"--admin-listen", "127.0.0.1:0", "--relay-ip", "127.0.0.1", "--log-level", "error",
		"--node", name, "--cluster-listen", "127.0.0.1:0", "--cluster-expect", "3"}
	if s.peer != "" {
		args = append(args, "--cluster-peer", s.peer)
	}
	n := &node{name: name, command: exec.Command(s.program, args...), ended: make(chan struct{})}
	// the license of --dev is kept in this folder; the first node makes it
	n.command.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(s.folder, "cache"),
		"IEUM_CLUSTER_SECRET="+s.secret)
	n.command.Stderr = os.Stderr
	n.command.SysProcAttr = ownGroup() // Ctrl-C reaches this program alone, which ends the nodes
	said, err := n.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.command.Start(); err != nil {
		return nil, err
	}
	known := make(chan string, 1)
	go func() {
		defer close(n.ended)
		peer := n.read(said, known)
		close(known)
		_ = n.command.Wait()
		if peer != "" && !n.stopped.Load() {
			say(out, "%s has ended. Its users resume on the others.", name)
		}
	}()
	select {
	case peer, ok := <-known:
		if !ok {
			return nil, fmt.Errorf("%s ended before it listened", name)
		}
		if s.peer == "" {
			s.peer = peer
		}
		return n, nil
	case <-time.After(startTimeout):
		n.stop()
		return nil, fmt.Errorf("%s does not start", name)
	}
}

// read reads what the node prints, and passes on its address for other nodes when it has printed
// all addresses.
func (n *node) read(said io.Reader, known chan<- string) (peer string) {
	for lines := bufio.NewScanner(said); lines.Scan(); {
		line := lines.Text()
		if m := hostLine.FindStringSubmatch(line); m != nil && n.host == "" {
			n.host = m[1]
		}
		if m := adminLine.FindStringSubmatch(line); m != nil {
			n.admin = m[1]
		}
		if m := peerLine.FindStringSubmatch(line); m != nil {
			peer = m[1]
		}
		if known != nil && n.host != "" && n.admin != "" && peer != "" {
			known <- peer
			known = nil
		}
	}
	return peer
}

// awaitReady waits until the node admits users.
func (n *node) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.admin+"/readyz", nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(r); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", n.name, ctx.Err())
		case <-n.ended:
			return errors.New(n.name + " has ended")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stop ends the node, if it runs.
func (n *node) stop() {
	n.stopped.Store(true)
	_ = n.command.Process.Kill() // fails if it has ended
	<-n.ended
}
