// Package protocol is the wire: the messages a client and the server exchange, their codes and how
// they are read and written. It has no goroutine, socket or clock, and knows no session and no
// room.
//
// A message is one JSON object. Scan looks at it first: it validates the whole text and finds the
// few top-level fields that routing needs, without building anything. What is meant for another
// member (sdp, candidate, publish, unpublish) is never parsed further: AppendRelayed copies it with
// the sender stamped in. Everything else is decoded into a typed request by encoding/json.
//
// docs/protocol.md has the whole list; testdata has one example of each message, which the SDK's
// tests read too.
package protocol

// MaxMessage is the largest message in bytes; a transport refuses more before it gets here
// (WebSocket: close 1009).
const MaxMessage = 64 << 10

// Code is the outcome of a request as it stands on the wire: three digits in a string, since
// applications compare with '200'.
type Code string

// The codes a server answers with. docs/protocol.md lists their meaning.
const (
	OK            Code = "200"
	BadRequest    Code = "400"
	Unauthorized  Code = "401"
	NoData        Code = "403" // no such user, or no common room: one answer for both
	UnknownOp     Code = "404"
	NotOffered    Code = "405"
	InUse         Code = "409"
	NotRegistered Code = "410"
	NoPermission  Code = "413"
	Missing       Code = "421"
	Invalid       Code = "422"
	TooMany       Code = "429"
	Sharing       Code = "440"
	NoRoom        Code = "441"
	AlreadyIn     Code = "442"
	RoomExists    Code = "443"
	RoomFull      Code = "444"
	OverLimit     Code = "445"
	Internal      Code = "500"
	ClusterError  Code = "543" // the servers cannot reach each other, or not yet: come again
	Timeout       Code = "504" // not delivered: the target does not read, or is disconnected
)

// Feature is something a client says it can do, announced at register and shown to the other
// members.
type Feature string

// Features of our SDK. A client that announces none speaks the original's protocol: one one-way
// connection per direction.
const (
	// One bidirectional connection per pair of users, fixed layout.
	FeaturePair       Feature = "pair"
	FeaturePublish    Feature = "publish"    // says what it publishes
	FeatureCandidates Feature = "candidates" // understands several candidates in one message
	FeatureRoster     Feature = "roster"     // understands several joins and leaves in one message
)

// Bounds on what a client may choose freely, in bytes unless said otherwise.
const (
	maxID       = 128
	maxText     = 256
	maxFeatures = 16
	maxFeature  = 32
	maxInstance = 64

	maxAllFeatures = 256 // every member of a room is sent those of all others
)

// Bool is a boolean that may come as a string: existing applications send both.
type Bool bool

// UnmarshalJSON accepts true, false, "true" and "false".
func (b *Bool) UnmarshalJSON(p []byte) error {
	switch string(p) {
	case "true", `"true"`:
		*b = true
	case "false", `"false"`:
		*b = false
	case "null":
	default:
		return errNotBool
	}
	return nil
}

// Int is a whole number that may come as a string.
type Int int

// UnmarshalJSON accepts 4 and "4", up to nine digits.
func (i *Int) UnmarshalJSON(p []byte) error {
	if string(p) == "null" {
		return nil
	}
	if len(p) >= 2 && p[0] == '"' {
		p = p[1 : len(p)-1]
	}
	if len(p) == 0 || len(p) > 9 {
		return errNotInt
	}
	n := 0
	for _, c := range p {
		if c < '0' || c > '9' {
			return errNotInt
		}
		n = n*10 + int(c-'0')
	}
	*i = Int(n)
	return nil
}

// Permit says what a member may do besides talking.
type Permit struct {
	Screen     bool `json:"screen"`
	Chat       bool `json:"chat"`
	Whiteboard bool `json:"whiteboard"`
	Draw       bool `json:"draw"`
	Document   bool `json:"document"`
}

// Member is a user in a room as every client sees it. UserID repeats ID and Pulishing repeats
// Publishing, because applications written for the original read either.
type Member struct {
	ID         string    `json:"id"`
	UserID     string    `json:"userId"`
	Name       string    `json:"name"`
	UserType   string    `json:"userType"` // host or guest
	Device     string    `json:"device"`
	Video      bool      `json:"video"`
	Audio      bool      `json:"audio"`
	Publishing bool      `json:"publishing"`
	Pulishing  bool      `json:"pulishing"`
	Permit     Permit    `json:"permit"`
	Features   []Feature `json:"features,omitempty"`
	// Net is the same for members whose public address is the same, and begins with 4 or 6;
	// missing: the address is none of the internet's, or not known. Ours, and additive.
	Net string `json:"net,omitempty"`
	// Identity is the same for two joins of a user id when the server has proof that it is the same
	// party (the secret of the earlier session, or a user token), and another one otherwise. Ours,
	// and additive.
	Identity string `json:"identity,omitempty"`
	// Since is the seq of the member's join: another one means that the user went and came again.
	// Ours, and additive.
	Since uint64 `json:"since,omitempty"`
}

// Members is a JSON object from user id to Member, in order of joining (a Go map would be sorted by
// id).
type Members []Member

// RoomState is what a member knows of its room: the answer to joinRoom, and what a resumed session
// gets to compare with.
type RoomState struct {
	RoomID        string  `json:"roomId"`
	Title         string  `json:"title"`
	Capacity      int     `json:"capacity"`
	CreatedAt     string  `json:"createdAt"` // YYYY/MM/DD HH:MM:SS, UTC
	Host          *Member `json:"host"`
	Members       Members `json:"members"`
	Media         bool    `json:"media"` // true: a room for group calls
	IsRecording   bool    `json:"isRecording"`
	TalkingNoty   bool    `json:"talkingNoty"`
	FileServerURL string  `json:"fileServerUrl"`
	Share         *Share  `json:"share,omitempty"` // what somebody shows at the moment
	Seq           uint64  `json:"seq"`             // of the last presence event in this state
}

// Share is what one member shows to all.
type Share struct {
	Type string `json:"type"` // screen
	User string `json:"user"`
}

// ICEServer is one entry of RTCPeerConnection's iceServers.
type ICEServer struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}
