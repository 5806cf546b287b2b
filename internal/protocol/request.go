package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	errNotBool = errors.New("not a boolean")
	errNotInt  = errors.New("not a whole number")
)

// FieldError says which parameter of a request is wrong, and with which code it is answered
// (Missing or Invalid).
type FieldError struct {
	Code   Code
	Field  string
	Reason string
}

func (e *FieldError) Error() string { return e.Field + " " + e.Reason + "." }

func missing(field string) error { return &FieldError{Missing, field, "is missing"} }

func invalid(field, reason string) error { return &FieldError{Invalid, field, reason} }

// Register opens or resumes a session.
type Register struct {
	CpCode   string    `json:"cpCode"`
	AuthKey  string    `json:"authKey"`
	UserID   string    `json:"userId"`
	Name     string    `json:"name"`
	Device   string    `json:"device"`
	Forced   Bool      `json:"forced"`
	Resume   string    `json:"resume"`
	Seq      *Int      `json:"seq"` // with Resume: last room event the client knows
	Features []Feature `json:"features"`

	// Attempts of one client instance are numbered in the order in which it makes them. A network
	// may deliver an attempt that the client has given up after its successor.
	Instance string `json:"instance"`
	Attempt  Int    `json:"attempt"`
}

// CreateRoom makes a room; nil fields take the documented defaults.
type CreateRoom struct {
	RoomID   string `json:"roomId"`
	Title    string `json:"title"`
	Capacity *Int   `json:"capacity"`
	Destroy  *Bool  `json:"destroy"`
}

// RoomRef is a request about one room: joinRoom, leaveRoom, memberList.
type RoomRef struct {
	RoomID string `json:"roomId"`
}

// Leave is the body of POST /leave.
type Leave struct {
	Resume string `json:"resume"`
}

// MaxCapacity is the largest capacity a room may have.
const MaxCapacity = 1000

// Validate tells the first parameter that is wrong, as a *FieldError.
func (r *Register) Validate() error {
	switch {
	case r.CpCode == "":
		return missing("cpCode")
	case r.AuthKey == "":
		return missing("authKey")
	}
	if r.UserID != "" {
		if err := checkID("userId", r.UserID); err != nil {
			return err
		}
	}
	if err := errors.Join(checkText("name", r.Name), checkText("device", r.Device)); err != nil {
		return err
	}
	if len(r.Resume) > 1024 {
		return invalid("resume", "is too long")
	}
	if r.Seq != nil && *r.Seq < 0 {
		return invalid("seq", "must not be negative")
	}
	if len(r.Instance) > maxInstance {
		return invalid("instance", fmt.Sprintf("is longer than %d bytes", maxInstance))
	}
	if r.Attempt < 0 {
		return invalid("attempt", "must not be negative")
	}
	if len(r.Features) > maxFeatures {
		return invalid("features", fmt.Sprintf("has more than %d entries", maxFeatures))
	}
	all := 0
	for _, f := range r.Features {
		if len(f) == 0 || len(f) > maxFeature {
			reason := fmt.Sprintf("has an entry that is empty or longer than %d bytes", maxFeature)
			return invalid("features", reason)
		}
		// Control characters are six bytes each on the wire.
		if err := checkText("features", string(f)); err != nil {
			return err
		}
		all += len(f)
	}
	if all > maxAllFeatures {
		reason := fmt.Sprintf("is longer than %d bytes altogether", maxAllFeatures)
		return invalid("features", reason)
	}
	return nil
}

// Validate tells the first parameter that is wrong, as a *FieldError.
func (r *CreateRoom) Validate() error {
	if r.RoomID != "" {
		if err := checkID("roomId", r.RoomID); err != nil {
			return err
		}
	}
	if r.Capacity != nil && (*r.Capacity < 1 || *r.Capacity > MaxCapacity) {
		return invalid("capacity", fmt.Sprintf("must be 1 to %d", MaxCapacity))
	}
	return checkText("title", r.Title)
}

// Validate tells the first parameter that is wrong, as a *FieldError; an empty roomId is for the
// caller to judge.
func (r *RoomRef) Validate() error {
	if r.RoomID == "" {
		return nil
	}
	return checkID("roomId", r.RoomID)
}

// Require is Validate for requests that must name a room.
func (r *RoomRef) Require() error {
	if r.RoomID == "" {
		return missing("roomId")
	}
	return r.Validate()
}

// Decode reads a scanned message into a typed request. A field of the wrong type is a *FieldError
// with code Invalid.
func Decode(msg []byte, into any) error {
	err := json.Unmarshal(msg, into)
	var typ *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &typ):
		return invalid(typ.Field, "has the wrong type")
	case errors.Is(err, errNotBool), errors.Is(err, errNotInt):
		return invalid("a parameter", "is "+err.Error())
	}
	return fmt.Errorf("decode request: %w", err)
}

// checkID bounds an id: it becomes a key in maps here and in JavaScript objects over there.
func checkID(field, id string) error {
	if len(id) > maxID {
		return invalid(field, fmt.Sprintf("is longer than %d bytes", maxID))
	}
	if id == "__proto__" || hasControl(id) {
		return invalid(field, "has characters that are not allowed")
	}
	if strings.ContainsFunc(id, invisible) || strings.TrimSpace(id) != id {
		return invalid(field, "has characters that nobody sees, or begins or ends with a space")
	}
	return nil
}

func checkText(field, s string) error {
	if len(s) > maxText {
		return invalid(field, fmt.Sprintf("is longer than %d bytes", maxText))
	}
	if hasControl(s) {
		return invalid(field, "has characters that are not allowed")
	}
	return nil
}

// invisible tells whether r shows nothing, or only changes how others are shown: ids that differ in
// nothing else look the same. Category Cf has the formatting characters; Unicode names those of
// other categories, such as the fillers of Hangul, by themselves. The blank pattern of Braille is a
// symbol that looks like a space.
func invisible(r rune) bool {
	return r == '\u2800' || unicode.In(
		r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector,
	)
}

func hasControl(s string) bool {
	for _, r := range s {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return true
		}
	}
	return false
}
