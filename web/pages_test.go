package web

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"html"
	"io"
	"io/fs"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// everyPage calls f with each page in each language, with and without a development license.
func everyPage(t *testing.T, f func(t *testing.T, path, lang, body string)) {
	for _, dev := range []bool{false, true} {
		c := Config{Version: "1.0"}
		if dev {
			c.DevLicense = devLicense
		}
		s := open(t, c)
		for _, p := range append(pages, page{path: "/missing"}) {
			for _, lang := range languages {
				f(t, p.path, lang, bodyOf(t, get(s, "GET", p.path, "Accept-Language", lang)))
			}
		}
	}
}

// elements reads a page as lenient XML, which is what our templates are written as.
func elements(t *testing.T, body string) []xml.StartElement {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(body))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var all []xml.StartElement
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok {
			all = append(all, e.Copy())
		}
	}
}

func attr(e xml.StartElement, name string) (value string, present bool) {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value, true
		}
	}
	return "", false
}

var inlineScript = regexp.MustCompile(`(?s)<script([^>]*)>(.*?)</script>`)

func TestPagesHoldNoInlineScriptOrStyle(t *testing.T) {
	everyPage(t, func(t *testing.T, path, lang, body string) {
		for _, m := range inlineScript.FindAllStringSubmatch(body, -1) {
			if !strings.Contains(m[1], "src=") || strings.TrimSpace(m[2]) != "" {
				t.Errorf("%s %s: inline script %q", path, lang, m[0])
			}
		}
		for _, e := range elements(t, body) {
			if e.Name.Local == "style" {
				t.Errorf("%s %s: a style element", path, lang)
			}
			for _, a := range e.Attr {
				if a.Name.Local == "style" || strings.HasPrefix(a.Name.Local, "on") ||
					strings.HasPrefix(a.Value, "javascript:") {
					t.Errorf("%s %s: <%s %s=%q>", path, lang, e.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
	})
}

// Names, titles and messages are what others wrote. Our scripts have no way to make markup or code
// of a text, so that they cannot do it by mistake; Chromium would stop them too
// (require-trusted-types-for).
func TestScriptsMakeNoMarkupOfText(t *testing.T) {
	sink := regexp.MustCompile(
		`\b(innerHTML|outerHTML|insertAdjacentHTML|setHTMLUnsafe|parseHTMLUnsafe)\b|` +
			`\b(createContextualFragment|srcdoc|DOMParser)\b|` +
			`\bdocument\.write|\beval\(|\bnew Function\b|` +
			`\bset(Timeout|Interval)\(\s*["'` + "`" + `]`,
	)
	for _, bad := range []string{
		`x.innerHTML = name`, `document.writeln(x)`, `setTimeout("x()")`, `new Function(x)`,
	} {
		if !sink.MatchString(bad) {
			t.Errorf("%s would not be found", bad)
		}
	}
	scripts := 0
	err := fs.WalkDir(embedded, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() ||
			(!strings.HasSuffix(path, ".mjs") && !strings.HasSuffix(path, ".js")) {
			return err
		}
		scripts++
		text, err := fs.ReadFile(embedded, path)
		if found := sink.Find(text); found != nil {
			t.Errorf("%s: %s", path, found)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if scripts < 10 {
		t.Errorf("only %d scripts were found", scripts)
	}
}

func TestPagesNameNoForeignHost(t *testing.T) {
	address := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9.-]+`)
	// Not loaded by anything: a name space, a placeholder in the guide's code, and addresses in
	// sentences.
	known := []string{"http://www.w3.org", "https://your-server", "http://localhost"}
	everyPage(t, func(t *testing.T, path, lang, body string) {
		for _, e := range elements(t, body) {
			for _, name := range []string{"src", "href", "action", "srcset", "poster", "data"} {
				if v, ok := attr(e, name); ok && !regexp.MustCompile(`^(\./|#|\?)`).MatchString(v) {
					t.Errorf("%s %s: <%s %s=%q>", path, lang, e.Name.Local, name, v)
				}
			}
		}
		for _, found := range address.FindAllString(html.UnescapeString(body), -1) {
			if !slices.Contains(known, found) {
				t.Errorf("%s %s: names %s", path, lang, found)
			}
		}
	})
	assets, err := fs.Glob(embedded, "samples/assets/*")
	if err != nil || len(assets) == 0 {
		t.Fatalf("assets: %v, %v", assets, err)
	}
	for _, name := range assets {
		raw, err := fs.ReadFile(embedded, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`(?i)https?://[a-z0-9.-]+`).FindAllString(
			string(raw), -1) {
			if !slices.Contains(known, found) {
				t.Errorf("%s names %s", name, found)
			}
		}
	}
}

// A reverse proxy may serve us under a path of another site and take the path away: whatever a page
// loads or leads to must stay there.
func TestPagesWorkUnderAPath(t *testing.T) {
	const under = "https://site.example/calls"
	s := open(t, Config{DevLicense: devLicense})
	addresses := []string{
		"/missing",
		"/missing/",
		"/a/b/c",
		"//a//b",
		"/assets/none.css",
		"/a%2Fb",
		strings.Repeat("/x", deepest),
	}
	for _, p := range pages {
		addresses = append(addresses, p.path)
	}
	followed := 0
	for _, address := range addresses {
		page, err := url.Parse(under + address)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range elements(t, bodyOf(t, get(s, "GET", address))) {
			for _, name := range []string{"src", "href"} {
				v, ok := attr(e, name)
				if !ok || strings.HasPrefix(v, "#") ||
					strings.HasPrefix(v, "?") { // within the page
					continue
				}
				to, err := page.Parse(v)
				if err != nil {
					t.Fatalf("%s: <%s %s=%q>: %v", address, e.Name.Local, name, v, err)
				}
				inside, ok := strings.CutPrefix(to.Scheme+"://"+to.Host+to.EscapedPath(), under)
				if !ok || !strings.HasPrefix(inside, "/") {
					t.Errorf("%s: <%s %s=%q> leads to %s", address, e.Name.Local, name, v, to)
				} else if r := get(s, "GET", inside); r.StatusCode != 200 {
					t.Errorf("%s: <%s %s=%q>: %d", address, e.Name.Local, name, v, r.StatusCode)
				}
				followed++
			}
		}
	}
	if followed < 7*len(addresses) {
		t.Errorf("only %d addresses were followed", followed)
	}
}

// What the pages' scripts ask for begins at root (page.mjs), never at the site's.
func TestScriptsAskForNothingFromTheSitesRoot(t *testing.T) {
	absolute := regexp.MustCompile(
		"(?:fetch|URL|import|from|src|href|open|register)\\s*[(=]?\\s*['\"`]/|" +
			"['\"`]/(?:p2p|sample|guide|dev|assets|leave)\\b|location\\.origin \\+")
	for _, bad := range []string{
		"fetch('/dev/license')", "new URL('/p2p', x)", "import {a} from '/assets/a.mjs'",
		"location.origin + x",
	} {
		if !absolute.MatchString(bad) {
			t.Errorf("%s would not be found", bad)
		}
	}
	scripts, err := fs.Glob(embedded, "samples/assets/*.mjs")
	if err != nil || len(scripts) < 8 {
		t.Fatalf("scripts: %v, %v", scripts, err)
	}
	for _, name := range scripts {
		text, err := fs.ReadFile(embedded, name)
		if err != nil {
			t.Fatal(err)
		}
		if found := absolute.Find(text); found != nil {
			t.Errorf("%s: %s", name, found)
		}
	}
}

func TestPagesAreUsableByEveryone(t *testing.T) {
	everyPage(t, func(t *testing.T, path, lang, body string) {
		count := make(map[string]int)
		ids := make(map[string]bool)
		var labels, fields, named, frames []string
		for _, e := range elements(t, body) {
			count[e.Name.Local]++
			if id, ok := attr(e, "id"); ok {
				if ids[id] {
					t.Errorf("%s %s: two elements have the id %s", path, lang, id)
				}
				ids[id] = true
			}
			switch e.Name.Local {
			case "label":
				if v, ok := attr(e, "for"); ok {
					labels = append(labels, v)
				}
			case "input":
				kind, _ := attr(e, "type")
				if id, ok := attr(e, "id"); ok && kind == "" {
					fields = append(fields, id)
				}
			case "iframe":
				title, _ := attr(e, "title")
				frames = append(frames, title)
			case "button":
				if kind, _ := attr(e, "type"); kind != "button" && kind != "submit" {
					t.Errorf("%s %s: a button without a type", path, lang)
				}
			}
			for _, name := range []string{"aria-labelledby", "aria-describedby"} {
				if v, ok := attr(e, name); ok {
					named = append(named, strings.Fields(v)...)
				}
			}
			if v, ok := attr(e, "href"); ok && strings.HasPrefix(v, "#") {
				named = append(named, v[1:])
			}
		}
		for _, name := range []string{"main", "header", "footer", "nav", "h1", "title"} {
			// The guide has a second navigation, drawings have titles of their own.
			if count[name] == 0 || count[name] > 1 && name != "nav" && name != "title" {
				t.Errorf("%s %s: %d <%s>", path, lang, count[name], name)
			}
		}
		for _, id := range fields {
			if !slices.Contains(labels, id) {
				t.Errorf("%s %s: field %s has no label", path, lang, id)
			}
		}
		for _, id := range named {
			if !ids[id] {
				t.Errorf("%s %s: nothing has the id %s", path, lang, id)
			}
		}
		if slices.Contains(frames, "") {
			t.Errorf("%s %s: a frame without a title", path, lang)
		}
		if !strings.Contains(body, `class="skip" href="#main"`) {
			t.Errorf("%s %s: no skip link", path, lang)
		}
	})
}

func TestFramesOfTheSampleDifferAndMayUseTheCamera(t *testing.T) {
	var frames []string
	for _, e := range elements(t,
		bodyOf(t, get(open(t, Config{}), "GET", "/sample", "Accept-Language", "ko"))) {
		if e.Name.Local != "iframe" {
			continue
		}
		src, _ := attr(e, "src")
		frames = append(frames, src)
		allow, _ := attr(e, "allow")
		for _, feature := range []string{"camera", "microphone", "display-capture"} {
			if !strings.Contains(allow, feature) {
				t.Errorf("%s may not use %s", src, feature)
			}
		}
	}
	if !slices.Equal(frames, []string{"./p2p?side=a&lang=ko", "./p2p?side=b&lang=ko"}) {
		t.Errorf("frames %v", frames)
	}
}

func TestTextsAreInBothLanguages(t *testing.T) {
	texts, err := readTexts(embedded)
	if err != nil {
		t.Fatal(err)
	}
	place := regexp.MustCompile(`\{\w+\}`)
	hangul := regexp.MustCompile(`\p{Hangul}`)
	for key, byLang := range texts {
		if len(byLang) != len(languages) {
			t.Errorf("%s: %d languages", key, len(byLang))
		}
		ko, en := place.FindAllString(byLang["ko"], -1), place.FindAllString(byLang["en"], -1)
		slices.Sort(ko)
		slices.Sort(en)
		if !slices.Equal(ko, en) {
			t.Errorf("%s: places %v and %v", key, ko, en)
		}
		if hangul.MatchString(byLang["en"]) {
			t.Errorf("%s: the English text is Korean: %s", key, byLang["en"])
		}
		for _, mark := range []string{"`", "](", "**"} {
			if strings.Count(byLang["ko"], mark) != strings.Count(byLang["en"], mark) {
				t.Errorf("%s: marked differently with %s", key, mark)
			}
		}
		// These stand in comments and strings of the guide's code.
		if strings.HasPrefix(key, "code.") &&
			strings.ContainsAny(byLang["ko"]+byLang["en"], "'\"`<>\n\\") {
			t.Errorf("%s: would break the code it stands in", key)
		}
	}
}

// A key given twice would silently hide the first text.
func TestTextKeysAreUnique(t *testing.T) {
	raw, err := fs.ReadFile(embedded, "samples/text.json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for d.More() {
		key, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		if seen[key.(string)] {
			t.Errorf("%s stands twice", key)
		}
		seen[key.(string)] = true
		var skipped map[string]string
		if err := d.Decode(&skipped); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryTextIsUsedAndEveryUseHasAText(t *testing.T) {
	texts, err := readTexts(embedded)
	if err != nil {
		t.Fatal(err)
	}
	var templates, scripts strings.Builder
	err = fs.WalkDir(embedded, "samples", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		into := &templates
		switch {
		case strings.HasSuffix(path, ".mjs"):
			into = &scripts
		case !strings.HasSuffix(path, ".html"):
			return nil
		}
		raw, err := fs.ReadFile(embedded, path)
		into.Write(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[string]bool)
	for _, m := range regexp.MustCompile(`\b(?:t|rich) "([^"]+)"`).FindAllStringSubmatch(
		templates.String(), -1) {
		used[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`Problem\('([^']+)'`).FindAllStringSubmatch(
		scripts.String(), -1) {
		used["say.problem."+m[1]+".title"], used["say.problem."+m[1]+".help"] = true, true
	}
	// Every quoted word that a text is named after counts as a use; keys put together at run time
	// are listed by hand.
	built := []string{
		"say.camera.on", "say.camera.off", "say.microphone.off", "say.microphone.on",
		"say.microphone.muted", "say.drawn.on", "say.drawn.off", "say.path.direct",
		"say.path.relayed",
		"say.sample.direct", "say.sample.relayed",
		"say.sending.no", "say.sending.starting", "say.sending.yes", "say.sending.failed",
		"say.sending.waiting",
	}
	for _, key := range built {
		used[key] = true
	}
	for key := range texts {
		name, said := strings.CutPrefix(key, "say.")
		if !used[key] && (!said || !strings.Contains(scripts.String(), "'"+name+"'")) {
			t.Errorf("%s is used nowhere", key)
		}
		delete(used, key)
	}
	said := regexp.MustCompile(`\b(?:say\(|finish\('\w+', )'([^']+)'`)
	for _, m := range said.FindAllStringSubmatch(scripts.String(), -1) {
		if _, ok := texts["say."+m[1]]; !ok {
			used["say."+m[1]] = true
		}
	}
	for key := range used {
		t.Errorf("no text %s", key)
	}
}

func TestTextsForScripts(t *testing.T) {
	s := open(t, Config{})
	for _, lang := range languages {
		body := bodyOf(t, get(s, "GET", "/assets/text."+lang+".js"))
		object, ok := strings.CutPrefix(strings.TrimSuffix(body, ");\n"),
			"globalThis.ieumText = Object.freeze(")
		var said map[string]string
		if !ok || json.Unmarshal([]byte(object), &said) != nil || said["camera.on"] == "" {
			t.Errorf("%s: %.80s", lang, body)
		}
		for key := range said {
			if strings.HasPrefix(key, "guide.") {
				t.Errorf("%s: %s is for templates", lang, key)
			}
		}
	}
}

var (
	step = regexp.MustCompile(`(?s)<code data-step>(.*?)</code>`)
	span = regexp.MustCompile(`</?span[^>]*>`)
)

func TestGuideShowsOneWholePageInFiveSteps(t *testing.T) {
	s := open(t, Config{})
	for _, lang := range languages {
		body := bodyOf(t, get(s, "GET", "/guide", "Accept-Language", lang))
		var steps []string
		for _, m := range step.FindAllStringSubmatch(body, -1) {
			steps = append(steps, html.UnescapeString(span.ReplaceAllString(m[1], "")))
		}
		wanted := []string{
			"knowledgetalk.init('YOUR-CPCODE', 'YOUR-AUTHKEY')",
			".createRoom(location.hash.slice(1))", ".joinRoom(roomId)",
			".publishP2P(target, 'cam', localStream)", "addEventListener('presence'",
		}
		if len(steps) != len(wanted) {
			t.Fatalf("%s: %d steps", lang, len(steps))
		}
		for i, want := range wanted {
			if !strings.Contains(steps[i], want) {
				t.Errorf("%s: step %d lacks %s", lang, i+1, want)
			}
		}
		code := strings.Join(steps, "\n")
		if !strings.HasPrefix(code, "<!doctype html>") || !strings.HasSuffix(code, "</script>\n") {
			t.Errorf("%s: not one page:\n%s", lang, code)
		}
		if strings.Contains(code, "{{") || strings.Contains(code, "{origin}") ||
			strings.Contains(code, stepMark) {
			t.Errorf("%s: left-over marks in\n%s", lang, code)
		}
		for _, place := range []string{"origin", "cpCode", "authKey"} {
			if got := strings.Count(body, `data-fill="`+place+`"`); got != 1 {
				t.Errorf("%s: %s is filled in %d times", lang, place, got)
			}
		}
	}
}

func TestRichEscapes(t *testing.T) {
	texts := texts{
		"a": {
			"en": "<b> & `x<y` **now** [here](/guide#relay) [no](javascript:1) [no](//elsewhere)",
		},
	}
	got, err := rich(texts, "a", "en", root)
	want := "&lt;b&gt; &amp; <code>x&lt;y</code> <strong>now</strong> " +
		`<a href="./guide#relay">here</a> [no](javascript:1) [no](//elsewhere)`
	if err != nil || string(got) != want {
		t.Errorf("%s (%v)", got, err)
	}
}
