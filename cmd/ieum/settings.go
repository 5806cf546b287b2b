package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/ieum-rtc/ieum/internal/config"
)

// Settings come from flags, from variables named IEUM_… and from the file of --config, in that
// order of precedence. Kong knows the flags; values are read here, so that one that is wrong is
// noted, with the place it comes from, and does not hide others.

// settings are what one command line gives.
type settings struct {
	errors   []error
	warnings []string
	// By the name of a flag: where its value comes from; a default has none.
	origins map[string]string
}

// secretVariables are read by commands themselves. They have no flags, which every user of the
// machine can see.
var secretVariables = []string{
	"IEUM_LICENSE_SIGNING_KEY", "IEUM_ADMIN_TOKEN", "IEUM_RELAY_SECRET", "IEUM_RELAY_PASSWORD",
	"IEUM_CLUSTER_SECRET",
}

func (s *settings) addError(where, format string, args ...any) {
	s.errors = append(s.errors, fmt.Errorf(where+": "+format, args...))
}

// place says where the value of a setting of package node comes from.
func (s *settings) place(setting string) string {
	if from, ok := s.origins[strings.TrimPrefix(setting, "--")]; ok {
		return from
	}
	return setting
}

// all lists the errors of values, and after them those of package config, each with its place.
func (s *settings) all(found error) []error {
	errs := slices.Clone(s.errors)
	for _, err := range config.Errors(found) {
		if f := (*config.Error)(nil); errors.As(err, &f) {
			err = fmt.Errorf("%s: %w", s.place(f.Setting), f.Err)
		}
		errs = append(errs, err)
	}
	return errs
}

// watch has the values of all flags read here.
func (s *settings) watch(app *kong.Application) {
	s.origins = map[string]string{}
	_ = kong.Visit(app, func(n kong.Visitable, next kong.Next) error {
		if f, ok := n.(*kong.Flag); ok && knownType(f.Target.Type()) {
			f.Mapper = flagValue{s, f}
		}
		return next(nil)
	})
}

// flagValue reads the value of a flag from the command line, or its default.
type flagValue struct {
	*settings
	flag *kong.Flag
}

// Decode implements kong.Mapper. It collects errors and returns none.
func (v flagValue) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	name := "--" + v.flag.Name
	text, given := value(ctx.Scan, v.flag.IsBool(), isNumber(target.Type()))
	if !given {
		v.addError(name, "needs a value: %s", v.flag.FormatPlaceHolder())
		v.reset(target)
		return nil
	}
	if err := assign(v.flag, target, text); err != nil {
		v.addError(name, "%w", err)
		v.reset(target)
	}
	return nil
}

// reset lets the default stand, so that a value that is wrong is blamed once.
func (v flagValue) reset(target reflect.Value) {
	target.SetZero()
	if v.flag.HasDefault {
		_ = assign(v.flag, target, v.flag.Default)
	}
}

// value takes what follows a flag. A negative number is a value, although Kong takes it for a flag.
func value(scan *kong.Scanner, isBool, number bool) (text string, given bool) {
	next := scan.Peek()
	if isBool && next.Type != kong.FlagValueToken {
		return "true", true
	}
	if !next.IsValue() && !(number && isNegative(next.String())) {
		return "", false
	}
	return scan.Pop().String(), true
}

func isNegative(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil && strings.HasPrefix(s, "-")
}

func isNumber(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Int || t.Kind() == reflect.Int64 || t.Kind() == reflect.Float64
}

func knownType(t reflect.Type) bool {
	switch reflect.New(t).Interface().(type) {
	case *string, *bool, *int, **int, *float64, *time.Duration, *[]string:
		return true
	}
	return false
}

// assign reads text into target, which is of a known type. To a list it adds.
func assign(flag *kong.Flag, target reflect.Value, text string) (err error) {
	switch to := target.Addr().Interface().(type) {
	case *string:
		*to = text
	case *bool:
		*to, err = readBool(text)
	case *int:
		*to, err = readInt(text)
	case **int:
		n, err := readInt(text)
		if err != nil {
			return err
		}
		*to = &n
	case *float64:
		*to, err = readFloat(text)
	case *time.Duration:
		*to, err = readDuration(text)
	case *[]string:
		*to = append(*to, kong.SplitEscaped(text, flag.Tag.Sep)...)
	}
	if err == nil && flag.Enum != "" && !slices.Contains(flag.EnumSlice(), text) {
		err = fmt.Errorf("%q is not one of %s", text, strings.Join(flag.EnumSlice(), ", "))
	}
	return err
}

func readBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "1", "yes", "on":
		return true, nil
	case "false", "0", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is not true or false", text)
}

