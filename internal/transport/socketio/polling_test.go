package socketio

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/transport"
)

func TestHandshakeAnswer(t *testing.T) {
	g := newRig(t, Config{})
	_, four := g.do(request{method: "GET", query: "EIO=4&transport=polling"})
	_, three := g.do(request{method: "GET", query: "EIO=3&transport=polling"})
	const rest = `","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000`
	if !strings.HasPrefix(four, `0{"sid":"`) ||
		!strings.HasSuffix(four, rest+`,"maxPayload":65536}`) {
		t.Errorf("version 4: %s", four)
	}
	opening, ok := strings.CutSuffix(three, "2:40")
	length, opening, _ := strings.Cut(opening, ":")
	if !ok || length != strconv.Itoa(len(opening)) || !strings.HasPrefix(opening, `0{"sid":"`) ||
		!strings.HasSuffix(opening, rest+`}`) {
		t.Errorf("version 3: %s", three)
	}
}

func TestMessagesAndAnswers(t *testing.T) {
	for _, version := range []string{"3", "4"} {
		t.Run("version "+version, func(t *testing.T) {
			g := newRig(t, Config{})
			p := g.connect(version)
			p.post(`42["knowledgetalk",{"a":"한글 😀"}]`)
			if got, want := p.poll(), p.frame(`42["knowledgetalk",{"a":"한글 😀"}]`); got != want {
				t.Errorf("answered by event with %q, want %q", got, want)
			}
			p.post(`4217["knowledgetalk",{"b":1}]`)
			if got, want := p.poll(), p.frame(`4317[{"b":1}]`); got != want {
				t.Errorf("acknowledged with %q, want %q", got, want)
			}
			if !slices.Equal(p.got, []string{`{"a":"한글 😀"}`, `{"b":1}`}) ||
				!slices.Equal(p.wanted, []bool{false, true}) {
				t.Errorf("got %q, answers wanted %v", p.got, p.wanted)
			}
			p.send(`{"c":1}`)
			p.send(`{"c":"안녕 😀"}`)
			two := messages(`42["knowledgetalk",{"c":1}]`, `42["knowledgetalk",{"c":"안녕 😀"}]`)
			want := string(appendPayload(nil, int(version[0]-'0'), two))
			if got := p.poll(); got != want {
				t.Errorf("two events came as %q, want %q", got, want)
			}
		})
	}
}

// An answer that comes twice is one acknowledgement and one event: an acknowledgement's id is used
// up.
func TestAckIsUsedOnce(t *testing.T) {
	g := newRig(t, Config{})
	p := g.connect("4")
	r := &ack{s: p.conn.(*session), id: []byte("5")}
	for range 2 {
		m := transport.NewMessage()
		m.B = append(m.B, "{}"...)
		r.Send(m)
	}
	if got := p.poll(); got != "435[{}]\x1e42[\"knowledgetalk\",{}]" {
		t.Errorf("%q", got)
	}
}

func TestOtherArgumentsAndEvents(t *testing.T) {
	g := newRig(t, Config{})
	p := g.connect("4")
	for _, arg := range []string{`"text"`, `1`, `null`, `[]`, `{"a":1},{"b":2}`} {
		p.post(`42["knowledgetalk",` + arg + `]`)
	}
	p.post(`42["knowledgetalk"]`)
	p.post(`42["other",{"a":1}]`)
	p.post(`420["other",{"a":1}]`)
	p.post(`431[]`)
	if want := []string{`"text"`, `1`, `null`, `[]`, `{"a":1},{"b":2}`, ``}; !slices.Equal(
		p.messages(), want) {
		t.Errorf("handed up: %q, want %q", p.messages(), want)
	}
}

