//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/ieum-rtc/ieum/e2e/netlab/link"
)

// request is one line on the control socket.
type request struct {
	Link string            `json:"link"`
	Dir  string            `json:"dir"` // up, down or empty for both
	Set  map[string]string `json:"set"`
}

type reply struct {
	Error string `json:"error,omitempty"`
	Up    *state `json:"up,omitempty"`
	Down  *state `json:"down,omitempty"`
}

type state struct {
	link.Params
	link.Counters
}

type control struct {
	listener net.Listener
	links    map[string]*link.Link
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	shut  bool
}

// A few test files at a time need the socket; more connections are a mistake.
const maxConns = 16

func serve(path string, links map[string]*link.Link) (*control, error) {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	c := &control{listener: ln, links: links, conns: map[net.Conn]bool{}}
	c.wg.Go(c.accept)
	return c, nil
}

func (c *control) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		if c.shut || len(c.conns) == maxConns {
			c.mu.Unlock()
			_ = conn.Close()
			continue
		}
		c.conns[conn] = true
		c.mu.Unlock()
		c.wg.Go(func() { c.talk(conn) })
	}
}

func (c *control) talk(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		c.mu.Lock()
		delete(c.conns, conn)
		c.mu.Unlock()
	}()
	out := json.NewEncoder(conn)
	for in := bufio.NewScanner(conn); in.Scan(); {
		var r request
		a := reply{}
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			a.Error = err.Error()
		} else {
			a = c.do(r)
		}
		if out.Encode(a) != nil {
			return
		}
	}
}

func (c *control) do(r request) reply {
	l := c.links[r.Link]
	if l == nil {
		return reply{Error: fmt.Sprintf("no link %q", r.Link)}
	}
	dirs := []link.Direction{link.Up, link.Down}
	switch r.Dir {
	case "":
	case "up":
		dirs = dirs[:1]
	case "down":
		dirs = dirs[1:]
	default:
		return reply{Error: fmt.Sprintf("no direction %q: want up, down or none", r.Dir)}
	}
	// All or nothing: every new state is made before the first one is set. One lock, so that two
	// clients' changes do not undo each other.
	c.mu.Lock()
	defer c.mu.Unlock()
	var next []link.Params
	for _, d := range dirs {
		p, _ := l.Get(d)
		for k, v := range r.Set {
			if err := p.Set(k, v); err != nil {
				return reply{Error: err.Error()}
			}
		}
		next = append(next, p)
	}
	for i, d := range dirs {
		l.Set(d, next[i])
	}
	var a reply
	for _, d := range dirs {
		p, n := l.Get(d)
		s := &state{p, n}
		if d == link.Up {
			a.Up = s
		} else {
			a.Down = s
		}
	}
	return a
}

func (c *control) close() error {
	c.mu.Lock()
	c.shut = true
	conns := slices.Collect(maps.Keys(c.conns))
	c.mu.Unlock()
	err := c.listener.Close()
	for _, k := range conns {
		if e := k.Close(); !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	c.wg.Wait()
	return err
}
