package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Compressing everything was most of the server's start.
func TestBodiesAreCompressedOnceWhenTheyAreAskedFor(t *testing.T) {
	text, reads := strings.Repeat("const a = 1;\n", 100), 0
	var failed error
	r, err := newResource("a.js", sdkHeader,
		map[string]content{"": func() ([]byte, error) { reads++; return []byte(text), failed }})
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
		"": func() ([]byte, error) { return nil, failed },
	})
	if !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
}