func TestEngineErrors(t *testing.T) {
	g := newRig(t, Config{})
	p := g.connect("4")
	null, file := []string{"Origin", "null"}, []string{"Origin", "file://"}
	for name, c := range map[string]struct {
		q    request
		want *engineError
	}{
		"no transport": {request{method: "GET", query: "EIO=4"}, errUnknownTransport},
		"another transport": {
			request{method: "GET", query: "EIO=4&transport=flashsocket"}, errUnknownTransport,
		},
		"no version": {
			request{method: "GET", query: "transport=polling"}, errVersion,
		},
		"another version": {
			request{method: "GET", query: "EIO=5&transport=polling"}, errVersion,
		},
		"version 2": {
			request{method: "GET", query: "EIO=2&transport=polling"}, errVersion,
		},
		"script elements": {
			request{method: "GET", query: "EIO=3&transport=polling&j=0"}, errBadRequest,
		},
		"handshake by post": {
			request{method: "POST", query: "EIO=4&transport=polling"}, errHandshakeMethod,
		},
		"unknown session": {
			request{method: "GET", query: "EIO=4&transport=polling&sid=x"}, errUnknownSession,
		},
		"empty session": {
			request{method: "GET", query: "EIO=4&transport=polling&sid="}, errUnknownSession,
		},
		"unknown session, post": {
			request{method: "POST", query: "EIO=4&transport=polling&sid=x"}, errUnknownSession,
		},
		"unknown session, upgrade": {
			request{method: "GET", query: "EIO=4&transport=websocket&sid=x"}, errUnknownSession,
		},
		"session of version 4": {
			request{method: "GET", query: "EIO=3&transport=polling&sid=" + p.sid}, errBadRequest,
		},
		"another method": {request{method: "DELETE", query: p.query()}, errBadRequest},
		"origin null": {
			request{method: "GET", query: "EIO=4&transport=polling", header: null}, errForbidden,
		},
		"origin file": {
			request{method: "GET", query: "EIO=4&transport=polling", header: file}, errForbidden,
		},
		"two origins": {request{method: "GET", query: "EIO=4&transport=polling",
			header: []string{
				"Origin", "https://a.example", "Origin", "https://b.example",
			}}, errForbidden},
	} {
		status, body := g.do(c.q)
		want := `{"code":` + strconv.Itoa(c.want.code) + `,"message":"` + c.want.message + `"}`
		if status != c.want.status || body != want {
			t.Errorf("%s: %d %s, want %d %s", name, status, body, c.want.status, want)
		}
	}
	p.post(`42["knowledgetalk",{}]`) // none of this has touched it
	if got := p.poll(); got != `42["knowledgetalk",{}]` {
		t.Errorf("%q", got)
	}
	if len(g.users) != 0 {
		t.Error("a refused request opened a session")
	}
}

func TestOtherPaths(t *testing.T) {
	g := newRig(t, Config{})
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest("GET", Path+"x?EIO=4&transport=polling", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
}

// violations are what no client of ours sends, and the close code that it gets where there is one.
var violations = map[string]struct {
	version, packet string
	code            transport.StatusCode
}{
	"unknown type":                    {"4", "7", 1002},
	"open from a client":              {"4", "0{}", 1002},
	"upgrade from nowhere":            {"4", "5", 1002},
	"ping in version 4":               {"4", "2", 1002},
	"pong in version 3":               {"3", "3", 1002},
	"a long ping":                     {"3", "2abcdefgh", 1002},
	"close with more":                 {"4", "1x", 1002},
	"no Socket.IO packet":             {"4", "4", 1002},
	"unknown Socket.IO type":          {"4", "47", 1002},
	"second connect":                  {"4", "40", 1002},
	"error from a client":             {"4", `44{"message":"x"}`, 1002},
	"event in another namespace":      {"4", `42/other,["knowledgetalk",{}]`, 1002},
	"event in another namespace of 2": {"3", `42/other,["knowledgetalk",{}]`, 1002},
	"event without a name":            {"4", `42[{}]`, 1002},
	"event that is no array":          {"4", `42{"a":1}`, 1002},
	"long acknowledgement id":         {"4", `4212345678901234567["knowledgetalk",{}]`, 1002},
	"binary event": {
		"4",
		`451-["knowledgetalk",{"_placeholder":true,"num":0}]`,
		1003,
	},
	"binary acknowledgement": {"4", `461-1[]`, 1003},
	"binary event of version 3": {
		"3",
		`451-["knowledgetalk",{"_placeholder":true,"num":0}]`,
		1003,
	},
	"binary in base64":              {"4", `bAQID`, 1003},
	"binary in base64 of version 3": {"3", `b4AQID`, 1003},
	"message too long": {
		"4",
		`42["knowledgetalk","` + strings.Repeat("x", 64<<10-1) + `"]`,
		1009,
	},
}

func TestProtocolErrorsEndPollingSession(t *testing.T) {
	for name, c := range violations {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, Config{})
			bystander := g.connect(c.version)
			p := g.connect(c.version)
			status, body := p.raw(p.frame(c.packet))
			want := http.StatusBadRequest
			if c.code == 1009 {
				want = http.StatusRequestEntityTooLarge
			}
			if status != want || body != `{"code":3,"message":"Bad request"}` {
				t.Errorf("%d %s", status, body)
			}
			p.wantEnd(transport.End{Code: c.code, MessageTooLong: c.code == 1009})
			if got := p.poll(); got != p.frame("1") {
				t.Errorf("then polled %q", got)
			}
			if status, body := p.do(request{method: "GET", query: p.query()}); status != 400 ||
				!strings.Contains(body, "Session ID unknown") {
				t.Errorf("then polled again: %d %s", status, body)
			}
			if len(p.messages()) != 0 {
				t.Errorf("handed up %q", p.messages())
			}
			bystander.post(`421["knowledgetalk",{}]`)
			if got := bystander.poll(); got != bystander.frame("431[{}]") {
				t.Errorf("the bystander polled %q", got)
			}
		})
	}
}

