package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/bench/mix"
)

// A server under the load of many users loses nothing, keeps the order, closes nobody, and holds no
// more at the end than after a third of the time. `make load` and `make soak` run it, and say with
// IEUM_LOAD how much load and for how long: flags of `ieum-bench mix`.
func TestNothingIsLostUnderLoad(t *testing.T) {
	flags := strings.Fields(os.Getenv("IEUM_LOAD"))
	if len(flags) == 0 {
		t.Skip("make load runs it")
	}
	if runtime.GOOS != "linux" {
		t.Skip("what a server holds is read from /proc")
	}
	program, err := os.Stat("../../bin/ieum")
	if err != nil {
		t.Fatalf("%v: make build", err)
	}
	t.Setenv("IEUM_LICENSE_SIGNING_KEY", key)
	server := exec.Command(
		"../../bin/"+program.Name(),
		"serve",
		"--listen",
		"127.0.0.1:0",
		"--stun-listen",
		"off",
		"--relay-ip",
		"127.0.0.1",
		"--admin-listen",
		"127.0.0.1:0",
		"--admin-pprof",
		"--log-level",
		"error",
	)
	said := launch(t, server, `http://[^/]+`, `http://\S+/metrics`)
	code, out, errs := ieumBench(t, append([]string{
		"mix",
		"--url", "ws" + strings.TrimPrefix(said[0], "http") + "/signal",
		"--admin", strings.TrimSuffix(said[1], "/metrics"),
		"--pid", strconv.Itoa(server.Process.Pid),
	}, flags...)...)
	t.Log(out)
	var r mix.Report
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("%d, %v: %s", code, err, errs)
	}
	if err := r.Grown(); err != nil {
		t.Error(err)
	}
	if r.After.Sessions != r.Conns || r.After.Rooms != r.Rooms {
		t.Errorf(
			"%d sessions in %d rooms, want %d in %d",
			r.After.Sessions,
			r.After.Rooms,
			r.Conns,
			r.Rooms,
		)
	}
}
