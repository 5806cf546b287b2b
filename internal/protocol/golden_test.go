package protocol

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b)
}

// Every golden file that a client sends must pass Scan and decode without a field that the request
// type does not know.
func TestGoldenRequestsAreUnderstood(t *testing.T) {
	relayed := map[string]bool{
		"sdp":       true,
		"candidate": true,
		"publish":   true,
		"unpublish": true,
		"subscribe": true,
	}
	bodies := map[string]any{
		"register":        &Register{},
		"createRoom":      &CreateRoom{},
		"joinRoom":        &RoomRef{},
		"leaveRoom":       &RoomRef{},
		"memberList":      &RoomRef{},
		"keepAlive":       &struct{}{},
		"iceServers":      &struct{}{},
		"shareStop":       &struct{}{},
		"createVideoRoom": &CreateVideoRoom{},
		"destroyRoom":     &RoomRef{},
		"kickOut":         &Targeted{},
		"permit":          &PermitRequest{},
		"editRoomInfo":    &EditRoom{},
		"editUserInfo":    &EditUser{},
		"changeName":      &EditUser{},
		"screen":          &Targeted{},
		"chat":            &MessageRequest{},
		"inform":          &MessageRequest{},
		"talking":         &TalkingRequest{},
		"publish":         &PublishRequest{},
		"unpublish":       &PublishRequest{},
		"createGroup":     &GroupRequest{},
		"endGroup":        &GroupRequest{},
	}
	files, _ := filepath.Glob("testdata/*.request.json")
	if len(files) < 29 {
		t.Fatalf("only %d golden requests", len(files))
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		t.Run(name, func(t *testing.T) {
			if name == "leave.request" {
				decodeStrict(t, golden(t, name), &Leave{})
				return
			}
			var e Envelope
			if err := e.Scan(golden(t, name)); err != nil {
				t.Fatal(err)
			}
			op := string(e.Op)
			// without a target publish and unpublish are for the room
			if relayed[op] && (e.Target != nil || bodies[op] == nil) {
				if e.Target == nil || e.UserID == nil {
					t.Error("a relayed message without userId or target")
				}
				return
			}
			body, ok := bodies[op]
			if !ok {
				t.Fatalf("no request type for %q", op)
			}
			decodeStrict(t, golden(t, name), reflect.New(reflect.TypeOf(body).Elem()).Interface())
		})
	}
}

// decodeStrict refuses fields that neither the envelope nor the type knows.
func decodeStrict(t *testing.T, msg []byte, into any) {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal(msg, &all); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"eventOp", "reqId"} {
		delete(all, k)
	}
	if _, own := reflect.TypeOf(into).Elem().FieldByName("UserID"); !own {
		delete(all, "userId")
	}
	rest, _ := json.Marshal(all)
	d := json.NewDecoder(bytes.NewReader(rest))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Error(err)
	}
	if v, ok := into.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestGoldenRelayedIsMadeFromItsRequest(t *testing.T) {
	var e Envelope
	if err := e.Scan(golden(t, "sdp.request")); err != nil {
		t.Fatal(err)
	}
	same(t, e.AppendRelayed(nil, []byte(`"guest-2"`)), golden(t, "sdp.relayed"))
	if err := e.Scan(golden(t, "subscribe.request")); err != nil {
		t.Fatal(err)
	}
	same(t, e.AppendRelayed(nil, []byte(`"kpoint123"`)), golden(t, "subscribe.relayed"))
}

