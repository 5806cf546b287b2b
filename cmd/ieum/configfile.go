package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// maxConfigFile bounds the file of --config: nobody writes a longer one.
const maxConfigFile = 1 << 20

// configFile is the file of --config, in YAML or JSON, whose keys are the names of flags.
type configFile struct {
	path    string
	entries map[string]configEntry // by key; only keys that the command has
}

// configEntry is a value, or the values of a list.
type configEntry struct {
	line  int
	texts []string
}

// place is how errors refer to a key.
func (f configFile) place(key string) string {
	return fmt.Sprintf("%s:%d: %s", f.path, f.entries[key].line, key)
}

// readFile reads the file that the flag or the variable names; without either it is empty.
func (s *settings) readFile(command *kong.Node, flag bool, variableText string) configFile {
	f := configFile{entries: map[string]configEntry{}}
	from := variable("config")
	f.path = variableText
	if flag {
		from = "--config"
		for _, of := range command.Flags {
			if of.Name == "config" {
				f.path = of.Target.String()
			}
		}
	}
	if f.path == "" {
		return f
	}
	s.origins["config"] = from
	f.path = kong.ExpandPath(f.path)
	text, err := readAtMost(f.path, maxConfigFile)
	if err != nil {
		s.addError(from, "%w", err)
		return f
	}
	top, err := parseConfig(text)
	if err != nil {
		s.errors = append(s.errors, errors.New(atLine(f.path, err.Error())))
		return f
	}
	if top != nil {
		s.readKeys(&f, command, top)
	}
	return f
}

// atLine makes "FILE:3: text" of "line 3: text".
func atLine(path, text string) string {
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		return path + ":" + rest
	}
	return path + ": " + text
}

func readAtMost(path string, limit int64) ([]byte, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return text, err
}

// parseConfig returns the mapping that the file is; nil: it is empty. JSON is YAML but for tabs,
// which stand between its tokens only.
func parseConfig(text []byte) (*yaml.Node, error) {
	if json.Valid(text) {
		text = bytes.ReplaceAll(text, []byte{'\t'}, []byte{' '})
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var root yaml.Node
	err := dec.Decode(&root)
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one document in it")
	}
	top := root.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf(
			"line %d: this is not a list of keys with values, like `listen: \":7102\"`",
			top.Line,
		)
	}
	return top, nil
}

// readKeys notes the values of the keys that the command has, and an error for each other key.
func (s *settings) readKeys(f *configFile, command *kong.Node, top *yaml.Node) {
	flags := map[string]*kong.Flag{}
	var names []string
	for _, flag := range command.Flags {
		if flag.Name != "config" {
			flags[flag.Name] = flag
			names = append(names, flag.Name)
		}
	}
	for i := 0; i < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		where := fmt.Sprintf("%s:%d: %s", f.path, key.Line, key.Value)
		before, twice := f.entries[key.Value]
		switch {
		case flags[key.Value] == nil:
			s.addError(
				where, "unknown key of `ieum %s`%s", command.Path(), didYouMean(key.Value, names),
			)
		case twice:
			s.addError(where, "stands in line %d already", before.line)
		default:
			texts, err := texts(value)
			if err != nil {
				s.addError(where, "%w", err)
				continue
			}
			f.entries[key.Value] = configEntry{key.Line, texts}
		}
	}
}

func didYouMean(word string, names []string) string {
	if near := nearest(word, names); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// texts are the values of a key as somebody would write them on a command line.
func texts(n *yaml.Node) ([]string, error) {
	switch {
	case n.Kind == yaml.AliasNode:
		return texts(n.Alias)
	case n.Kind == yaml.MappingNode:
		return nil, errors.New("this is a mapping; it takes a value")
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, errors.New("a value is missing; leave the key out for the default")
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}, nil
	}
	var all []string
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			return nil, fmt.Errorf("line %d: this is not a value", item.Line)
		}
		all = append(all, item.Value)
	}
	if len(all) == 0 {
		return nil, errors.New("the list is empty; leave the key out for the default")
	}
	return all, nil
}
