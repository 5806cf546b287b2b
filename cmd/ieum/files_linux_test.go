package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A server that may have few descriptors keeps some of them for those who want to call, however
// many connections others leave open.
func TestIdleConnectionsDoNotUseUpTheDescriptors(t *testing.T) {
	const limit = 300
	c := exec.Command(
		"/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" -test.run=^$`, limit), os.Args[0],
	)
	c.Env = append(os.Environ(), runAs+"="+strings.Join([]string{
		"serve", "--dev", "--listen", "127.0.0.1:0", "--stun-listen", "127.0.0.1:0",
		"--admin-listen", "127.0.0.1:0", "--log-level", "warn",
	}, "\n"))
	log, lines := logLines()
	defer log.Close()
	said, _ := launch(t, c, log, `127.0.0.1:\d+/$`, `http://127.0.0.1:\d+/metrics`)
	host, admin := strings.TrimSuffix(said[0], "/"), strings.TrimSuffix(said[1], "metrics")
	for i := range 2 * limit {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(i, err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err = io.WriteString(c, "GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(i, err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("the %dth connection was not served: %v", i, err)
		}
		_ = res.Body.Close()
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.Process.Pid))
	if err != nil || len(open) > limit/2 {
		t.Errorf("%d of %d descriptors are used, %v", len(open), limit, err)
	}
	var license map[string]any
	if _, body := get(
		t, "http://"+host+"/dev/license",
	); json.Unmarshal([]byte(body), &license) != nil {
		t.Fatal(body)
	}
	m := connect(t, host, new(atomic.Int64))
	defer m.ws.NetConn().Close()
	license["eventOp"] = "register"
	m.ask(t, license)
	m.ask(t, map[string]any{"eventOp": "createRoom", "roomId": "room"})
	// readiness allocates at the relay
	if status, reason := get(t, admin+"readyz"); status != http.StatusOK {
		t.Errorf("the relay: %d %s", status, reason)
	}
	_, metrics := get(t, admin+"metrics")
	for _, line := range []string{
		`ieum_http_connections{state="idle"} 3`,
		`ieum_limit_rejections_total{limit="http_connections"}`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("no %s in the metrics", line)
		}
	}
	select {
	case line := <-lines:
		t.Errorf("the log says %s", line)
	default:
	}
}
