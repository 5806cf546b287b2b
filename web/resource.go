package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

// resource is one address: its headers and a finished body per language, "" when it is the same in all.
type resource struct {
	header http.Header
	bodies map[string]body
}

// body is one representation twice, plain and compressed. A strong ETag names bytes, so the two differ in it (RFC 9110, 8.8.3.3).
type body struct {
	plain               content
	packed              content // made when it is first asked for, and kept: to make all of them would be most of the server's start
	plainTag, packedTag string
}

// content is where bytes come from. What is in the program itself is read each time, and not held a second time.
type content func() ([]byte, error)

func held(b []byte) content { return func() ([]byte, error) { return b, nil } }

// in is a file.
func in(files fs.FS, name string) content {
	return func() ([]byte, error) { return fs.ReadFile(files, name) }
}

var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".map":  "application/json; charset=utf-8",
	".mjs":  "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml; charset=utf-8",
	".ts":   "application/typescript; charset=utf-8",
}

// newResource reads the bodies. The name gives the content type; an unknown ending is an error, never a guess.
func newResource(name string, header func() http.Header, bodies map[string]content) (*resource, error) {
	contentType := contentTypes[path.Ext(name)]
	if contentType == "" {
		return nil, fmt.Errorf("web: no content type for %s", name)
	}
	r := &resource{header: header(), bodies: make(map[string]body, len(bodies))}
	r.header.Set("Content-Type", contentType)
	// Kept by the browser, asked about each time: an upgrade of the server reaches every page at its next load.
	r.header.Set("Cache-Control", "no-cache")
	r.header.Add("Vary", "Accept-Encoding")
	for lang, plain := range bodies {
		text, err := plain()
		if err != nil {
			return nil, fmt.Errorf("web: read %s: %w", name, err)
		}
		sum := sha256.Sum256(text)
		tag := hex.EncodeToString(sum[:12])
		r.bodies[lang] = body{plain: plain, packed: sync.OnceValues(func() ([]byte, error) { return compress(plain) }), plainTag: `"` + tag + `"`, packedTag: `"` + tag + `-gz"`}
		if lang != "" {
			r.header["Vary"] = []string{"Accept-Encoding, Accept-Language, Cookie"}
		}
	}
	return r, nil
}

func compress(plain content) ([]byte, error) {
	text, err := plain()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// serve answers 200, 206 or 304.
func (r *resource) serve(w http.ResponseWriter, req *http.Request) {
	content, tag := r.choose(w, req)
	text, err := content()
	if err != nil { // of the program's own files
		w.Header().Del("Content-Encoding")
		http.Error(w, "This file cannot be read.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("ETag", tag)
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(text))
}

// refuse sends the body with an error status: no tag, and nothing to keep. Its links lead from the address that was asked for.
func (r *resource) refuse(w http.ResponseWriter, req *http.Request, status int) {
	text, err := r.pick(w, req).plain()
	if err != nil { // nothing to show beside the status
		text = nil
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if req.Method != http.MethodHead {
		// An error here is a visitor who left.
		_, _ = w.Write(bytes.ReplaceAll(text, []byte(anyRoot), []byte(rootFrom(req.URL.EscapedPath()))))
	}
}

// deepest bounds what an address of many slashes makes of the page.
const deepest = 32

// rootFrom is the relative reference from an address to the server's root.
func rootFrom(address string) string {
	up := strings.Count(address, "/") - 1
	if up < 1 || up > deepest {
		return root
	}
	return strings.Repeat("../", up)
}

// choose sets the headers and picks the language and the encoding.
func (r *resource) choose(w http.ResponseWriter, req *http.Request) (c content, tag string) {
	b := r.pick(w, req)
	if acceptsGzip(req.Header.Values("Accept-Encoding")) {
		w.Header().Set("Content-Encoding", "gzip")
		return b.packed, b.packedTag
	}
	return b.plain, b.plainTag
}

// pick sets the headers and picks the language.
func (r *resource) pick(w http.ResponseWriter, req *http.Request) body {
	h := w.Header()
	for name, values := range r.header {
		h[name] = values
	}
	if b, ok := r.bodies[""]; ok {
		return b
	}
	lang := language(w, req)
	h.Set("Content-Language", lang)
	return r.bodies[lang]
}

// acceptsGzip reports whether gzip is named and not refused by a weight of zero (RFC 9110, 12.5.3).
func acceptsGzip(values []string) bool {
	for _, v := range values {
		for _, part := range strings.Split(v, ",") {
			name, weight := weighted(part)
			if strings.EqualFold(name, "gzip") {
				return weight > 0
			}
		}
	}
	return false
}
