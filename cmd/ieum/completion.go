package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// The scripts of all shells ask this program what could follow: `ieum __complete WORD…` prints what
// the last word, which may be begun, could be, one a line, or one line that says that it is a path.
const (
	completeCommand = "__complete"
	completeFiles   = ":files"
	completeFolders = ":folders"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown by --help.
func (completionCmd) Help() string {
	return `bash: source <(ieum completion bash), in ~/.bashrc

zsh: source <(ieum completion zsh), in ~/.zshrc after compinit

fish: ieum completion fish > ~/.config/fish/completions/ieum.fish`
}

// Run prints the script.
func (s *completionCmd) Run(c *console) error {
	_, err := io.WriteString(c.out, completionScripts[s.Shell])
	return err
}

var completionScripts = map[string]string{
	"bash": `_ieum() {
	local IFS=$'\n' found cur=${COMP_WORDS[COMP_CWORD]}
	found=$("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
	case $found in
	:files) COMPREPLY=($(compgen -f -- "${cur#=}")); compopt -o filenames ;;
	:folders) COMPREPLY=($(compgen -d -- "${cur#=}")); compopt -o filenames ;;
	*) COMPREPLY=($found) ;;
	esac
}
complete -F _ieum ieum
`,
	"zsh": `#compdef ieum
_ieum() {
	local -a found
	found=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	case $found[1] in
	:files) _files ;;
	:folders) _files -/ ;;
	?*) compadd -- $found ;;
	esac
}
if [[ $funcstack[1] == _ieum ]]; then _ieum "$@"; else compdef _ieum ieum; fi
`,
	"fish": `function __ieum_complete
	set -l words (commandline -opc)
	set -l current (commandline -ct)
	set -l found ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
	switch "$found[1]"
	case :files
		__fish_complete_path "$current"
	case :folders
		__fish_complete_directories "$current"
	case '*'
		printf '%s\n' $found
	end
end
complete -c ieum -f -a '(__ieum_complete)'
`,
}

// complete prints what the last of the words could be.
func complete(words []string, out io.Writer) int {
	line, _, err := newParser(io.Discard, io.Discard)
	if err != nil {
		return exitFailed
	}
	for _, word := range candidates(line.app.Node, joinEquals(words)) {
		fmt.Fprintln(out, word)
	}
	return exitOK
}

// joinEquals makes one word of --flag = value, which bash makes three of. The last word is then the
// value, as it is after a space.
func joinEquals(words []string) (joined []string) {
	for i, word := range words {
		last := i == len(words)-1
		switch name, value, found := strings.Cut(word, "="); {
		case word == "=" && last:
			joined = append(joined, "")
		case word == "=":
		case found && strings.HasPrefix(word, "--") && !last:
			joined = append(joined, name, value)
		default:
			joined = append(joined, word)
		}
	}
	return joined
}

func candidates(command *kong.Node, words []string) (found []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	flags := slices.Clone(command.Flags)
	var pending *kong.Flag // whose value comes next
	arguments := 0
	for _, word := range words[:len(words)-1] {
		flag := flagNamed(flags, word)
		child := childOf(command, word)
		switch {
		case pending != nil:
			pending = nil
		case flag != nil && !flag.IsBool():
			pending = flag
		case flag != nil:
		case child != nil:
			command, flags = child, append(flags, child.Flags...)
		default:
			arguments++
		}
	}
	begun := words[len(words)-1]
	name, value, equals := strings.Cut(begun, "=")
	// in zsh and fish, --flag=value is one word
	if flag := flagNamed(flags, name); equals && flag != nil {
		found = valuesOf(flag.Value)
		for i := range found {
			if !strings.HasPrefix(found[i], ":") {
				found[i] = name + "=" + found[i]
			}
		}
		_ = value
	} else if pending != nil {
		found = valuesOf(pending.Value)
	} else {
		found = namesOf(command, flags, arguments, strings.HasPrefix(begun, "-"))
	}
	return slices.DeleteFunc(found, func(s string) bool {
		return !strings.HasPrefix(s, ":") && !strings.HasPrefix(s, begun)
	})
}

// namesOf are the commands below a command, or its flags and what its next argument could be.
func namesOf(
	command *kong.Node, flags []*kong.Flag, arguments int, wantFlag bool,
) (names []string) {
	if wantFlag {
		return slices.Sorted(slices.Values(flagNames(flags)))
	}
	for _, child := range command.Children {
		if !child.Hidden {
			names = append(names, child.Name)
		}
	}
	if arguments < len(command.Positional) {
		names = append(names, valuesOf(command.Positional[arguments])...)
	}
	return names
}

// valuesOf are the values of a flag or an argument; none: nobody knows.
func valuesOf(v *kong.Value) []string {
	switch {
	case v.Enum != "":
		return v.EnumSlice()
	case v.Tag.PlaceHolder == "FILE":
		return []string{completeFiles}
	case v.Tag.PlaceHolder == "FOLDER":
		return []string{completeFolders}
	}
	return nil
}
