//go:build linux

// Netlab builds a small internet out of network namespaces on this machine: two homes behind NATs
// of a chosen kind, a server, and cables with delay, jitter, loss and an off switch between them.
// Real browsers are then started inside the homes. It needs root.
//
//	netlab up --a cone --b sym --rtt 20ms
//
// builds it, prints one line of JSON that says what is where, and stays. The laboratory is taken
// down when its standard input closes or on SIGTERM, SIGINT or SIGHUP, with every process inside;
// also when netlab itself is killed. Any number can stand side by side.
//
//	netlab sweep
//
// takes down what a crash of the whole group of processes left over; `up` does it too.
//
// The control socket named in the JSON takes one JSON object a line and answers each with one:
//
//	{"link":"a"}                                             how it behaves, what it has counted
//	{"link":"a","set":{"delay":"50ms","loss":"0.02"}}        both directions
//	{"link":"a","dir":"up","set":{"down":"true"}}        up: to the internet; down: from it
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ieum-rtc/ieum/e2e/netlab/topo"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "netlab:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("want up or sweep")
	}
	// ip and nft are not in an ordinary user's path on Debian.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	switch args[0] {
	case "up":
		spec, err := parse(args[1:])
		if err != nil {
			return err
		}
		return up(spec)
	case "sweep":
		return sweep()
	case guardCommand:
		return guard(args[1:])
	default:
		return fmt.Errorf("no command %q: want up or sweep", args[0])
	}
}

// parse reads the flags of up; the prefix is not among them.
func parse(args []string) (topo.Spec, error) {
	fs := flag.NewFlagSet("netlab up", flag.ContinueOnError)
	a := fs.String("a", "cone", "NAT of client a: none, cone, full, sym, udpblock, only443, v6")
	b := fs.String("b", "cone", "NAT of client b: as a, or same (a's own)")
	rtt := fs.Duration(
		"rtt",
		20*time.Millisecond,
		"round trip between any two of a, b and the server",
	)
	ports := fs.String("tcp-ports", "80,443,3478", "TCP ports open to a client behind udpblock")
	if err := fs.Parse(args); err != nil {
		return topo.Spec{}, err
	}
	if fs.NArg() > 0 {
		return topo.Spec{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	// Any prefix passes here; the claim brings the real one.
	spec := topo.Spec{Prefix: "ieum", A: topo.NAT(*a), B: topo.NAT(*b), RTT: *rtt}
	for p := range strings.SplitSeq(*ports, ",") {
		n, err := strconv.Atoi(p)
		if err != nil {
			return topo.Spec{}, fmt.Errorf("TCP port %q is no number", p)
		}
		spec.TCPPorts = append(spec.TCPPorts, n)
	}
	return spec, spec.Validate()
}

// announcement is what up prints when everything stands.
type announcement struct {
	Prefix  string      `json:"prefix"`
	Control string      `json:"control"` // path of the control socket
	Server  server      `json:"server"`
	A       topo.Client `json:"a"`
	B       topo.Client `json:"b"`
	Links   []string    `json:"links"`
}

type server struct {
	NS string `json:"ns"`
	V4 string `json:"v4"`
	V6 string `json:"v6"`
}

func up(spec topo.Spec) (err error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if err := sweep(); err != nil {
		return err
	}
	c, err := newClaim()
	if err != nil {
		return err
	}
	// From here on the guard takes everything down, whatever becomes of this process.
	defer func() { err = errors.Join(err, c.release()) }()
	spec.Prefix = c.prefix

	l, err := build(spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	ctl, err := serve(c.socket(), l.links)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ctl.close()) }()

	a := announcement{
		Prefix: c.prefix, Control: c.socket(), Links: l.names, A: l.plan.A, B: l.plan.B,
		Server: server{NS: l.plan.Server, V4: topo.ServerV4, V6: topo.ServerV6},
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		return err
	}
	// Reading standard input cannot be interrupted; this one goroutine ends with the process, which
	// is about to end when it is no longer waited for.
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	select {
	case <-closed:
		return nil
	case <-signals:
		return nil
	case err := <-l.failed:
		return err
	}
}
