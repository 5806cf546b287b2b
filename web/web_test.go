package web

import (
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func devLicense() (string, string) { return "KP-DEV", "eyJ.dev.key" }

// opened keeps the sites the tests share: a site never changes, and compressing it anew for each
// test takes seconds under -race.
var opened = make(map[string]*site)

func open(t *testing.T, c Config) *site {
	t.Helper()
	key := fmt.Sprint(c.DevLicense != nil, c.HSTS, c.Version)
	if s := opened[key]; s != nil {
		return s
	}
	s, err := newSite(c, embedded)
	if err != nil {
		t.Fatal(err)
	}
	opened[key] = s
	return s
}

// get asks as a browser would; header is a list of names and values.
func get(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func bodyOf(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryRouteSaysWhatItIs(t *testing.T) {
	s := open(t, Config{DevLicense: devLicense})
	types := map[string]string{
		"/": "text/html; charset=utf-8", "/p2p": "text/html; charset=utf-8",
		"/sample": "text/html; charset=utf-8",
		"/guide":  "text/html; charset=utf-8", "/dev/license": "application/json; charset=utf-8",
		"/knowledgetalk.min.js":           "text/javascript; charset=utf-8",
		"/knowledgetalk.mjs":              "text/javascript; charset=utf-8",
		"/knowledgetalk.d.ts":             "application/typescript; charset=utf-8",
		"/assets/ieum.css":                "text/css; charset=utf-8",
		"/assets/p2p.mjs":                 "text/javascript; charset=utf-8",
		"/assets/text.ko.js":              "text/javascript; charset=utf-8",
		"/socket.io/socket.io.min.js":     "text/javascript; charset=utf-8",
		"/socket.io/socket.io.min.js.map": "application/json; charset=utf-8",
		"/assets/logo.svg":                "image/svg+xml; charset=utf-8",
		"/favicon.ico":                    "image/svg+xml; charset=utf-8",
	}
	for path, want := range types {
		r := get(s, "GET", path)
		if r.StatusCode != 200 || r.Header.Get("Content-Type") != want {
			t.Errorf("%s: %d %q, want 200 %q", path, r.StatusCode, r.Header.Get("Content-Type"),
				want)
		}
		if bodyOf(t, r) == "" {
			t.Errorf("%s: empty", path)
		}
	}
	for _, path := range s.paths() {
		r := get(s, "GET", path)
		if r.StatusCode != 200 || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d, nosniff %q", path, r.StatusCode,
				r.Header.Get("X-Content-Type-Options"))
		}
		if r.Header.Get("Cache-Control") != "no-cache" ||
			!strings.HasPrefix(r.Header.Get("ETag"), `"`) {
			t.Errorf("%s: Cache-Control %q, ETag %q", path, r.Header.Get("Cache-Control"),
				r.Header.Get("ETag"))
		}
	}
}

func TestPagePolicy(t *testing.T) {
	s := open(t, Config{})
	const before = "default-src 'self'; connect-src 'self' ws: wss:; object-src 'none'; " +
		"base-uri 'none'; frame-ancestors "
	for path, ancestors := range map[string]string{
		"/": "'none'", "/p2p": "'self'", "/sample": "'none'", "/guide": "'none'",
		"/missing": "'none'",
	} {
		h := get(s, "GET", path).Header
		for name, want := range map[string]string{
			"Content-Security-Policy": before + ancestors +
				"; form-action 'none'; require-trusted-types-for 'script'",
			"Permissions-Policy": "camera=(self), microphone=(self), " +
				"display-capture=(self)",
			"Referrer-Policy":              "no-referrer",
			"X-Content-Type-Options":       "nosniff",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Access-Control-Allow-Origin":  "",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", path, name, h.Get(name), want)
			}
		}
	}
}

func TestSDKIsOpenToEveryPage(t *testing.T) {
	s := open(t, Config{})
	for _, path := range s.paths() {
		sdk := strings.HasPrefix(path, "/knowledgetalk.") || strings.HasPrefix(path, "/socket.io/")
		h := get(s, "GET", path).Header
		if got := h.Get("Access-Control-Allow-Origin"); (got == "*") != sdk || (got == "") == sdk {
			t.Errorf("%s: Access-Control-Allow-Origin %q", path, got)
		}
		want := "same-origin"
		if sdk {
			want = "cross-origin"
			if csp := h.Get("Content-Security-Policy"); csp != "" {
				t.Errorf("%s carries the policy %q", path, csp)
			}
		}
		if got := h.Get("Cross-Origin-Resource-Policy"); got != want {
			t.Errorf("%s: Cross-Origin-Resource-Policy %q, want %q", path, got, want)
		}
	}
}

