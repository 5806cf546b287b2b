package protocol

import (
	"encoding/json"
	"fmt"
)

// What members and hosts of a room ask for. The other requests are in request.go.
type (
	// CreateVideoRoom makes a room for group calls.
	CreateVideoRoom struct {
		CreateRoom
		TalkingNoty Bool `json:"talkingNoty"`
	}
	// Targeted names another user: kickOut.
	Targeted struct {
		Target string `json:"target"`
	}
	// PermitRequest gives and takes permissions; absent ones stay.
	PermitRequest struct {
		Targeted
		Screen     *Bool `json:"screen"`
		Chat       *Bool `json:"chat"`
		Whiteboard *Bool `json:"whiteboard"`
		Draw       *Bool `json:"draw"`
		Document   *Bool `json:"document"`
	}
	// EditRoom changes a room; absent fields stay. Host is the next host's user id.
	EditRoom struct {
		RoomRef
		Title    *string `json:"title"`
		Capacity *Int    `json:"capacity"`
		Host     string  `json:"host"`
	}
	// EditUser changes what a user says of itself; absent fields stay. Without Broadcast nobody is
	// told; with Target only one is.
	EditUser struct {
		Targeted
		Name      *string `json:"name"`
		Video     *Bool   `json:"video"`
		Audio     *Bool   `json:"audio"`
		Broadcast *Bool   `json:"broadcast"`
	}
	// TalkingRequest says whether the sender talks, under either name.
	TalkingRequest struct {
		Talking *Bool `json:"talking"`
		Message *Bool `json:"message"`
	}
	// MessageRequest is chat (Message is a string) and inform (Message is any JSON value).
	MessageRequest struct {
		RoomRef
		Targeted
		Message json.RawMessage `json:"message"`
	}
	// PublishRequest announces a feed to the room; Unpublish needs only Type.
	PublishRequest struct {
		Type  string `json:"type"`
		Epoch Int    `json:"epoch"`
		Audio Bool   `json:"audio"`
		Video Bool   `json:"video"`
	}
	// GroupRequest is createGroup (List) and endGroup (GroupID).
	GroupRequest struct {
		List    []string `json:"list"`
		Title   string   `json:"title"`
		GroupID string   `json:"groupId"`
	}
)

// MaxGroupMembers bounds the list of createGroup.
const MaxGroupMembers = MaxCapacity

// Validate tells the first parameter that is wrong, as a *FieldError.
func (t *Targeted) Validate() error {
	if t.Target == "" {
		return nil
	}
	return checkID("target", t.Target)
}

// Require is Validate for requests that must name somebody.
func (t *Targeted) Require() error {
	if t.Target == "" {
		return missing("target")
	}
	return t.Validate()
}

// Validate tells the first parameter that is wrong, as a *FieldError.
func (r *PermitRequest) Validate() error {
	if r.Screen == nil && r.Chat == nil && r.Whiteboard == nil && r.Draw == nil &&
		r.Document == nil {
		return missing("a permission (chat, draw, screen, whiteboard or document)")
	}
	return r.Require()
}

// Validate tells the first parameter that is wrong, as a *FieldError.
func (r *EditRoom) Validate() error {
	if err := r.Require(); err != nil {
		return err
	}
	if r.Title != nil {
		if err := checkText("title", *r.Title); err != nil {
			return err
		}
	}
	if r.Capacity != nil && (*r.Capacity < 1 || *r.Capacity > MaxCapacity) {
		return invalid("capacity", fmt.Sprintf("must be 1 to %d", MaxCapacity))
	}
	if r.Host == "" {
		return nil
	}
	return checkID("host", r.Host)
}

// Validate tells the first parameter that is wrong, as a *FieldError.
func (r *EditUser) Validate() error {
	if r.Name != nil {
		if err := checkText("name", *r.Name); err != nil {
			return err
		}
	}
	return r.Targeted.Validate()
}

// Validate tells the first parameter that is wrong, as a *FieldError.
func (r *MessageRequest) Validate() error {
	if len(r.Message) == 0 || string(r.Message) == "null" {
		return missing("message")
	}
	if err := r.RoomRef.Validate(); err != nil {
		return err
	}
	return r.Targeted.Validate()
}

// Validate tells the first parameter that is wrong, as a *FieldError.
func (r *TalkingRequest) Validate() error {
	if r.Talking == nil && r.Message == nil {
		return missing("talking")
	}
	return nil
}

// Value is what the request says: talking, the original's name, before message.
func (r *TalkingRequest) Value() bool {
	if r.Talking != nil {
		return bool(*r.Talking)
	}
	return bool(*r.Message)
}

// Text is the message of a chat, which must be a string.
func (r *MessageRequest) Text() error {
	if r.Message[0] != '"' {
		return invalid("message", "must be a string")
	}
	return nil
}

// Validate tells the first parameter that is wrong, as a *FieldError.
func (r *PublishRequest) Validate() error { return CheckMediaType(r.Type) }

// CheckMediaType refuses everything but cam and screen.
func CheckMediaType(t string) error {
	switch t {
	case "cam", "screen":
		return nil
	case "":
		return missing("type")
	}
	return invalid("type", "must be cam or screen")
}

// Validate tells the first parameter that is wrong, as a *FieldError.
func (r *GroupRequest) Validate() error {
	if len(r.List) > MaxGroupMembers {
		return invalid("list", fmt.Sprintf("has more than %d entries", MaxGroupMembers))
	}
	listed := make(map[string]bool, len(r.List))
	for _, id := range r.List {
		if err := checkID("list", id); err != nil {
			return err
		}
		if listed[id] {
			return invalid("list", "names a user twice")
		}
		listed[id] = true
	}
	if err := checkText("title", r.Title); err != nil || r.GroupID == "" {
		return err
	}
	return checkID("groupId", r.GroupID)
}
