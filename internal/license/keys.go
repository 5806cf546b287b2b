package license

import "bytes"

// ParseKeys reads the keys of a secret file: one a line, the first signs, all verify. Blank lines
// and the white space around a key do not count.
func ParseKeys(text []byte) [][]byte {
	var keys [][]byte
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			keys = append(keys, bytes.Clone(line))
		}
	}
	return keys
}