func TestHSTSOnlyWhenAsked(t *testing.T) {
	for _, on := range []bool{false, true} {
		s := open(t, Config{HSTS: on})
		for _, path := range append(s.paths(), "/missing") {
			if got := get(s, "GET",
				path).Header.Get("Strict-Transport-Security"); (got != "") != on {
				t.Errorf("HSTS %v, %s: %q", on, path, got)
			}
		}
	}
}

func TestETagAnd304(t *testing.T) {
	s := open(t, Config{})
	for _, path := range s.paths() {
		tags := make(map[string]string)
		for _, encoding := range []string{"identity", "gzip"} {
			first := get(s, "GET", path, "Accept-Encoding", encoding)
			tag := first.Header.Get("ETag")
			if other, ok := tags[tag]; ok {
				t.Errorf("%s: one tag for %s and %s", path, other, encoding)
			}
			tags[tag] = encoding
			for _, match := range []string{tag, `"x", ` + tag, "*"} {
				again := get(s, "GET", path, "Accept-Encoding", encoding, "If-None-Match", match)
				if again.StatusCode != http.StatusNotModified || bodyOf(t, again) != "" ||
					again.Header.Get("ETag") != tag {
					t.Errorf("%s, If-None-Match %s: %d, tag %s", path, match, again.StatusCode,
						again.Header.Get("ETag"))
				}
			}
			if changed := get(s, "GET", path, "Accept-Encoding", encoding, "If-None-Match",
				`"other"`); changed.StatusCode != 200 {
				t.Errorf("%s, another tag: %d", path, changed.StatusCode)
			}
		}
	}
	ko, en := get(
		s,
		"GET",
		"/",
		"Accept-Language",
		"ko",
	), get(s, "GET", "/", "Accept-Language", "en")
	if ko.Header.Get("ETag") == en.Header.Get("ETag") {
		t.Error("both languages share a tag")
	}
	if vary := ko.Header.Get("Vary"); vary != "Accept-Encoding, Accept-Language, Cookie" {
		t.Errorf("Vary of a page: %q", vary)
	}
}

func TestCompressedIsTheSame(t *testing.T) {
	s := open(t, Config{})
	for _, path := range s.paths() {
		plain := bodyOf(t, get(s, "GET", path))
		for _, header := range []string{"gzip", "br, gzip;q=0.5"} {
			packed := get(s, "GET", path, "Accept-Encoding", header)
			if packed.Header.Get("Content-Encoding") != "gzip" {
				t.Errorf("%s, %s: not compressed", path, header)
				continue
			}
			z, err := gzip.NewReader(packed.Body)
			if err != nil {
				t.Fatal(err)
			}
			unpacked, err := io.ReadAll(z)
			if err != nil || string(unpacked) != plain {
				t.Errorf("%s: compressed differs (%v)", path, err)
			}
		}
		for _, header := range []string{"", "br", "gzip;q=0", "identity"} {
			if e := get(s, "GET", path, "Accept-Encoding",
				header).Header.Get("Content-Encoding"); e != "" {
				t.Errorf("%s, %q: encoded as %s", path, header, e)
			}
		}
	}
}

func TestMethods(t *testing.T) {
	s := open(t, Config{DevLicense: devLicense})
	for _, path := range append(s.paths(), "/dev/license") {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
			r := get(s, method, path)
			if r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, path, r.StatusCode, r.Header.Get("Allow"))
			}
		}
	}
	// A recorder keeps what a handler writes to HEAD; the real server must be asked.
	server := httptest.NewServer(s)
	defer server.Close()
	ask := func(method, path string) *http.Response {
		r, err := http.NewRequest(method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		// Said, because the client asks for gzip by itself with GET alone.
		r.Header.Set("Accept-Encoding", "identity")
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
		return answer
	}
	for _, path := range append(s.paths(), "/dev/license", "/missing") {
		full, head := ask("GET", path), ask("HEAD", path)
		if b := bodyOf(t, head); b != "" || head.StatusCode != full.StatusCode ||
			head.Header.Get("ETag") != full.Header.Get("ETag") {
			t.Errorf("HEAD %s: %d, %d bytes, tag %q", path, head.StatusCode, len(b),
				head.Header.Get("ETag"))
		}
	}
}