func readInt(text string) (int, error) {
	n, err := strconv.Atoi(text)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%s is too large", text)
	case err != nil:
		return 0, fmt.Errorf("%q is not a whole number", text)
	}
	return n, nil
}

func readFloat(text string) (float64, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return n, nil
}

func readDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time such as 20s, 5m or 1h30m", text)
	}
	return d, nil
}

// variable is the name of the variable that stands for a flag of serve, relay or config.
func variable(flag string) string {
	return "IEUM_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// configured tells whether a command takes variables and a file, beside flags.
func configured(n *kong.Node) bool {
	return n != nil &&
		slices.ContainsFunc(n.Flags, func(f *kong.Flag) bool { return f.Name == "config" })
}

// isPath tells whether a flag names something in the file system.
func isPath(f *kong.Flag) bool { return f.PlaceHolder == "FILE" || f.PlaceHolder == "FOLDER" }

// resolve adds what the environment and the file say. Values that something else overrides must be
// good, too.
func (s *settings) resolve(parsed *kong.Context) {
	command := parsed.Selected()
	given := map[string]bool{}
	for _, p := range parsed.Path {
		if p.Flag != nil {
			given[p.Flag.Name] = true
			s.origins[p.Flag.Name] = "--" + p.Flag.Name
		}
	}
	env := map[string]string{}
	for _, f := range command.Flags {
		if text := os.Getenv(variable(f.Name)); text != "" {
			env[f.Name] = text
		}
	}
	s.unknownVariables(parsed.Model)
	file := s.readFile(command, given["config"], env["config"])
	for _, f := range command.Flags {
		if f.Name == "config" {
			continue
		}
		if entry, ok := file.entries[f.Name]; ok {
			place, use := file.place(f.Name), !given[f.Name] && env[f.Name] == ""
			good := s.take(f, use, place, entry.texts)
			if good && isPath(f) && s.origins[f.Name] == place {
				f.Target.SetString(relativeTo(file.path, f.Target.String()))
			}
		}
		if text := env[f.Name]; text != "" {
			s.take(f, !given[f.Name], variable(f.Name), []string{text})
		}
	}
}

// take reads the value that one place has for a flag, and uses it unless another place overrides
// it.
func (s *settings) take(f *kong.Flag, use bool, from string, texts []string) (good bool) {
	v := reflect.New(f.Target.Type()).Elem()
	if len(texts) > 1 && !f.IsSlice() {
		s.addError(from, "has %d values; it takes one", len(texts))
		return false
	}
	for _, text := range texts {
		if err := assign(f, v, text); err != nil {
			s.addError(from, "%w", err)
			return false
		}
	}
	if use {
		f.Target.Set(v)
		s.origins[f.Name] = from
	}
	return true
}

// relativeTo is a path in a file: relative to the folder of the file, wherever the program is
// started.
func relativeTo(file, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// unknownVariables reports variables without a flag. A misspelt name is an error: otherwise a limit
// would silently not be in force. Other names may belong to another program, as those of services
// do, and are a warning.
func (s *settings) unknownVariables(app *kong.Application) {
	known := slices.Clone(secretVariables)
	_ = kong.Visit(app, func(n kong.Visitable, next kong.Next) error {
		if command, ok := n.(*kong.Node); ok && configured(command) {
			for _, f := range command.Flags {
				known = append(known, variable(f.Name))
			}
		}
		return next(nil)
	})
	for _, pair := range os.Environ() {
		name, text, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "IEUM_") || strings.HasPrefix(name, "IEUM_TEST_") ||
			slices.Contains(known, name) {
			continue
		}
		if near := nearest(name, known); near != "" && !ofService(name, text) {
			s.addError(name, "unknown variable; did you mean %s?", near)
			continue
		}
		s.warnings = append(s.warnings, name+": unknown variable, ignored")
	}
}

// Kubernetes tells every container where the services of its namespace are: of one named ieum-relay
// by IEUM_RELAY_SERVICE_HOST, IEUM_RELAY_PORT, IEUM_RELAY_PORT_3478_UDP_ADDR and others. Docker's
// links do the same.
var (
	serviceName = regexp.MustCompile(
		`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`,
	)
	servicePort = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// ofService tells whether a variable has the address of a service.
func ofService(name, text string) bool {
	return serviceName.MatchString(name) ||
		(strings.HasSuffix(name, "_PORT") && servicePort.MatchString(text))
}

// nearest is the name that was probably meant; empty: none is similar.
func nearest(word string, names []string) string {
	best, least := "", len(word)/4+1
	for _, name := range names {
		if d := distance(word, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with a neighbour (optimal string
// alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// texts formats errors, each with the place of its setting.
func (s *settings) texts(found error) (all []string) {
	for _, err := range (&settings{origins: s.origins}).all(found) {
		all = append(all, err.Error())
	}
	return all
}
