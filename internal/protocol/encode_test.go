package protocol

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// A text costs the others no more bytes than it cost its sender, wherever it stands.
func TestTextDoesNotGrowOnTheWire(t *testing.T) {
	text := strings.Repeat("<&>\u2030é", 20)
	quoted := `"` + text + `"`
	m := Member{
		ID:       text,
		UserID:   text,
		Name:     text,
		Device:   text,
		Features: []Feature{Feature(text)},
	}
	state := &RoomState{
		RoomID:  text,
		Title:   text,
		Host:    &m,
		Members: Members{m},
		Share:   &Share{"screen", text},
	}
	feeds := []Feed{{Member: m, User: text, Type: "cam"}}
	encode := func(v any) []byte {
		b, err := Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	answer := func(a Answer) []byte {
		b, err := AppendAnswer(nil, text, []byte(quoted), a)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	join := encode(Join(text, 1, m))
	for name, b := range map[string][]byte{
		"register":    answer(Answer{Body: RegisterAnswer{UserID: text, Room: state}}),
		"joinRoom":    answer(Answer{Body: state}),
		"memberList":  answer(Answer{Body: MemberListAnswer{state.Members}}),
		"createRoom":  answer(Answer{Body: CreateRoomAnswer{text}}),
		"createGroup": answer(Answer{Body: GroupAnswer{text}}),
		"refusal":     answer(Answer{Code: Invalid, Message: text, Hint: text}),
		"join":        join,
		"leave":       encode(Left(text, 1, text)),
		"roster":      AppendRoster(nil, text, 1, join),
		"chat":        encode(Chat("chat", text, 1, text, json.RawMessage(quoted))),
		"inform": encode(Chat("inform", text, 1, text,
			json.RawMessage(`{`+quoted+`:[`+quoted+`]}`))),
		"editUserInfo": encode(EditUserInfo(text, 1, m)),
		"editRoomInfo": encode(EditRoomInfo(text, 1, text, text, 1, text)),
		"publish":      encode(Published(text, 1, text, feeds)),
		"kickOut":      encode(KickOut(text, text, text)),
		"group":        encode(Grouped(text, text, text)),
		"string":       AppendString(nil, text),
	} {
		if !json.Valid(b) {
			t.Errorf("%s is no JSON: %s", name, b)
		}
		if bytes.Contains(b, []byte(`\u`)) || !bytes.Contains(b, []byte(text)) {
			t.Errorf("%s writes text with escapes: %s", name, b)
		}
	}
}
