package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// languages of the pages. The first is the default.
var languages = []string{"en", "ko"}

const langCookie = "lang"

// language returns that of ?lang=, which is remembered, else of the cookie, else the best of
// Accept-Language.
func language(w http.ResponseWriter, r *http.Request) string {
	if asked := r.URL.Query().Get("lang"); slices.Contains(languages, asked) {
		// Without a path the cookie is valid for the sibling pages, wherever a proxy serves them.
		http.SetCookie(w, &http.Cookie{
			Name: langCookie, Value: asked, MaxAge: 365 * 24 * 60 * 60,
			HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode,
		})
		return asked
	}
	if c, err := r.Cookie(langCookie); err == nil && slices.Contains(languages, c.Value) {
		return c.Value
	}
	best, most := languages[0], 0.0
	for _, v := range r.Header.Values("Accept-Language") {
		for _, part := range strings.Split(v, ",") {
			name, weight := weighted(part)
			primary, _, _ := strings.Cut(strings.ToLower(name), "-")
			if weight > most && slices.Contains(languages, primary) {
				best, most = primary, weight
			}
		}
	}
	return best
}

// weighted splits one element of an Accept header, such as "ko;q=0.8" (RFC 9110, 12.4.2). An
// unreadable weight counts as none.
func weighted(element string) (name string, weight float64) {
	name, params, _ := strings.Cut(element, ";")
	weight = 1
	for _, p := range strings.Split(params, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(key, "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil || q < 0 || q > 1 {
				q = 0
			}
			weight = q
		}
	}
	return strings.TrimSpace(name), weight
}
