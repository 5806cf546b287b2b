package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// configFile resolves flags from a YAML (or JSON) file whose keys are the flags' names.
type configFile map[string]any

// loadConfig reads the file of --config.
func loadConfig(r io.Reader) (kong.Resolver, error) {
	values := configFile{}
	if err := yaml.NewDecoder(r).Decode(&values); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: --config: %w", errUsage, err)
	}
	return values, nil
}

// Validate refuses keys that no flag has: a misspelt key must not silently leave a default in force.
func (f configFile) Validate(app *kong.Application) error {
	var known []string
	_ = kong.Visit(app, func(n kong.Visitable, next kong.Next) error {
		if flag, ok := n.(*kong.Flag); ok {
			known = append(known, flag.Name)
		}
		return next(nil)
	})
	var unknown []string
	for key := range f {
		if !slices.Contains(known, key) || key == "config" {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("%w: --config: unknown keys: %s", errUsage, strings.Join(unknown, ", "))
}

// Resolve implements kong.Resolver.
func (f configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	return f[flag.Name], nil
}