func TestInvalidPayloads(t *testing.T) {
	for name, c := range map[string]struct {
		version, payload string
		header           []string
		status           int
		code             transport.StatusCode
	}{
		"empty":              {"4", "", nil, 400, 1002},
		"empty packet":       {"4", "3\x1e", nil, 400, 1002},
		"empty in version 3": {"3", "", nil, 400, 1002},
		"length too large":   {"3", "5:2", nil, 400, 1002},
		"length within":      {"3", "1:4😀", nil, 400, 1002},
		"not UTF-8":          {"4", "42[\"knowledgetalk\",\"\xff\"]", nil, 400, 1002},
		"binary": {
			"3", "\x00\x02\xff42", []string{"Content-Type", "application/octet-stream"}, 400, 1003,
		},
		"form": {
			"4", "d=2", []string{"Content-Type", "application/x-www-form-urlencoded"}, 400, 1003,
		},
		"over 64 KiB":           {"4", strings.Repeat("3\x1e", 40<<10) + "3", nil, 413, 1009},
		"too many packets":      {"4", strings.Repeat("3\x1e", 500) + "3", nil, 400, 1008},
		"too many other events": {"4", strings.Repeat("42[\"x\"]\x1e", 500) + "3", nil, 400, 1008},
		"over four times that":  {"3", strings.Repeat("1:6", 100<<10), nil, 413, 1009},
		"too many of version 3": {"3", strings.Repeat("1:6", 500), nil, 400, 1008},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, Config{})
			p := g.connect(c.version)
			if status, body := p.raw(c.payload, c.header...); status != c.status {
				t.Errorf("%d %s, want %d", status, body, c.status)
			}
			p.wantEnd(transport.End{Code: c.code, MessageTooLong: c.code == 1009})
		})
	}
}

// Clients of version 3 put all that waits into one payload, whatever its size.
func TestLongMessagesInOnePost(t *testing.T) {
	g := newRig(t, Config{})
	p := g.connect("3")
	p.mute = true
	message := `42["knowledgetalk",{"a":"` + strings.Repeat("가", 20<<10) + `"}]`
	if status, body := p.raw(string(appendPayload(nil, 3,
		messages(message, message, message)))); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if n := len(p.messages()); n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
}

func TestEndOfPollingClient(t *testing.T) {
	gone := transport.End{Gone: true, Code: 1000}
	for name, c := range map[string]struct{ version, packet string }{
		"disconnect":              {"4", "41"},
		"disconnect of version 3": {"3", "41"},
		"disconnect from /":       {"4", "41/,"},
		"close":                   {"4", "1"},
		"close of version 3":      {"3", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, Config{})
			p := g.connect(c.version)
			poll, _ := p.background("GET", nil)
			p.post(c.packet)
			p.wantEnd(gone)
			if got := (<-poll).Body.String(); got != p.frame("1") {
				t.Errorf("the poll that waited got %q", got)
			}
			p.post("1") // clients say both
			if p.send("{}") {
				t.Error("sent to a client that is gone")
			}
			if len(p.end) != 0 {
				t.Error("ended twice")
			}
		})
	}
}

