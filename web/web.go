// Package web serves the built SDK (dist) and the sample pages (samples), embedded into the binary.
//
// Handler reads and renders everything once, in both languages; a request only selects one of the
// finished bodies. A mismatch of page and text is therefore an error at start.
//
// There are three kinds of responses, with different headers:
//
//   - the SDK, for pages of any origin: without a policy;
//   - pages, which have access to the camera: the strictest policy that works;
//   - files of the pages (style, scripts, images), for this origin only.
package web

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
)

//go:embed dist samples
var embedded embed.FS

// Config is what the pages need to know about the server.
type Config struct {
	// DevLicense returns the development license. With it the sample pages do not ask for a
	// license, and GET /dev/license answers {cpCode, authKey}. Nil: that route does not exist.
	DevLicense func() (cpCode, authKey string)

	// HSTS adds Strict-Transport-Security. Only for a server on port 443: the header covers every
	// port of its host.
	HSTS bool

	// Version is shown in the footer of the pages, unless empty.
	Version string
}

const devLicensePath = "/dev/license"

// required are the documented addresses of the SDK. A build without them must not start.
var required = []string{
	"knowledgetalk.min.js",
	"knowledgetalk.mjs",
	"knowledgetalk.polling.mjs",
	"knowledgetalk.d.ts",
}

// Handler serves the SDK, the pages and their files, and 404 for every other path, so it can handle
// "/".
func Handler(c Config) (http.Handler, error) {
	return newSite(c, embedded)
}

// site is immutable after newSite.
type site struct {
	resources  map[string]*resource
	notFound   *resource
	devLicense func() (cpCode, authKey string)
	hsts       bool
}

func newSite(c Config, files fs.FS) (*site, error) {
	s := &site{resources: make(map[string]*resource), devLicense: c.DevLicense, hsts: c.HSTS}
	if err := s.addSDK(files); err != nil {
		return nil, err
	}
	texts, err := readTexts(files)
	if err != nil {
		return nil, err
	}
	if err := s.addAssets(files, texts); err != nil {
		return nil, err
	}
	if err := s.addPages(files, texts, c); err != nil {
		return nil, err
	}
	return s, nil
}

// addSDK serves each file of dist at the root, including source maps: min.js refers to its map
// relatively. The Socket.IO client has the address that it has on other servers.
func (s *site) addSDK(files fs.FS) error {
	entries, err := fs.ReadDir(files, "dist")
	if err != nil {
		return fmt.Errorf("web: read the built SDK: %w", err)
	}
	for _, e := range entries {
		r, err := newResource(e.Name(), sdkHeader,
			map[string]content{"": in(files, path.Join("dist", e.Name()))})
		if err != nil {
			return err
		}
		at := "/" + e.Name()
		if strings.HasPrefix(e.Name(), "socket.io.") {
			at = "/socket.io/" + e.Name()
		}
		s.resources[at] = r
	}
	for _, name := range required {
		if s.resources["/"+name] == nil {
			return fmt.Errorf("web: dist/%s is missing; build the SDK first", name)
		}
	}
	return nil
}

// addAssets serves samples/assets at /assets, with the texts for scripts, one file per language.
func (s *site) addAssets(files fs.FS, t texts) error {
	entries, err := fs.ReadDir(files, "samples/assets")
	if err != nil {
		return fmt.Errorf("web: read the pages' files: %w", err)
	}
	add := func(name string, body content) error {
		r, err := newResource(name, assetHeader, map[string]content{"": body})
		s.resources["/assets/"+name] = r
		return err
	}
	for _, e := range entries {
		if err := add(e.Name(), in(files, path.Join("samples/assets", e.Name()))); err != nil {
			return err
		}
	}
	for _, lang := range languages {
		body, err := t.script(lang)
		if err != nil {
			return err
		}
		if err := add("text."+lang+".js", held(body)); err != nil {
			return err
		}
	}
	// Browsers request this address for responses that are not pages.
	s.resources["/favicon.ico"] = s.resources["/assets/logo.svg"]
	return nil
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if s.hsts {
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
	}
	p := r.URL.Path
	license := p == devLicensePath && s.devLicense != nil
	res := s.resources[p]
	if res == nil && !license {
		// Only to an embedded page, so the redirect cannot lead to another host.
		if trimmed := strings.TrimSuffix(p, "/"); trimmed != p && s.resources[trimmed] != nil {
			// Relative, since a proxy may serve this under a path; http.Redirect would make it
			// absolute.
			to := url.URL{Path: "../" + path.Base(trimmed), RawQuery: r.URL.RawQuery}
			w.Header().Set("Location", to.String())
			w.WriteHeader(http.StatusPermanentRedirect)
			return
		}
		s.notFound.refuse(w, r, http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are possible here", http.StatusMethodNotAllowed)
		return
	}
	if license {
		s.serveLicense(w)
		return
	}
	res.serve(w, r)
}

// serveLicense sends no CORS header: pages of other origins on the developer's machine must not
// read the license.
func (s *site) serveLicense(w http.ResponseWriter) {
	cpCode, authKey := s.devLicense()
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	// An error here means that the client has disconnected.
	_ = json.NewEncoder(w).Encode(map[string]string{"cpCode": cpCode, "authKey": authKey})
}

// sdkHeader allows every page to load the SDK. It has no policy, which would have no effect on a
// script.
func sdkHeader() http.Header {
	return http.Header{
		"Access-Control-Allow-Origin":  {"*"},
		"Cross-Origin-Resource-Policy": {"cross-origin"},
	}
}

func assetHeader() http.Header {
	return http.Header{"Cross-Origin-Resource-Policy": {"same-origin"}}
}

// pageHeader is the policy of a page. ancestors lists the origins that may frame it.
//
// form-action 'none': scripts read the forms. If a script fails, no authKey may end up in a URL.
func pageHeader(ancestors string) func() http.Header {
	policy := []string{
		"default-src 'self'",
		"connect-src 'self' ws: wss:",
		"object-src 'none'",
		"base-uri 'none'",
		"frame-ancestors " + ancestors,
		"form-action 'none'",
		"require-trusted-types-for 'script'",
	}
	return func() http.Header {
		return http.Header{
			"Content-Security-Policy":      {strings.Join(policy, "; ")},
			"Cross-Origin-Resource-Policy": {"same-origin"},
			"Permissions-Policy": {
				"camera=(self), microphone=(self), display-capture=(self)",
			},
			"Referrer-Policy": {"no-referrer"},
		}
	}
}