func TestNotFoundIsAPage(t *testing.T) {
	s := open(t, Config{})
	for _, path := range []string{
		"/missing", "/assets/", "/assets/../web.go", "/dist", "/samples/p2p.html", "/dev/license",
		"/assets",
	} {
		r := get(s, "GET", path, "Accept-Language", "ko")
		if r.StatusCode != 404 || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %d %q", path, r.StatusCode, r.Header.Get("Content-Type"))
		}
		if body := bodyOf(t, r); !strings.Contains(body, `<html lang="ko">`) ||
			!strings.Contains(body, `assets/ieum.css"`) {
			t.Errorf("%s: not in the style of the pages", path)
		}
		if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("ETag") != "" {
			t.Errorf("%s: kept by caches", path)
		}
	}
}

func TestTrailingSlashLeadsToThePageAndNowhereElse(t *testing.T) {
	s := open(t, Config{})
	r := get(s, "GET", "/p2p/?room=K1")
	if r.StatusCode != http.StatusPermanentRedirect ||
		r.Header.Get("Location") != "../p2p?room=K1" {
		t.Errorf("%d to %q", r.StatusCode, r.Header.Get("Location"))
	}
	for _, path := range []string{
		"//elsewhere.example/", "//elsewhere.example//", "/\\elsewhere.example/",
	} {
		if r := get(s, "GET", "http://here"+path); r.StatusCode != 404 {
			t.Errorf("%s: %d to %q", path, r.StatusCode, r.Header.Get("Location"))
		}
	}
}

func TestDevLicense(t *testing.T) {
	s := open(t, Config{DevLicense: devLicense})
	r := get(s, "GET", "/dev/license")
	var got map[string]string
	if err := json.Unmarshal([]byte(bodyOf(t, r)), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got["cpCode"] != "KP-DEV" || got["authKey"] != "eyJ.dev.key" {
		t.Errorf("answer %v", got)
	}
	if r.Header.Get("Cache-Control") != "no-store" ||
		r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers %v", r.Header)
	}
	if r := get(open(t, Config{}), "GET", "/dev/license"); r.StatusCode != 404 {
		t.Errorf("without a development license: %d", r.StatusCode)
	}
	if r := get(open(t, Config{}), "POST", "/dev/license"); r.StatusCode != 404 {
		t.Errorf("POST without a development license: %d", r.StatusCode)
	}
}

func TestDevModeAsksForNoKey(t *testing.T) {
	for _, path := range []string{"/p2p", "/sample"} {
		dev := bodyOf(t, get(open(t, Config{DevLicense: devLicense}), "GET", path))
		if strings.Contains(dev, `name="authKey"`) || !strings.Contains(dev, "data-dev") {
			t.Errorf("%s asks for a key in development mode", path)
		}
		plain := bodyOf(t, get(open(t, Config{}), "GET", path))
		if !strings.Contains(plain, `name="authKey"`) ||
			!strings.Contains(plain, `name="cpCode"`) ||
			strings.Contains(plain, "data-dev") {
			t.Errorf("%s has no fields for a license", path)
		}
	}
}