// A namespace is another matter than the session.
func TestOtherNamespaces(t *testing.T) {
	g := newRig(t, Config{})
	for version, want := range map[string]string{
		"4": `44/other,{"message":"Invalid namespace"}`, "3": `44/other,"Invalid namespace"`,
	} {
		p := g.connect(version)
		p.post("40/other,")
		if got := p.poll(); got != p.frame(want) {
			t.Errorf("version %s: %q, want %q", version, got, want)
		}
		p.post("41/other,")
		p.post(`421["knowledgetalk",{}]`)
		if got := p.poll(); got != p.frame("431[{}]") {
			t.Errorf("version %s: then %q", version, got)
		}
	}
	p := g.open("4")
	if status, _ := p.raw(`42["knowledgetalk",{}]`); status != 400 {
		t.Errorf("an event before connecting: %d", status)
	}
	p.wantEnd(transport.End{Code: 1002})
}

func TestOnePollAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{})
		p := g.connect("4")
		first, _ := p.background("GET", nil)
		synctest.Wait()
		if status, _ := p.do(request{method: "GET", query: p.query()}); status != 400 {
			t.Errorf("the second poll: %d", status)
		}
		if got := (<-first).Body.String(); got != "1" {
			t.Errorf("the first poll: %q", got)
		}
		p.wantEnd(transport.End{Code: 1006})
	})
}

// A session that is not polled for two intervals is lost, whatever it posts meanwhile; one that is
// polled, or has a WebSocket, is not.
func TestSessionWithoutPollIsLost(t *testing.T) {
	for _, version := range []string{"3", "4"} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, Config{})
			p := g.connect(version)
			begin := time.Now()
			for time.Since(begin) < 10*time.Minute {
				time.Sleep(5 * time.Second)
				packet := map[string]string{"3": "2", "4": "3"}[version]
				if status, _ := p.raw(p.frame(packet)); status != http.StatusOK {
					break
				}
				p.send(`"for nobody"`)
			}
			p.wantEnd(transport.End{Code: 1006})
			// It posts every 5 s, is looked at every 2.5 s, and is known for 5 s after its end.
			if d := time.Since(begin); d < 50*time.Second || d > 65*time.Second {
				t.Errorf("version %s: lost after %v", version, d)
			}
		})
	}
}

func TestOnePostAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{})
		p := g.connect("4")
		body, end := io.Pipe()
		first, _ := p.background("POST", body)
		synctest.Wait()
		if status, _ := p.raw(`42["knowledgetalk",{}]`); status != 400 {
			t.Errorf("the second post: %d", status)
		}
		p.wantEnd(transport.End{Code: 1006})
		_, _ = io.WriteString(end, `42["knowledgetalk",{}]`)
		_ = end.Close()
		<-first
		if len(p.messages()) != 0 {
			t.Errorf("handed up %q", p.messages())
		}
	})
}

func TestAbortedRequestLosesSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{})
		for method, body := range map[string]func() io.Reader{
			"GET":  func() io.Reader { return nil },
			"POST": func() io.Reader { return io.MultiReader(strings.NewReader("4"), failing{}) },
		} {
			p := g.connect("4")
			answer, stop := p.background(method, body())
			synctest.Wait()
			stop()
			<-answer
			p.wantEnd(transport.End{Code: 1006})
		}
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestPollingPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{})
		p := g.connect("4")
		for range 3 { // as long as it answers
			start := time.Now()
			if got := p.poll(); got != "2" {
				t.Fatalf("polled %q", got)
			}
			if d := time.Since(start); d < 22*time.Second || d > 28*time.Second {
				t.Errorf("pinged after %v", d)
			}
			p.post("3")
		}
		start := time.Now()
		if got := p.poll(); got != "2" {
			t.Fatalf("polled %q", got)
		}
		if got := p.poll(); got != "1" {
			t.Fatalf("then polled %q", got)
		}
		p.wantEnd(transport.End{Code: 1006})
		if d := time.Since(start); d < 42*time.Second || d > 50*time.Second {
			t.Errorf("lost after %v", d)
		}
	})
}

