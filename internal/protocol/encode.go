package protocol

import (
	"bytes"
	"encoding/json"
)

// Marshal is the one encoder of whatever goes over a wire, to clients and between nodes. Unlike
// json.Marshal it leaves <, > and & as they are: six bytes for each of them would let 64 KiB that a
// member sends become 384 KiB for every other one, and the limits on what is sent and on what is
// queued would count different things.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}
