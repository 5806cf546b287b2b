package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// servers are nodes that say their names.
func servers(t *testing.T) (nodes []*node, all []*httptest.Server) {
	t.Helper()
	for i := range 3 {
		name := fmt.Sprint("n", i)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(name))
		}))
		t.Cleanup(s.Close)
		host := strings.TrimPrefix(s.URL, "http://")
		nodes, all = append(nodes, &node{name: name, host: host}), append(all, s)
	}
	return nodes, all
}

func ask(t *testing.T, h http.Handler, upgrade bool) (status int, name string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://balancer.example/", nil)
	if upgrade {
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Connection", "Upgrade")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestWebSocketsGoToTheNodesInTurn(t *testing.T) {
	nodes, all := servers(t)
	b := newBalancer(nodes)
	count := map[string]int{}
	for range 30 {
		_, name := ask(t, b, true)
		count[name]++
	}
	if len(count) != 3 || count["n0"] != 10 || count["n1"] != 10 {
		t.Errorf("connections %v", count)
	}
	all[0].Close()
	for range 6 {
		for _, upgrade := range []bool{false, true} {
			if status, name := ask(t, b, upgrade); status != http.StatusOK || name == "n0" {
				t.Errorf("with a dead node: %d of %q", status, name)
			}
		}
	}
	all[1].Close()
	all[2].Close()
	if status, _ := ask(t, b, true); status != http.StatusBadGateway {
		t.Errorf("with dead nodes only: %d", status)
	}
}