func TestSessionIsLostAfterLastPoll(t *testing.T) {
	for _, version := range []string{"3", "4"} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, Config{})
			p := g.connect(version)
			start := time.Now()
			p.send("{}")
			p.wantEnd(transport.End{Code: 1006})
			if d := time.Since(start); d < 42*time.Second || d > 50*time.Second {
				t.Errorf("version %s: lost after %v", version, d)
			}
			if got := p.poll(); got != p.frame(
				"1",
			) { // nothing of what waited: the message went to another connection, or nowhere
				t.Errorf("version %s: then polled %q", version, got)
			}
			time.Sleep(10 * time.Second) // of virtual time
			if n := g.Count(); n != 0 {
				t.Errorf("version %s: %d sessions are kept", version, n)
			}
			if status, _ := p.do(request{method: "GET", query: p.query()}); status != 400 {
				t.Errorf("version %s: a poll of the forgotten session: %d", version, status)
			}
		})
	}
}

func TestVersion3ClientPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{})
		p := g.connect("3")
		for range 5 {
			time.Sleep(25 * time.Second)
			p.post("2")
			if got := p.poll(); got != "1:3" {
				t.Fatalf("polled %q", got)
			}
		}
		if len(p.end) != 0 {
			t.Error("a client that pings was ended")
		}
	})
}

func TestCloseCodesWhilePolling(t *testing.T) {
	for _, version := range []string{"3", "4"} {
		for code, want := range map[transport.StatusCode][]string{
			1001: {"1"}, 1008: {"1"}, 1013: {"1"}, 4001: {"41", "1"}, 4002: {"41", "1"},
			4003: {"41", "1"},
		} {
			g := newRig(t, Config{})
			p := g.connect(version)
			p.send("{}")
			p.conn.Close(code, "reason")
			if p.send("{}") {
				t.Error("sent after Close")
			}
			p.wantEnd(transport.End{Code: code})
			// What was sent before comes before, and the end alone.
			last := []*transport.Message{newPacket(`42["knowledgetalk",{}]`)}
			for _, packet := range want[:len(want)-1] {
				last = append(last, newPacket(packet))
			}
			if got, want := p.poll(), string(appendPayload(nil, int(version[0]-'0'),
				last)); got != want {
				t.Errorf("%d: polled %q, want %q", code, got, want)
			}
			if got := p.poll(); got != p.frame("1") {
				t.Errorf("%d: then polled %q", code, got)
			}
		}
	}
}

func TestPollingOutboxIsLimited(t *testing.T) {
	for name, size := range map[string]int{"by number": 10, "by bytes": 100_000} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, Config{})
			p := g.connect("4")
			sent := 0
			for sent < 5000 && p.send(`"`+strings.Repeat("x", size)+`"`) {
				sent++
			}
			if want := map[int]int{10: 2048, 100_000: 10}[size]; sent != want {
				t.Errorf("%d messages of %d bytes were taken, want %d", sent, size, want)
			}
			p.wantEnd(transport.End{Code: 1013, SlowConsumer: true})
			if got := p.poll(); got != "1" {
				t.Errorf("polled %q", got[:min(len(got), 100)])
			}
		})
	}
}

func TestCrossOriginRequests(t *testing.T) {
	g := newRig(t, Config{})
	ask := func(q request) *http.Response {
		w := httptest.NewRecorder()
		g.ServeHTTP(w, q.build())
		return w.Result()
	}
	origin := []string{"Origin", "https://app.example"}
	for name, q := range map[string]request{
		"handshake": {method: "GET", query: "EIO=4&transport=polling", header: origin},
		"version 3": {method: "GET", query: "EIO=3&transport=polling", header: origin},
		"fault":     {method: "GET", query: "EIO=4&transport=polling&sid=x", header: origin},
		"post":      {method: "POST", query: "EIO=4&transport=polling&sid=x", header: origin},
		"preflight": {
			method: "OPTIONS",
			header: append(slices.Clone(origin), "Access-Control-Request-Method", "POST"),
		},
	} {
		h := ask(q).Header
		if h.Get("Access-Control-Allow-Origin") != "https://app.example" ||
			h.Get("Vary") != "Origin" ||
			h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", name, h)
		}
		if got := h.Values("Access-Control-Allow-Credentials"); !slices.Equal(got,
			[]string{"true"}) {
			t.Errorf("%s: credentials %q", name, got)
		}
	}
	// With credentials "*" is a name and no wildcard (Fetch, CORS protocol).
	r := ask(
		request{
			method: "OPTIONS",
			header: append(slices.Clone(origin), "Access-Control-Request-Headers",
				"content-type,x-app"),
		},
	)
	h := r.Header
	if r.StatusCode != 204 || h.Get("Access-Control-Allow-Methods") != "GET, POST" ||
		h.Get("Access-Control-Allow-Headers") != "content-type,x-app" ||
		!slices.Contains(h.Values("Vary"), "Access-Control-Request-Headers") {
		t.Errorf("preflight: %d %v", r.StatusCode, r.Header)
	}
	h = ask(request{method: "GET", query: "EIO=4&transport=polling"}).Header
	if h.Values("Access-Control-Allow-Origin") != nil {
		t.Errorf("without an origin: %v", h)
	}
	h = ask(
		request{
			method: "GET",
			query:  "EIO=4&transport=polling",
			header: []string{"Origin", "null"},
		},
	).Header
	if h.Values("Access-Control-Allow-Origin") != nil ||
		h.Values("Access-Control-Allow-Credentials") != nil {
		t.Errorf("a refused origin: %v", h)
	}
	dev := newRig(t, Config{Conn: transport.Config{AnyOrigin: true}})
	if status, _ := dev.do(request{
		method: "GET", query: "EIO=4&transport=polling", header: []string{"Origin", "null"},
	}); status != 200 {
		t.Errorf("development: %d", status)
	}
}

