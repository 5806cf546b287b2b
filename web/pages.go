package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"regexp"
	"strings"
	texttemplate "text/template"
)

// texts is the catalogue of samples/text.json: key, then language, then text.
//
// Scripts show keys that begin with "say.", templates all others. A text may contain `code`,
// **strong** and [text](/path from the server's root). In "say." texts {name} is a placeholder and
// nothing else is markup.
type texts map[string]map[string]string

func readTexts(files fs.FS) (texts, error) {
	raw, err := fs.ReadFile(files, "samples/text.json")
	if err != nil {
		return nil, fmt.Errorf("web: read the texts: %w", err)
	}
	var t texts
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("web: read the texts: %w", err)
	}
	for key, byLang := range t {
		for _, lang := range languages {
			if byLang[lang] == "" {
				return nil, fmt.Errorf("web: text %q is missing in %q", key, lang)
			}
		}
	}
	return t, nil
}

func (t texts) get(key, lang string) (string, error) {
	text := t[key][lang]
	if text == "" {
		return "", fmt.Errorf("no text %q", key)
	}
	return text, nil
}

// script is a classic script: the texts exist before any module runs.
func (t texts) script(lang string) ([]byte, error) {
	said := make(map[string]string)
	for key, byLang := range t {
		if name, ok := strings.CutPrefix(key, "say."); ok {
			said[name] = byLang[lang]
		}
	}
	object, err := json.Marshal(said)
	if err != nil {
		return nil, fmt.Errorf("web: write the texts: %w", err)
	}
	return fmt.Appendf(nil, "globalThis.ieumText = Object.freeze(%s);\n", object), nil
}

// page is an embedded page: its address, its template in samples, and which origins may frame it.
type page struct {
	path, name, ancestors string
}

var pages = []page{
	{"/", "home", "'none'"},
	{"/p2p", "p2p", "'self'"}, // framed by /sample
	{"/sample", "sample", "'none'"},
	{"/guide", "guide", "'none'"},
}

// root leads from a page to the server's root. All links are relative, so that they work when a
// reverse proxy serves the whole server under a path of another site.
const root = "./"

// anyRoot is a placeholder for root in the page for unknown addresses: their depth is known per
// request.
const anyRoot = "@root/"

// view is what a template sees.
type view struct {
	Lang, Path, Name, Version string
	Root                      template.URL
	Dev                       bool
	Steps                     []template.HTML
}

func (s *site) addPages(files fs.FS, t texts, c Config) error {
	for _, p := range append(pages, page{"", "notfound", "'none'"}) {
		base := template.URL(root)
		if p.path == "" {
			base = anyRoot
		}
		bodies := make(map[string]content, len(languages))
		for _, lang := range languages {
			body, err := render(files, t, p, view{
				Lang: lang, Path: p.path, Name: p.name, Version: c.Version, Root: base,
				Dev: c.DevLicense != nil,
			})
			if err != nil {
				return fmt.Errorf("web: page %s in %s: %w", p.name, lang, err)
			}
			bodies[lang] = held(body)
		}
		r, err := newResource(p.name+".html", pageHeader(p.ancestors), bodies)
		if err != nil {
			return err
		}
		if p.path == "" {
			s.notFound = r
			continue
		}
		s.resources[p.path] = r
	}
	return nil
}

func render(files fs.FS, t texts, p page, v view) ([]byte, error) {
	steps, err := guideSteps(files, t, v.Lang)
	if err != nil {
		return nil, err
	}
	v.Steps = steps
	funcs := template.FuncMap{
		"t":    func(key string) (string, error) { return t.get(key, v.Lang) },
		"rich": func(key string) (template.HTML, error) { return rich(t, key, v.Lang, v.Root) },
	}
	tmpl, err := template.New("layout.html").
		Funcs(funcs).
		ParseFS(files, "samples/layout.html", "samples/"+p.name+".html")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := tmpl.Execute(&b, v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

var markup = regexp.MustCompile("`([^`]+)`|\\*\\*([^*]+)\\*\\*|\\[([^\\]]+)\\]\\((/[a-z0-9#-]*)\\)")

// rich converts the markup of a text to elements and escapes everything else.
func rich(t texts, key, lang string, root template.URL) (template.HTML, error) {
	text, err := t.get(key, lang)
	if err != nil {
		return "", err
	}
	text = markup.ReplaceAllStringFunc(template.HTMLEscapeString(text), func(m string) string {
		part := markup.FindStringSubmatch(m)
		switch {
		case part[1] != "":
			return "<code>" + part[1] + "</code>"
		case part[2] != "":
			return "<strong>" + part[2] + "</strong>"
		default:
			return `<a href="` + string(root) + part[4][1:] + `">` + part[3] + "</a>"
		}
	})
	return template.HTML(text), nil
}

// stepMark begins each step in samples/call.html, which is a complete page: the guide shows its
// parts.
const stepMark = "=== step ===\n"

// guideSteps are the parts of call.html as markup: comments dimmed, with placeholders for the
// page's script (this server's address, and with a development license the license).
func guideSteps(files fs.FS, t texts, lang string) ([]template.HTML, error) {
	raw, err := fs.ReadFile(files, "samples/call.html")
	if err != nil {
		return nil, err
	}
	funcs := texttemplate.FuncMap{
		"t":    func(key string) (string, error) { return t.get(key, lang) },
		"lang": func() string { return lang },
	}
	tmpl, err := texttemplate.New("call.html").Funcs(funcs).Parse(string(raw))
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	if err := tmpl.Execute(&b, nil); err != nil {
		return nil, err
	}
	var steps []template.HTML
	for _, piece := range strings.Split(b.String(), stepMark) {
		steps = append(steps, codeMarkup(strings.TrimSpace(piece)+"\n"))
	}
	return steps, nil
}

var (
	comment = regexp.MustCompile(`(?m)^[ \t]*(//.*|&lt;!-- .* --&gt;)$`)
	fills   = strings.NewReplacer(
		"{origin}", `<span data-fill="origin">https://your-server:7102</span>`,
		"{cpCode}", `<span data-fill="cpCode">YOUR-CPCODE</span>`,
		"{authKey}", `<span data-fill="authKey">YOUR-AUTHKEY</span>`,
	)
)

func codeMarkup(piece string) template.HTML {
	text := comment.ReplaceAllStringFunc(
		template.HTMLEscapeString(piece),
		func(line string) string {
			return `<span class="comment">` + line + `</span>`
		},
	)
	return template.HTML(fills.Replace(text))
}
