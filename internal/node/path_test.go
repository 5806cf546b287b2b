package node

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/config"
)

var (
	attribute = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	imported  = regexp.MustCompile(`(?:from|import) '(\.[^']*)'`)
)

// Below a path of another site, with a proxy that takes the path off, all works that works at the
// root: every page and what it refers to, in both languages, redirects, the language's cookie, and
// both carriers. Nothing leads out of that path.
func TestServedBelowAPathOfAnotherSite(t *testing.T) {
	n := start(t, config.Server{Dev: true, TrustedProxies: []string{"127.0.0.1"}})
	to, err := url.Parse(n.URLs()[0])
	if err != nil {
		t.Fatal(err)
	}
	outside := []string{}
	mux := http.NewServeMux()
	mux.Handle("/calls/", http.StripPrefix("/calls", httputil.NewSingleHostReverseProxy(to)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		outside = append(outside, r.URL.Path)
		http.NotFound(w, r)
	})
	site := httptest.NewServer(mux)
	defer site.Close()
	jar, _ := cookiejar.New(nil)
	client := &http.Client{
		Timeout:   failSafe,
		Jar:       jar,
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	fetch := func(at string) (final *url.URL, body string) {
		t.Helper()
		res, err := client.Get(at)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d, %v", at, res.StatusCode, err)
		}
		return res.Request.URL, string(b)
	}
	seen := map[string]bool{}
	queue := []string{site.URL + "/calls/", site.URL + "/calls/?lang=ko"}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		if seen[at] {
			continue
		}
		seen[at] = true
		base, body := fetch(at)
		var refs [][]string
		switch {
		case strings.HasSuffix(base.Path, ".mjs"):
			refs = imported.FindAllStringSubmatch(body, -1)
		case strings.Contains(body, "<!doctype html>") && !strings.HasSuffix(base.Path, ".js"):
			refs = attribute.FindAllStringSubmatch(body, -1)
		}
		for _, ref := range refs {
			u, err := base.Parse(ref[1])
			if err != nil {
				t.Fatal(at, err)
			}
			if u.Host != base.Host {
				continue
			}
			if u.Fragment = ""; !strings.HasPrefix(u.Path, "/calls/") {
				t.Errorf("%s leads to %s", at, u)
			}
			queue = append(queue, u.String())
		}
	}
	for _, page := range []string{"/calls/", "/calls/p2p", "/calls/sample", "/calls/guide"} {
		if !seen[site.URL+page] {
			t.Errorf("no link leads to %s; seen are %v", page, seen)
		}
	}
	for _, path := range []string{
		"knowledgetalk.min.js", "knowledgetalk.mjs", "socket.io/socket.io.min.js", "favicon.ico",
		"healthz", "dev/license",
	} {
		fetch(site.URL + "/calls/" + path)
	}
	if final, _ := fetch(site.URL + "/calls/p2p/?x=1"); final.Path != "/calls/p2p" ||
		final.RawQuery != "x=1" {
		t.Errorf("with a slash: %s", final)
	}
	if _, body := fetch(site.URL + "/calls/guide?lang=ko"); !strings.Contains(body, `lang="ko"`) {
		t.Error("the language is not the one that was asked for")
	}
	if _, body := fetch(site.URL + "/calls/p2p"); !strings.Contains(body, `<html lang="ko">`) {
		t.Error("the language is not remembered")
	}
	if here, _ := url.Parse(site.URL + "/"); len(jar.Cookies(here)) != 0 {
		t.Error("the rest of the site gets our cookie")
	}
	if _, body := fetch(
		site.URL + "/calls/socket.io/?EIO=4&transport=polling",
	); !strings.HasPrefix(body, "0{") {
		t.Errorf("polling: %.60q", body)
	}
	login := map[string]any{"eventOp": "register"}
	if _, body := fetch(
		site.URL + "/calls/dev/license",
	); json.Unmarshal([]byte(body), &login) != nil {
		t.Fatal(body)
	}
	h := &answers{got: make(chan []byte, 1), done: make(chan struct{})}
	ws, _, err := gws.NewClient(
		h, &gws.ClientOption{Addr: "ws" + strings.TrimPrefix(site.URL, "http") + "/calls/signal"},
	)
	if err != nil {
		t.Fatal(err)
	}
	go ws.ReadLoop()
	b, _ := json.Marshal(login)
	if err := ws.WriteMessage(gws.OpcodeText, b); err != nil {
		t.Fatal(err)
	}
	if got := <-h.got; !strings.Contains(string(got), `"code":"200"`) {
		t.Errorf("register: %s", got)
	}
	_ = ws.NetConn().Close()
	<-h.done
	if len(outside) > 0 {
		t.Errorf("outside of the path were asked for: %v", outside)
	}
}