func TestPeer(t *testing.T) {
	g := newRig(t, Config{})
	for want, header := range map[string][]string{
		"https://app.example": {"Origin", "https://app.example"},
		"https://ieum.test":   {"Sec-Fetch-Site", "same-origin"}, // browsers send no Origin there
		"":                    nil,
	} {
		g.do(request{method: "GET", query: "EIO=4&transport=polling", header: header})
		p := (<-g.users).conn.Peer()
		if p.Origin != want || p.Host != "ieum.test" || p.TLS ||
			p.Addr.String() != "192.0.2.1:1234" {
			t.Errorf("peer %+v, want origin %q", p, want)
		}
	}
}

// A page on the server's own origin may be behind a proxy that ends TLS; the license names the
// origin that the browser shows.
func TestOwnOrigin(t *testing.T) {
	for host, want := range map[string]string{
		"calls.example":      "https://calls.example",
		"calls.example:7102": "https://calls.example:7102",
		"192.0.2.1":          "https://192.0.2.1",
		"[2001:db8::1]:7102": "https://[2001:db8::1]:7102",
		"localhost:7102":     "http://localhost:7102",
		"app.localhost":      "http://app.localhost",
		"127.0.0.9:80":       "http://127.0.0.9:80",
		"[::1]:7102":         "http://[::1]:7102",
		"[::1]":              "http://[::1]",
	} {
		r := httptest.NewRequest("GET", Path, nil)
		r.Host = host
		if got := ownOrigin(r); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
		r.TLS = &tls.ConnectionState{}
		if got := ownOrigin(r); got != "https://"+host {
			t.Errorf("%s over TLS: %s", host, got)
		}
	}
}

func TestMaxSessions(t *testing.T) {
	g := newRig(t, Config{MaxSessions: 2})
	first := g.open("4")
	g.open("3")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, request{method: "GET", query: "EIO=4&transport=polling"}.build())
	if w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	first.post("40")
	if got := first.poll(); !strings.HasPrefix(got, "40") {
		t.Errorf("the first one polled %q", got)
	}
}

// Sessions that have ended are kept for a moment and counted nowhere else: a client that opens and
// closes them as fast as it can keeps nobody out.
func TestEndedSessionsMakeRoom(t *testing.T) {
	g := newRig(t, Config{MaxSessions: 2})
	stays := g.open("4")
	for range 5 {
		g.open("4").post("1")
		if n := g.Count(); n != 2 {
			t.Fatalf("%d sessions", n)
		}
	}
	stays.post("40")
	if got := stays.poll(); !strings.HasPrefix(got, "40") {
		t.Errorf("the one that stays polled %q", got)
	}
}

func TestCloseNotifiesPollingClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{})
		waiting, idle := g.connect("4"), g.connect("4")
		poll, _ := waiting.background("GET", nil)
		synctest.Wait()
		if err := g.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := (<-poll).Body.String(); got != "1" {
			t.Errorf("the poll that waited got %q", got)
		}
		waiting.wantEnd(transport.End{Code: 1001})
		idle.wantEnd(transport.End{Code: 1001})
		if status, _ := g.do(request{
			method: "GET", query: "EIO=4&transport=polling",
		}); status != 503 {
			t.Errorf("a session was opened after Close: %d", status)
		}
	})
}

