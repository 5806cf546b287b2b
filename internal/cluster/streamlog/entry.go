package streamlog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
)

// version begins every entry. An entry of another version does nothing: new ones may be stored only
// when every node knows them.
const version = 1

// kind says what an entry does.
type kind byte

const (
	kindCommand kind = iota + 1 // payload: a command of package directory
	kindRenew                   // payload: JSON of renew
	kindBury                    // payload: JSON of bury
)

// entry is what the stream stores, in this order, integers in network byte order:
//
//	version  1 byte
//	kind     1 byte
//	process  8 bytes, of the node that stores it
//	id       8 bytes, chosen by that process
//	payload  the rest
type entry struct {
	kind        kind
	process, id uint64
	payload     []byte
}

const headerSize = 18

var errEntry = errors.New("malformed entry")

func (e *entry) append(b []byte) []byte {
	b = append(b, version, byte(e.kind))
	b = binary.BigEndian.AppendUint64(b, e.process)
	b = binary.BigEndian.AppendUint64(b, e.id)
	return append(b, e.payload...)
}

// parseEntry returns the entry in b, of which the payload stays a part.
func parseEntry(b []byte) (entry, error) {
	if len(b) < headerSize || b[0] != version {
		return entry{}, errEntry
	}
	return entry{
		kind:    kind(b[1]),
		process: binary.BigEndian.Uint64(b[2:]),
		id:      binary.BigEndian.Uint64(b[10:]),
		payload: b[headerSize:],
	}, nil
}

// renew renews the lease of the node whose process stores it.
type renew struct {
	Node  string `json:"node"`
	About about  `json:"about"`
}

// about is what a node says of itself.
type about struct {
	Fingerprint string `json:"fingerprint"` // of license signing keys, separated by commas
	Program     string `json:"program"`     // version
	Time        int64  `json:"time"`        // of day, in milliseconds since 1970
}

// bury declares a node dead, unless it has renewed its lease another time.
type bury struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Process     uint64 `json:"process"`
	Renewals    uint64 `json:"renewals"`
}

// save is the state at an entry of the stream.
type save struct {
	Renewals  map[string]renewal `json:"renewals"`
	Directory []byte             `json:"directory"` // see directory.Machine.Snapshot
}

func (s *save) encode() ([]byte, error) { return json.Marshal(s) }

func parseSave(b []byte) (s save, err error) {
	err = json.Unmarshal(b, &s)
	return s, err
}
