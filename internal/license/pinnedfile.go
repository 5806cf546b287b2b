package license

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// ParsePinned reads a list of licenses in YAML or JSON, with the field names of Pinned. Unknown
// names, names twice and names without a value are faults; all faults of the file are reported
// together, each with its line.
func ParsePinned(text []byte) ([]Pinned, error) {
	var root yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&root); errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty; a list of licenses is needed")
	} else if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file has more than one document")
	}
	top := root.Content[0]
	if top.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf(
			"line %d: this is not a list of licenses: each begins with a hyphen",
			top.Line,
		)
	}
	list := make([]Pinned, len(top.Content))
	errs := make([]error, len(top.Content))
	for i, entry := range top.Content {
		errs[i] = list[i].decode(entry)
	}
	for i, err := range pinnedErrors(list) {
		if err != nil && errs[i] == nil { // what could not be read is not judged
			errs[i] = fmt.Errorf("line %d: license %d: %w", top.Content[i].Line, i+1, err)
		}
	}
	return list, errors.Join(errs...)
}

// decode reads one entry.
func (p *Pinned) decode(entry *yaml.Node) error {
	var errs []error
	known := pinnedNames()
	if entry.Kind == yaml.MappingNode {
		for i := 0; i < len(entry.Content); i += 2 {
			if key := entry.Content[i]; !slices.Contains(known, key.Value) {
				errs = append(
					errs,
					fmt.Errorf("line %d: unknown name %q; known are %s",
						key.Line, key.Value, strings.Join(known, ", ")),
				)
			}
		}
	}
	if err := valueless(entry); err != nil {
		return errors.Join(append(errs, err)...)
	}
	err := entry.Decode(p)
	if wrong := (*yaml.TypeError)(nil); errors.As(err, &wrong) {
		for _, text := range wrong.Errors {
			errs = append(errs, errors.New(plainYAML(text)))
		}
	} else if err != nil {
		errs = append(errs, errors.New(strings.TrimPrefix(err.Error(), "yaml: ")))
	}
	return errors.Join(errs...)
}

func pinnedNames() (names []string) {
	for field := range reflect.TypeFor[Pinned]().Fields() {
		names = append(names, field.Tag.Get("yaml"))
	}
	return names
}

// plainYAML says without Go's types what the YAML package says with them.
func plainYAML(text string) string {
	before, kind, found := strings.Cut(text, " into ")
	if !found {
		return text
	}
	what := map[string]string{
		"int":            "a whole number",
		"bool":           "true or false",
		"string":         "text",
		"[]string":       "a list",
		"license.Pinned": "names with values",
	}[kind]
	line, value, _ := strings.Cut(before, ": cannot unmarshal ")
	if _, scalar, ok := strings.Cut(value, " "); ok {
		return fmt.Sprintf("%s: %s is not %s", line, scalar, what)
	}
	return fmt.Sprintf("%s: this is not %s", line, what)
}

// valueless refuses what YAML reads as "not there": whoever writes a name and no value means
// something else.
func valueless(n *yaml.Node) error {
	var errs []error
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		errs = append(errs, fmt.Errorf("line %d: a value is missing", n.Line))
	}
	for _, child := range n.Content {
		errs = append(errs, valueless(child))
	}
	return errors.Join(errs...)
}
