package license

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
)

// MaxRevocationListSize is the greatest size of a revocation list, some 16,000 lines: it is read
// again every few seconds.
const MaxRevocationListSize = 1 << 20

// maxReportedErrors bounds what is said of a file that is something else altogether.
const maxReportedErrors = 8

// RevocationList holds the hashes of tokens, licenses and user tokens, that are refused though all
// else about them is good.
type RevocationList map[[sha256.Size]byte]struct{}

// ParseRevocationList reads a revocation list: the SHA-256 of a token in hex on each line, as
// Grant.Hash and Inspect have it. What follows a "#" does not count, nor do blank lines. Faults are
// reported together, and a list with one is not used: whoever revokes a license and writes it wrong
// must hear of it.
func ParseRevocationList(text []byte) (RevocationList, error) {
	if len(text) > MaxRevocationListSize {
		return nil, fmt.Errorf(
			"the list has more than %d bytes: take out licenses that have ended",
			MaxRevocationListSize,
		)
	}
	list, number := RevocationList{}, 0
	var errs []error
	for line := range bytes.Lines(text) {
		number++
		line, _, _ = bytes.Cut(line, []byte("#"))
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		var hash [sha256.Size]byte
		n, err := 0, error(nil)
		if len(line) == hex.EncodedLen(len(hash)) {
			n, err = hex.Decode(hash[:], line)
		}
		if n == len(hash) && err == nil {
			list[hash] = struct{}{}
			continue
		}
		errs = append(
			errs,
			fmt.Errorf("line %d: not a SHA-256 of 64 hex digits, as `ieum license hash` prints it",
				number),
		)
		if len(errs) == maxReportedErrors {
			errs = append(errs, errors.New("there may be more"))
			break
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return list, nil
}

// Revoked is the list in force. It may be set while verifiers ask it; the zero value holds nothing.
type Revoked struct {
	list atomic.Pointer[RevocationList]
}

// Set puts a list in force, which must not be changed afterwards.
func (r *Revoked) Set(list RevocationList) { r.list.Store(&list) }

// Len is the number of tokens in force.
func (r *Revoked) Len() int {
	if list := r.list.Load(); list != nil {
		return len(*list)
	}
	return 0
}

func (r *Revoked) contains(hash [sha256.Size]byte) bool {
	if r == nil {
		return false
	}
	list := r.list.Load()
	if list == nil {
		return false
	}
	_, ok := (*list)[hash]
	return ok
}

// Revoked tells whether a grant, made earlier, stands on a license or a user token that has been
// revoked since.
func (v *Verifier) Revoked(g Grant) bool {
	return v.revoked.contains(g.Hash) || (g.User != nil && v.revoked.contains(g.User.Hash))
}