func TestGoldenAnswersAndEventsAreWritten(t *testing.T) {
	all := Permit{true, true, true, true, true}
	kim := Member{
		ID:       "kpoint123",
		UserID:   "kpoint123",
		Name:     "Kim",
		UserType: "host",
		Device:   "pc",
		Video:    true,
		Audio:    true,
		Permit:   all,
		Features: []Feature{FeaturePair, FeaturePublish, FeatureCandidates},
		Identity: "q0yTkq3aXl8",
	}
	lee := Member{
		ID:       "guest-2",
		UserID:   "guest-2",
		Name:     "Lee",
		UserType: "guest",
		Device:   "mobile",
		Video:    true,
		Audio:    true,
		Permit:   all,
		Identity: "Zb7u1nVQ4cM",
	}
	state := RoomState{
		RoomID:    "K4325403300AB",
		Title:     "Weekly",
		Capacity:  16,
		CreatedAt: "2026/11/22 09:30:00",
		Host:      &kim,
		Members:   Members{kim, lee},
		Seq:       2,
	}
	host := kim
	host.Publishing, host.Pulishing = true, true
	group := state
	group.Host, group.Members, group.Media, group.TalkingNoty = &host, Members{host, lee}, true,
		true
	group.Share = &Share{Type: "screen", User: "kpoint123"}
	quiet := lee
	quiet.Video, quiet.Permit.Chat = false, false
	owner := lee
	owner.Publishing, owner.Pulishing, owner.Audio = true, true, false
	feeds := []Feed{{
		Member: owner,
		User:   "guest-2",
		Type:   "cam",
		Epoch:  1,
		Audio:  true,
		Video:  true,
	}}
	page := json.RawMessage(`{"page":3,"seen":[true,null]}`)
	stun := []ICEServer{{URLs: []string{"stun:203.0.113.10:3478"}}}
	answer := func(op, reqID string, a Answer) []byte {
		b, err := AppendAnswer(nil, op, []byte(reqID), a)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	event := func(p Presence) []byte {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rows := map[string][]byte{
		"register.answer": answer("register", `"1"`, Answer{Code: OK, Body: RegisterAnswer{
			UserID: "kpoint123", Resume: "r1.c2Vzc2lvbg.c2ln", ResumeWindow: 20,
			ICEServers: append(stun[:1:1], ICEServer{
				URLs: []string{"turn:203.0.113.10:3478?transport=udp",
					"turn:203.0.113.10:3478?transport=tcp"},
				Username: "1790000000:0f1e2d3c4b5a6978.S0123456789AB", Credential: "c2VjcmV0",
			}),
		}}),
		"register.resume.answer": answer("register", `"9"`, Answer{Code: OK, Body: RegisterAnswer{
			UserID:       "kpoint123",
			Resume:       "r1.c2Vzc2lvbg.c2ln",
			ResumeWindow: 20,
			ICEServers:   stun,
			Resumed:      true,
			Room:         &state,
		}}),
		"register.error.answer": answer("register", `"1"`, Answer{
			Code:    Unauthorized,
			Message: "The license is not valid.",
			Hint:    "cpCode and authKey look swapped: init(cpCode, authKey).",
		}),
		"createRoom.answer": answer("createRoom", `"2"`, Answer{
			Code: OK,
			Body: CreateRoomAnswer{"K4325403300AB"},
		}),
		"joinRoom.answer": answer("joinRoom", `"3"`, Answer{Code: OK, Body: state}),
		"joinRoom.error.answer": answer("joinRoom", `"3"`, Answer{
			Code:    RoomFull,
			Message: "The room is full.",
			Hint:    "Raise the capacity given to createRoom, or use another room.",
		}),
		"leaveRoom.answer": answer("leaveRoom", `"4"`, Answer{Code: OK}),
		"memberList.answer": answer("memberList", `5`, Answer{
			Code: OK,
			Body: MemberListAnswer{Members{kim, lee}},
		}),
		"sdp.answer": answer("sdp", `"6"`, Answer{Code: OK}),
		"sdp.error.answer": answer("sdp", `"6"`, Answer{
			Code:    NoData,
			Message: "No such user in this room.",
		}),
		"keepAlive.answer":    answer("keepAlive", `"7"`, Answer{Code: OK}),
		"iceServers.answer":   answer("iceServers", `"8"`, Answer{Code: OK, Body: ICEAnswer{stun}}),
		"presence.join":       event(Join("K4325403300AB", 2, lee)),
		"presence.leave":      event(Left("K4325403300AB", 3, "guest-2")),
		"presence.hostChange": event(HostChange("K4325403300AB", 4, "guest-2")),

		"createVideoRoom.answer": answer("createVideoRoom", `"20"`, Answer{
			Code: OK,
			Body: CreateRoomAnswer{"K4325403300AB"},
		}),
		"joinRoom.share.answer": answer("joinRoom", `"37"`, Answer{Code: OK, Body: group}),
		"chat.answer":           answer("chat", `"29"`, Answer{Code: OK}),
		"createGroup.answer": answer("createGroup", `"35"`, Answer{
			Code: OK,
			Body: GroupAnswer{"G4325403300AB"},
		}),
		"kickOut.error.answer": answer("kickOut", `"22"`, Answer{
			Code: NoPermission, Message: "You may not do this in this room.", Hint: "Ask the host.",
		}),
		"screen.error.answer": answer("screen", `"27"`, Answer{
			Code: Sharing, Message: "Someone else is sharing.", Hint: "Wait until they stop.",
		}),
		"presence.screen":        event(Event("screen", "K4325403300AB", 5, "kpoint123")),
		"presence.screen.target": event(Event("screen", "K4325403300AB", 0, "kpoint123")),
		"presence.shareStop":     event(Event("shareStop", "K4325403300AB", 6, "kpoint123")),
		"presence.chat": event(Chat("chat", "K4325403300AB", 7, "guest-2",
			json.RawMessage(`"안녕하세요"`))),
		"presence.chat.outside": event(Chat("chat", "", 0, "guest-2", json.RawMessage(`"hello"`))),
		"presence.inform":       event(Chat("inform", "K4325403300AB", 0, "guest-2", page)),
		"presence.talking": event(Talking("K4325403300AB", 8, "guest-2",
			json.RawMessage(`true`))),
		"presence.kickOut": event(KickOut("K4325403300AB", "guest-2", "kpoint123")),
		"presence.permit":  event(Permitted("K4325403300AB", 9, quiet)),
		"presence.editRoomInfo": event(EditRoomInfo("K4325403300AB", 10, "kpoint123", "Monthly",
			12, "guest-2")),
		"presence.editUserInfo": event(EditUserInfo("K4325403300AB", 11, quiet)),
		"presence.publish":      event(Published("K4325403300AB", 12, "guest-2", feeds)),
		"presence.publish.late": event(Published("K4325403300AB", 0, "", feeds)),
		"presence.createGroup":  event(Grouped("K4325403300AB", "kpoint123", "G4325403300AB")),
		"presence.destroy":      event(Event("destroy", "K4325403300AB", 13, "kpoint123")),
	}
	files, _ := filepath.Glob("testdata/*.json")
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if _, ok := rows[name]; !ok &&
			(strings.HasSuffix(name, ".answer") || strings.HasPrefix(name, "presence.")) {
			t.Errorf("%s is not made by any row", name)
		}
	}
	for name, got := range rows {
		t.Run(name, func(t *testing.T) { same(t, got, golden(t, name)) })
	}
}

// same compares as JSON, and the order of members in joinRoom as text.
func same(t *testing.T, got, want []byte) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	if err := json.Unmarshal(want, &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if i, j := bytes.Index(got, []byte(`"members":{"kpoint123"`)),
		bytes.Index(want, []byte(`"members":{"kpoint123"`)); (i < 0) != (j < 0) {
		t.Errorf("members are not in order of joining: %s", got)
	}
}

func TestGoldenRoster(t *testing.T) {
	var events []byte
	for i, user := range []string{"guest-2", "guest-3"} {
		b, err := json.Marshal(Left("K4325403300AB", uint64(3+i), user))
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			events = append(events, ',')
		}
		events = append(events, b...)
	}
	got, want := AppendRoster(nil, "K4325403300AB", 4, events), golden(t, "roster")
	if !bytes.Equal(got, want) {
		t.Errorf("%s, want\n%s", got, want)
	}
}