func TestLanguage(t *testing.T) {
	s := open(t, Config{})
	for _, c := range []struct{ name, query, accept, cookie, want string }{
		{"nothing said", "", "", "", "en"},
		{"Korean", "", "ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "", "ko"},
		{"English first", "", "en-US,en;q=0.9,ko;q=0.8", "", "en"},
		{"weights, not order", "", "en;q=0.3, ko;q=0.8", "", "ko"},
		{"refused", "", "ko;q=0, en;q=0.1", "", "en"},
		{"neither", "", "de,fr;q=0.9,*;q=0.1", "", "en"},
		{"unreadable weight", "", "ko;q=much", "", "en"},
		{"capitals", "", "KO-kr", "", "ko"},
		{"remembered", "", "en", "ko", "ko"},
		{"a strange cookie", "", "ko", "../../etc", "ko"},
		{"asked", "?lang=en", "ko", "ko", "en"},
		{"asked for the unknown", "?lang=xx", "ko", "", "ko"},
	} {
		var header []string
		if c.accept != "" {
			header = append(header, "Accept-Language", c.accept)
		}
		if c.cookie != "" {
			header = append(header, "Cookie", langCookie+"="+c.cookie)
		}
		for _, p := range pages {
			r := get(s, "GET", p.path+c.query, header...)
			if r.Header.Get("Content-Language") != c.want ||
				!strings.Contains(bodyOf(t, r), `<html lang="`+c.want+`">`) {
				t.Errorf("%s, %s: %s, want %s", p.path, c.name, r.Header.Get("Content-Language"),
					c.want)
			}
			if set := r.Header.Get("Set-Cookie"); (set != "") != (c.query == "?lang=en") {
				t.Errorf("%s, %s: Set-Cookie %q", p.path, c.name, set)
			}
		}
	}
	r := httptest.NewRequest("GET", "/?lang=ko", nil)
	r.TLS = &tls.ConnectionState{}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	const cookie = "lang=ko; Max-Age=31536000; HttpOnly; Secure; SameSite=Lax"
	if got := w.Header().Get("Set-Cookie"); got != cookie {
		t.Errorf("cookie over TLS: %q", got)
	}
}

func TestVersionIsEscapedAndShown(t *testing.T) {
	body := bodyOf(t, get(open(t, Config{Version: "1.2.3<b>"}), "GET", "/"))
	if !strings.Contains(body, "Ieum 1.2.3&lt;b&gt;") {
		t.Error("the version is not shown, or not escaped")
	}
}

func TestRangeOfTheSDK(t *testing.T) {
	r := get(open(t, Config{}), "GET", "/knowledgetalk.min.js", "Range", "bytes=0-9")
	if r.StatusCode != http.StatusPartialContent || len(bodyOf(t, r)) != 10 {
		t.Errorf("%d", r.StatusCode)
	}
}

func TestWhatDoesNotFitIsAnErrorAtStart(t *testing.T) {
	whole := func() fstest.MapFS {
		return fstest.MapFS{
			"dist/knowledgetalk.min.js":      {Data: []byte("1")},
			"dist/knowledgetalk.mjs":         {Data: []byte("2")},
			"dist/knowledgetalk.d.ts":        {Data: []byte("3")},
			"dist/knowledgetalk.polling.mjs": {Data: []byte("5")},
			"samples/text.json":              {Data: []byte(`{"a": {"ko": "가", "en": "a"}}`)},
			"samples/assets/logo.svg":        {Data: []byte("<svg/>")},
			"samples/layout.html":            {Data: []byte(`{{t "a"}}{{block "main" .}}{{end}}`)},
			"samples/home.html":              {Data: []byte(`{{define "main"}}home{{end}}`)},
			"samples/p2p.html":               {Data: []byte(`{{define "main"}}p2p{{end}}`)},
			"samples/sample.html":            {Data: []byte(`{{define "main"}}sample{{end}}`)},
			"samples/guide.html": {
				Data: []byte(`{{define "main"}}{{rich "a"}}{{end}}`),
			},
			"samples/notfound.html":      {Data: []byte(`{{define "main"}}none{{end}}`)},
			"samples/call.html":          {Data: []byte("one\n" + stepMark + "two\n")},
			"samples/assets/another.mjs": {Data: []byte("4")},
		}
	}
	if _, err := newSite(Config{}, whole()); err != nil {
		t.Fatalf("a whole site: %v", err)
	}
	for name, c := range map[string]struct{ file, data, names string }{
		"no SDK":               {"dist/knowledgetalk.mjs", "", "knowledgetalk.mjs"},
		"a text in one tongue": {"samples/text.json", `{"a": {"ko": "가"}}`, `"a"`},
		"no text":              {"samples/home.html", `{{define "main"}}{{t "b"}}{{end}}`, `"b"`},
		"no rich text": {
			"samples/guide.html", `{{define "main"}}{{rich "c"}}{{end}}`, `"c"`,
		},
		"no text in the code": {"samples/call.html", `{{t "d"}}`, `"d"`},
		"an unknown ending":   {"samples/assets/another.exe", "x", "another.exe"},
	} {
		files := whole()
		if c.data == "" {
			delete(files, c.file)
		} else {
			files[c.file] = &fstest.MapFile{Data: []byte(c.data)}
		}
		if _, err := newSite(Config{}, files); err == nil ||
			!strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: error %v does not name %s", name, err, c.names)
		}
	}
}

func TestHandlerServesAllDocumentedRoutes(t *testing.T) {
	h, err := Handler(Config{DevLicense: devLicense})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/", "/p2p", "/sample", "/guide", "/dev/license", "/knowledgetalk.min.js",
		"/knowledgetalk.mjs", "/knowledgetalk.d.ts",
		"/socket.io/socket.io.min.js",
	} {
		if r := get(h, "GET", path); r.StatusCode != 200 {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
	s := open(t, Config{})
	if got := s.paths(); !slices.IsSorted(got) || len(got) < 15 {
		t.Errorf("routes: %v", got)
	}
}

// paths lists everything served.
func (s *site) paths() []string {
	var all []string
	for p := range s.resources {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}
