package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

// resource is an address: its headers, and a body per language ("" if it is the same in all).
type resource struct {
	header http.Header
	bodies map[string]body
}

// body is a representation, plain and compressed. A strong ETag identifies bytes, so each has its
// own (RFC 9110, 8.8.3.3).
type body struct {
	plain content
	// Compressed on first use and kept: compressing all would dominate the server's start.
	packed              func() ([]byte, error)
	plainTag, packedTag string
}

// content opens a source of bytes, which needs no closing. A response reads it in pieces: copies of
// large files, for many clients that do not read them, would fill the memory.
type content func() (io.ReadSeeker, error)

func held(b []byte) content {
	return func() (io.ReadSeeker, error) { return bytes.NewReader(b), nil }
}

// in is an embedded file.
func in(files fs.FS, name string) content {
	return func() (io.ReadSeeker, error) {
		f, err := files.Open(name)
		if err != nil {
			return nil, err
		}
		s, ok := f.(io.ReadSeeker)
		if !ok {
			return nil, fmt.Errorf("%s: %w", name, errors.ErrUnsupported)
		}
		return s, nil
	}
}

func (c content) readAll() ([]byte, error) {
	r, err := c()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
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

// newResource reads the bodies. The name determines the content type; an unknown extension is an
// error.
func newResource(
	name string,
	header func() http.Header,
	bodies map[string]content,
) (*resource, error) {
	contentType := contentTypes[path.Ext(name)]
	if contentType == "" {
		return nil, fmt.Errorf("web: no content type for %s", name)
	}
	r := &resource{header: header(), bodies: make(map[string]body, len(bodies))}
	r.header.Set("Content-Type", contentType)
	// The browser caches it and revalidates each time: an upgraded server reaches every page at its
	// next load.
	r.header.Set("Cache-Control", "no-cache")
	r.header.Add("Vary", "Accept-Encoding")
	for lang, plain := range bodies {
		text, err := plain.readAll()
		if err != nil {
			return nil, fmt.Errorf("web: read %s: %w", name, err)
		}
		sum := sha256.Sum256(text)
		tag := hex.EncodeToString(sum[:12])
		r.bodies[lang] = body{
			plain:     plain,
			packed:    sync.OnceValues(func() ([]byte, error) { return compress(plain) }),
			plainTag:  `"` + tag + `"`,
			packedTag: `"` + tag + `-gz"`,
		}
		if lang != "" {
			r.header["Vary"] = []string{"Accept-Encoding, Accept-Language, Cookie"}
		}
	}
	return r, nil
}

func compress(plain content) ([]byte, error) {
	text, err := plain.readAll()
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
	if err != nil { // an embedded file
		w.Header().Del("Content-Encoding")
		http.Error(w, "This file cannot be read.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("ETag", tag)
	http.ServeContent(w, req, "", time.Time{}, text)
}

// refuse sends the body with an error status, without ETag or caching. Its links are relative to
// the requested address.
func (r *resource) refuse(w http.ResponseWriter, req *http.Request, status int) {
	text, err := r.pick(w, req).plain.readAll()
	if err != nil { // no body, only the status
		text = nil
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if req.Method != http.MethodHead {
		// An error here means that the client has disconnected.
		_, _ = w.Write(
			bytes.ReplaceAll(text, []byte(anyRoot), []byte(rootFrom(req.URL.EscapedPath()))))
	}
}

// deepest limits the length of relative links for addresses with many slashes.
const deepest = 32

// rootFrom returns the relative reference from an address to the server's root.
func rootFrom(address string) string {
	up := strings.Count(address, "/") - 1
	if up < 1 || up > deepest {
		return root
	}
	return strings.Repeat("../", up)
}

// choose sets the headers and selects language and encoding.
func (r *resource) choose(w http.ResponseWriter, req *http.Request) (c content, tag string) {
	b := r.pick(w, req)
	if acceptsGzip(req.Header.Values("Accept-Encoding")) {
		w.Header().Set("Content-Encoding", "gzip")
		return func() (io.ReadSeeker, error) {
			packed, err := b.packed()
			return bytes.NewReader(packed), err
		}, b.packedTag
	}
	return b.plain, b.plainTag
}

// pick sets the headers and selects the language.
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

// acceptsGzip reports whether gzip is listed with a weight above zero (RFC 9110, 12.5.3).
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