// A client that was between two polls when its session ended still hears of it.
func TestClosedSessionIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{})
		p := g.connect("4")
		p.conn.Close(4002, "taken over")
		time.Sleep(closedSessionTTL - time.Second)
		if got := p.poll(); got != "41" {
			t.Errorf("polled %q", got)
		}
	})
}

// A message that was on its way up when the session ended stays below: the receiver has been told
// of the end.
func TestNothingAfterTheEnd(t *testing.T) {
	g := newRig(t, Config{})
	p := g.connect("4")
	p.conn.Close(1008, "")
	<-p.end
	s := p.conn.(*session)
	s.recvMu.Lock()
	over := s.ended
	s.recvMu.Unlock()
	if err := s.handleEvent(packet{
		typ: typeEvent, namespace: "/", data: []byte(`["knowledgetalk",{}]`),
	}); err != nil {
		t.Error(err)
	}
	if !over || len(p.messages()) != 0 {
		t.Errorf("over %v, handed up %q", over, p.messages())
	}
}

// What polling clients do not fetch counts with what others do not read, and is given back.
func TestBacklogCountsUnfetchedPackets(t *testing.T) {
	b := transport.NewBacklog(500_000)
	g := newRig(t, Config{Conn: transport.Config{Backlog: b}})
	p, other := g.connect("4"), g.connect("4")
	other.send(`"x"`)
	for range 6 {
		p.send(`"` + strings.Repeat("x", 100_000) + `"`)
	}
	p.wantEnd(transport.End{Code: 1013, SlowConsumer: true})
	b.Close()
	other.poll()
	if s := b.Stats(); s.Bytes != 0 || s.Shed != 1 {
		t.Errorf("%+v", s)
	}
}

// unreading is a client that does not read its answer: writing takes until its deadline.
type unreading struct {
	*httptest.ResponseRecorder
	begun chan struct{} // closed when the body is being written
	until chan time.Time
}

func (u *unreading) SetWriteDeadline(at time.Time) error {
	if !at.IsZero() {
		u.until <- at
	}
	return nil
}

func (u *unreading) Write([]byte) (int, error) {
	close(u.begun)
	limit := time.NewTimer(time.Until(<-u.until))
	defer limit.Stop()
	select {
	case <-limit.C:
	case at := <-u.until:
		time.Sleep(time.Until(at))
	}
	return 0, os.ErrDeadlineExceeded
}

// An answer that its client does not read is broken off when all together have left too much, and
// whoever has less does not pay for it: not even when the session has ended meanwhile.
func TestBacklogShedsUnreadResponse(t *testing.T) {
	for _, ended := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := transport.NewBacklog(500_000)
			g := newRig(t, Config{Conn: transport.Config{Backlog: b}})
			defer b.Close()
			large, less, little := g.connect("4"), g.connect("4"), g.connect("4")
			large.send(`"` + strings.Repeat("x", 300_000) + `"`)
			w := &unreading{httptest.NewRecorder(), make(chan struct{}), make(chan time.Time, 2)}
			done := make(chan struct{})
			go func() {
				defer close(done)
				g.ServeHTTP(w, request{method: "GET", query: large.query()}.build())
			}()
			<-w.begun
			if ended {
				large.conn.Close(4001, "taken over")
			}
			began := time.Now()
			little.send(`"x"`)
			less.send(`"` + strings.Repeat("x", 250_000) + `"`)
			<-done
			if time.Since(began) > 0 {
				t.Error("it was not broken off")
			}
			synctest.Wait()
			if s := b.Stats(); s.Shed != 1 || s.Bytes > 300_000 {
				t.Errorf("%+v", s)
			}
			for _, p := range []*poller{less, little} {
				if got := p.poll(); !strings.HasPrefix(got, "42") {
					t.Errorf("polled %.9q", got)
				}
			}
			want := transport.End{Code: 1013, SlowConsumer: true}
			if ended {
				want = transport.End{Code: 4001}
			}
			large.wantEnd(want)
		})
	}
}
