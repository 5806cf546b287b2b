// Package web holds what a browser loads: the built SDK (dist) and the sample pages (samples), embedded into the binary.
//
// Everything is read, rendered in both languages and compressed once, when Handler is called; a request only chooses among
// finished bodies. A page or text that does not fit together is therefore an error at start, never one at a visitor's.
//
// Three kinds of answers leave here, with different headers:
//
//   - the SDK, which pages of any origin load: open to all of them, without a policy of its own;
//   - pages, which see a person's camera: the strictest policy that lets them work;
//   - the files of the pages (style, scripts, pictures), for this origin alone.
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

// Config says what the pages may know about the server that serves them.
type Config struct {
	// DevLicense returns the license made for development. With it the sample pages ask nobody for a license, and
	// GET /dev/license answers {cpCode, authKey}. Nil: that route does not exist.
	DevLicense func() (cpCode, authKey string)

	// HSTS adds Strict-Transport-Security. Only for a server on port 443: the header covers every port of its host.
	HSTS bool

	// Version is shown at the foot of the pages; empty shows nothing.
	Version string
}

const devLicensePath = "/dev/license"

// required are the SDK's documented addresses; a build without them must not start.
var required = []string{"knowledgetalk.min.js", "knowledgetalk.mjs", "knowledgetalk.polling.mjs", "knowledgetalk.d.ts"}

// Handler serves the SDK, the pages and their files. It answers 404 to every path that is not its own, so it may stand at "/".
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

// addSDK puts each file of dist at the root, source maps included: min.js names its map by a relative address. The Socket.IO client
// has the address that pages know from other servers.
func (s *site) addSDK(files fs.FS) error {
	entries, err := fs.ReadDir(files, "dist")
	if err != nil {
		return fmt.Errorf("web: read the built SDK: %w", err)
	}
	for _, e := range entries {
		r, err := newResource(e.Name(), sdkHeader, map[string]content{"": in(files, path.Join("dist", e.Name()))})
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

// addAssets puts samples/assets at /assets, and there the texts that scripts show, one file a language.
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
	// Browsers ask for this address by themselves when they show something that is no page.
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
		// Only to a page of ours, so the address cannot lead to another host.
		if trimmed := strings.TrimSuffix(p, "/"); trimmed != p && s.resources[trimmed] != nil {
			// Relative, since a proxy may serve all this below a path of its own; http.Redirect would make it absolute.
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

// serveLicense carries no CORS header: a page of another origin on the developer's machine must not read the key.
func (s *site) serveLicense(w http.ResponseWriter) {
	cpCode, authKey := s.devLicense()
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	// An error here is a visitor who left.
	_ = json.NewEncoder(w).Encode(map[string]string{"cpCode": cpCode, "authKey": authKey})
}

// sdkHeader opens the SDK to every page. It says no policy: in a script's answer one would mean nothing.
func sdkHeader() http.Header {
	return http.Header{
		"Access-Control-Allow-Origin":  {"*"},
		"Cross-Origin-Resource-Policy": {"cross-origin"},
	}
}

func assetHeader() http.Header {
	return http.Header{"Cross-Origin-Resource-Policy": {"same-origin"}}
}

// pageHeader is the policy of one page. ancestors names who may frame it.
//
// form-action 'none': the forms are read by script; should a script fail, no key may end up in an address.
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
			"Permissions-Policy":           {"camera=(self), microphone=(self), display-capture=(self)"},
			"Referrer-Policy":              {"no-referrer"},
		}
	}
}
