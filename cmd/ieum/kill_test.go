package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lxzan/gws"
)

// runAs makes the test's program a server of its own, which can be killed.
const runAs = "IEUM_TEST_RUN"

func runInstead() {
	if args := os.Getenv(runAs); args != "" {
		os.Args = append(os.Args[:1], strings.Split(args, "\n")...)
		main()
	}
}

// process starts a server and returns where it is, and what kills it with SIGKILL.
func process(t *testing.T, data string) (host string, kill func()) {
	t.Helper()
	u, _, kill := spawn(
		t, os.Stderr, "serve", "--dev",
		"--listen", "127.0.0.1:0",
		"--stun-listen", "off",
		"--admin-listen", "off",
		"--log-level", "error",
		"--data", data,
	)
	return u.Host, kill
}

// spawn runs a command that serves as a process of its own, and returns the address it prints.
func spawn(t *testing.T, log io.Writer, args ...string) (at *url.URL, p *os.Process, kill func()) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^$")
	c.Env = append(os.Environ(), runAs+"="+strings.Join(args, "\n"))
	said, kill := launch(t, c, log, `https?://\S+/`)
	at, err := url.Parse(said[0])
	if err != nil {
		t.Fatal(err)
	}
	return at, c.Process, kill
}

// launch starts a server and returns the first match of each pattern in what it prints, in that
// order, and what kills it with SIGKILL.
func launch(
	t *testing.T, c *exec.Cmd, log io.Writer, patterns ...string,
) (said []string, kill func()) {
	t.Helper()
	c.Stderr = log
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	t.Cleanup(kill)
	for lines := bufio.NewScanner(out); len(said) < len(patterns) && lines.Scan(); {
		if found := regexp.MustCompile(patterns[len(said)]).FindString(lines.Text()); found != "" {
			said = append(said, found)
		}
	}
	if len(said) < len(patterns) {
		t.Fatalf("the server said no more than %v", said)
	}
	return said, kill
}

// member is a user in a room. Events and answers come apart; what others pass on is counted.
type member struct {
	gws.BuiltinEventHandler
	ws      *gws.Conn
	answers chan map[string]any
	events  chan map[string]any
	passed  *atomic.Int64
	closed  chan int // gets the code with which the server closed; nil: nobody asks
}

func (m *member) OnClose(_ *gws.Conn, err error) {
	var e *gws.CloseError
	if m.closed != nil && errors.As(err, &e) {
		m.closed <- int(e.Code)
	}
}

func (m *member) OnMessage(_ *gws.Conn, b *gws.Message) {
	defer b.Close()
	var v map[string]any
	switch _ = json.Unmarshal(b.Bytes(), &v); {
	case v["code"] != nil:
		m.answers <- v
	case v["eventOp"] == "presence":
		m.events <- v
	default:
		m.passed.Add(1)
	}
}

func connect(t *testing.T, host string, passed *atomic.Int64) *member {
	t.Helper()
	m := &member{
		answers: make(chan map[string]any, 64),
		events:  make(chan map[string]any, 64),
		passed:  passed,
	}
	var err error
	if m.ws, _, err = gws.NewClient(
		m, &gws.ClientOption{Addr: "ws://" + host + "/signal"},
	); err != nil {
		t.Fatal(err)
	}
	go m.ws.ReadLoop()
	return m
}

// ask is try for a request that must succeed.
func (m *member) ask(t *testing.T, q map[string]any) map[string]any {
	t.Helper()
	a := m.try(t, q)
	if a["code"] != "200" {
		t.Fatalf("%v: %v", q, a)
	}
	return a
}

// try sends a request and returns the answer.
func (m *member) try(t *testing.T, q map[string]any) map[string]any {
	t.Helper()
	q["reqId"] = "1"
	b, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ws.WriteMessage(gws.OpcodeText, b); err != nil {
		t.Fatal(err)
	}
	return await(t, m.answers)
}

func await(t *testing.T, from chan map[string]any) map[string]any {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		return nil
	}
}

// A server that is killed while 200 members pass messages on, and started again, is one that nobody
// has left.
func TestKilledUnderLoadNobodyLeaves(t *testing.T) {
	const users, size = 200, 4
	data := t.TempDir()
	host, kill := process(t, data)
	var license struct{ CpCode, AuthKey string }
	if _, body := get(
		t, "http://"+host+"/dev/license",
	); json.Unmarshal([]byte(body), &license) != nil {
		t.Fatal(body)
	}
	register := map[string]any{
		"eventOp": "register",
		"cpCode":  license.CpCode,
		"authKey": license.AuthKey,
	}
	with := func(more map[string]any) map[string]any {
		q := map[string]any{}
		for _, from := range []map[string]any{register, more} {
			for k, v := range from {
				q[k] = v
			}
		}
		return q
	}
	var passed atomic.Int64
	members, secrets := make([]*member, users), make([]any, users)
	room := func(i int) string { return fmt.Sprintf("room-%d", i/size) }
	for i := range members {
		m := connect(t, host, &passed)
		members[i] = m
		secrets[i] = m.ask(t, with(map[string]any{"userId": fmt.Sprintf("user-%d", i)}))["resume"]
		if i%size == 0 {
			m.ask(t, map[string]any{"eventOp": "createRoom", "roomId": room(i)})
		}
		m.ask(t, map[string]any{"eventOp": "joinRoom", "roomId": room(i)})
	}
	// each passes messages on to the next in its room, until the connection breaks
	var sending sync.WaitGroup
	for i, m := range members {
		text := fmt.Appendf(
			nil, `{"eventOp":"candidate","target":"user-%d","candidate":{}}`,
			i/size*size+(i+1)%size,
		)
		sending.Go(func() {
			every := time.NewTicker(50 * time.Millisecond)
			defer every.Stop()
			for m.ws.WriteMessage(gws.OpcodeText, text) == nil {
				<-every.C
			}
		})
	}
	for end := time.Now().Add(20 * time.Second); passed.Load() < 10*users; <-time.After(
		10 * time.Millisecond,
	) {
		if time.Now().After(end) {
			t.Fatalf("only %d messages were passed on", passed.Load())
		}
	}
	kill()
	sending.Wait()
	for i, m := range members {
		for range size - 1 - i%size {
			if e := await(t, m.events); e["type"] != "join" {
				t.Errorf("before the end user-%d saw %v", i, e)
			}
		}
		if len(m.events) > 0 {
			t.Errorf("before the end user-%d saw %v", i, <-m.events)
		}
	}

	host, _ = process(t, data)
	for i := range members {
		members[i] = connect(t, host, &passed)
		a := members[i].ask(t, with(map[string]any{"resume": secrets[i]}))
		state, _ := a["room"].(map[string]any)
		inside, _ := state["members"].(map[string]any)
		if a["resumed"] != true || state["roomId"] != room(i) || len(inside) != size ||
			state["seq"] != float64(size) {
			t.Fatalf("user-%d came back to %v", i, a)
		}
	}
	// the next number shows that nothing was said between
	for i, m := range members {
		if i%size == 0 {
			m.ask(t, map[string]any{"eventOp": "chat", "roomId": room(i), "message": "back"})
		}
		if i%size == 1 {
			if e := await(t, m.events); e["type"] != "chat" || e["seq"] != float64(size+1) {
				t.Errorf("user-%d saw %v", i, e)
			}
		}
	}
	for _, m := range members {
		_ = m.ws.NetConn().Close()
	}
}
