package protocol

import (
	"encoding/json"
	"strconv"
)

// Presence is a push to members of a room. Which fields beyond the first six an event has depends
// on its type; see the constructors.
type Presence struct {
	EventOp string `json:"eventOp"` // always presence
	Type    string `json:"type"`
	RoomID  string `json:"roomId,omitempty"`
	// Seq counts up by one in a room. Events that only some members get have none: they are outside
	// that order.
	Seq    uint64 `json:"seq,omitempty"`
	User   any    `json:"user,omitempty"` // a Member in join, a user id in all others
	Sender string `json:"sender,omitempty"`

	Message json.RawMessage `json:"message,omitempty"`
	Talking json.RawMessage `json:"talking,omitempty"` // the original's name of a talking's message

	Name     *string `json:"name,omitempty"`
	Video    *bool   `json:"video,omitempty"`
	Audio    *bool   `json:"audio,omitempty"`
	Feeds    []Feed  `json:"feeds,omitempty"`
	GroupID  string  `json:"groupId,omitempty"`
	Permit   *Permit `json:"permit,omitempty"`
	Title    *string `json:"title,omitempty"`
	Capacity int     `json:"capacity,omitempty"`
	Host     string  `json:"host,omitempty"`
}

// Feed is a stream that its owner, whose fields it has too, sends to whoever asks for it with
// subscribe. User repeats the owner's ID, since applications read either.
type Feed struct {
	Member
	User  string `json:"user"`
	Type  string `json:"type"` // cam or screen
	Epoch int    `json:"epoch"`
	Audio bool   `json:"audio"` // of the feed, in place of what the owner says of itself
	Video bool   `json:"video"`
}

// Event starts a presence event about a user; seq 0 for one outside the room's order.
func Event(kind, roomID string, seq uint64, user string) Presence {
	return Presence{
		EventOp: "presence",
		Type:    kind,
		RoomID:  roomID,
		Seq:     seq,
		User:    user,
		Sender:  user,
	}
}

// Join is the presence event of a member that came.
func Join(roomID string, seq uint64, m Member) Presence {
	p := Event("join", roomID, seq, m.ID)
	p.User = m
	return p
}

// Left is the presence event of a member that went.
func Left(roomID string, seq uint64, user string) Presence {
	return Event("leave", roomID, seq, user)
}

// AppendRoster appends the event of several members that came and went. events are joins and
// leaves, encoded, in order and with commas between; seq is that of the last.
func AppendRoster(dst []byte, roomID string, seq uint64, events []byte) []byte {
	dst = append(dst, `{"eventOp":"presence","type":"roster","roomId":`...)
	dst = AppendString(dst, roomID)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, `,"events":[`...)
	dst = append(dst, events...)
	return append(dst, `]}`...)
}

// HostChange is the presence event of a new host.
func HostChange(roomID string, seq uint64, user string) Presence {
	return Event("hostChange", roomID, seq, user)
}

// Talking is the presence event of a member who begins or ends to talk, with either name that
// applications read.
func Talking(roomID string, seq uint64, user string, talking json.RawMessage) Presence {
	p := Chat("talking", roomID, seq, user, talking)
	p.Talking = talking
	return p
}

// Chat is the presence event of a message; inform has the same shape.
func Chat(kind, roomID string, seq uint64, user string, message json.RawMessage) Presence {
	p := Event(kind, roomID, seq, user)
	p.Message = message
	return p
}

// KickOut tells target that by asks it to leave.
func KickOut(roomID, target, by string) Presence {
	p := Event("kickOut", roomID, 0, target)
	p.Sender = by
	return p
}

// EditUserInfo is the presence event of a member that changed what it says of itself.
func EditUserInfo(roomID string, seq uint64, m Member) Presence {
	p := Event("editUserInfo", roomID, seq, m.ID)
	p.Name, p.Video, p.Audio = &m.Name, &m.Video, &m.Audio
	return p
}

// Permitted is the presence event of a member that may now do what its permit says.
func Permitted(roomID string, seq uint64, m Member) Presence {
	p := Event("permit", roomID, seq, m.ID)
	p.Permit = &m.Permit
	return p
}

// EditRoomInfo is the presence event of a room that user changed.
func EditRoomInfo(
	roomID string, seq uint64, user, title string, capacity int, host string,
) Presence {
	p := Event("editRoomInfo", roomID, seq, user)
	p.Title, p.Capacity, p.Host = &title, capacity, host
	return p
}

// Published is the presence event of feeds that can be asked for; user is who announced them, or
// empty for a newcomer's list.
func Published(roomID string, seq uint64, user string, feeds []Feed) Presence {
	p := Event("publish", roomID, seq, user)
	if user == "" && len(feeds) > 0 {
		p.User, p.Sender = feeds[0].User, feeds[0].User
	}
	p.Feeds = feeds
	return p
}

// Grouped tells a member that user put it into a group.
func Grouped(roomID, user, group string) Presence {
	p := Event("createGroup", roomID, 0, user)
	p.GroupID = group
	return p
}
