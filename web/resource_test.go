package web

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
)

// Compressing everything was most of the server's start.
func TestBodiesAreCompressedOnceWhenTheyAreAskedFor(t *testing.T) {
	text, reads := strings.Repeat("const a = 1;\n", 100), 0
	var failed error
	r, err := newResource("a.js", sdkHeader,
		map[string]content{"": func() (io.ReadSeeker, error) {
			reads++
			return strings.NewReader(text), failed
		}})
	if err != nil || reads != 1 {
		t.Fatalf("%v, read %d times for its tag", err, reads)
	}
	ask := func(encoding string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodGet, "/a.js", nil)
		req.Header.Set("Accept-Encoding", encoding)
		r.serve(w, req)
		return w
	}
	for range 3 {
		if w := ask("gzip"); w.Code != http.StatusOK || w.Body.Len() >= len(text)/2 ||
			w.Header().Get("Content-Encoding") != "gzip" {
			t.Fatalf("%d, %d bytes", w.Code, w.Body.Len())
		}
	}
	if reads != 2 {
		t.Errorf("read %d times to compress it", reads-1)
	}
	if w := ask(""); w.Body.String() != text || reads != 3 {
		t.Errorf("%d bytes, read %d times", w.Body.Len(), reads)
	}
	failed = errors.New("no such file")
	if w := ask(""); w.Code != http.StatusInternalServerError || w.Header().Get("ETag") != "" {
		t.Errorf("a file that cannot be read: %d %v", w.Code, w.Header())
	}
	_, err = newResource("a.js", sdkHeader, map[string]content{
		"": func() (io.ReadSeeker, error) { return nil, failed },
	})
	if !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
}

// discards is a ResponseWriter of a client whatever its speed: only what a response holds matters.
type discards struct{ header http.Header }

func (d discards) Header() http.Header         { return d.header }
func (d discards) Write(p []byte) (int, error) { return len(p), nil }
func (d discards) WriteHeader(int)             {}

// A client that does not read, over HTTP/2 a hundred times on one connection, costs no copy of the
// file each time.
func TestAResponseHoldsNoCopyOfItsFile(t *testing.T) {
	const name, rounds = "dist/knowledgetalk.mjs.map", 20
	info, err := embedded.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := info.Stat()
	if err != nil {
		t.Fatal(err)
	}
	handler, err := Handler(Config{})
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodGet, "/knowledgetalk.mjs.map", nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		handler.ServeHTTP(discards{http.Header{}}, req)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / rounds; each > uint64(stat.Size())/4 {
		t.Errorf("a response allocates %d bytes for a file of %d", each, stat.Size())
	}
}
