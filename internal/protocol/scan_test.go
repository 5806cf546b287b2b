package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestScanVerdicts(t *testing.T) {
	deep := func(n int) string {
		return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]",
			n) + `}`
	}
	many := func(n int) string {
		s := "{"
		for i := range n {
			s += `"k` + strings.Repeat("x", i) + `":1,`
		}
		return strings.TrimSuffix(s, ",") + "}"
	}
	for name, c := range map[string]struct {
		msg  string
		want error
	}{
		"empty object":     {`{}`, nil},
		"space everywhere": {" { \"a\" :\t1 ,\r\n\"b\" : [ ] } ", nil},
		"every kind of value": {`{"a":1.5e-3,"b":"\u00e9\n","c":[true,false,null],` +
			`"d":{"e":{}}}`, nil},
		"nothing":                        {``, ErrSyntax},
		"not JSON":                       {`hello`, ErrSyntax},
		"an array":                       {`[1]`, ErrSyntax},
		"a number":                       {`1`, ErrSyntax},
		"two objects":                    {`{}{}`, ErrSyntax},
		"cut in a string":                {`{"a":"b`, ErrSyntax},
		"cut in an object":               {`{"a":1`, ErrSyntax},
		"comma at the end":               {`{"a":1,}`, ErrSyntax},
		"name without quotes":            {`{a:1}`, ErrSyntax},
		"leading zero":                   {`{"a":01}`, ErrSyntax},
		"number without fraction digits": {`{"a":1.}`, ErrSyntax},
		"plus sign":                      {`{"a":+1}`, ErrSyntax},
		"control character in string":    {"{\"a\":\"\x01\"}", ErrSyntax},
		"escape that does not exist":     {`{"a":"\x"}`, ErrSyntax},
		"escape cut":                     {`{"a":"\u12`, ErrSyntax},
		"name twice":                     {`{"userId":"a","userId":"b"}`, ErrDuplicate},
		"name twice, nested":             {`{"a":{"b":1,"b":2}}`, nil},
		"name with escapes":              {`{"user\u0049d":"a"}`, ErrEscaped},
		"32 deep":                        {deep(31), nil},
		"33 deep":                        {deep(32), ErrDepth},
		"64 names":                       {many(64), nil},
		"65 names":                       {many(65), ErrManyFields},
	} {
		t.Run(name, func(t *testing.T) {
			var e Envelope
			if err := e.Scan([]byte(c.msg)); !errors.Is(err, c.want) {
				t.Errorf("Scan(%s) = %v, want %v", c.msg, err, c.want)
			}
		})
	}
}

// Strings are read eight bytes at a time: each byte must be judged alike wherever it stands, and
// whatever stands around it.
func TestBytesOfStringsAreJudgedAlikeEverywhere(t *testing.T) {
	var e Envelope
	for _, around := range []string{"x", "\u007f", "é", `\r\n`, `\"`, "!", "#", "[", "]"} {
		for before := range 18 {
			for c := range 256 {
				for _, after := range []string{
					"", `n`, `u00e9`, `u00g9`, around + around + around,
				} {
					msg := `{"a":"` + strings.Repeat(around,
						before) + string([]byte{byte(c)}) + after + `"}`
					valid, err := json.Valid([]byte(msg)), e.Scan([]byte(msg))
					if valid != (err == nil) {
						t.Fatalf("Scan(%q) = %v, json.Valid says %v", msg, err, valid)
					}
				}
			}
		}
	}
}

func TestScanFindsWhatRoutingNeeds(t *testing.T) {
	var e Envelope
	if err := e.Scan([]byte(`{"x":{"userId":"inner"},"eventOp":"sdp","reqId":7,"userId":"",` +
		`"target":"\u0061\"b"}`)); err != nil {
		t.Fatal(err)
	}
	if string(e.Op) != "sdp" || string(e.ReqID) != "7" || e.UserID == nil || len(e.UserID) != 0 ||
		string(e.Target) != `a"b` {
		t.Errorf("op %q reqId %q userId %q target %q", e.Op, e.ReqID, e.UserID, e.Target)
	}
	if err := e.Scan([]byte(`{"reqId":{"a":1},"target":5}`)); err != nil {
		t.Fatal(err)
	}
	if e.Op != nil || e.ReqID != nil || e.UserID != nil || e.Target != nil {
		t.Errorf("fields of the wrong kind, or of the message before, were kept: %+v", e)
	}
}

func TestRelayedMessageCarriesTheStampedSender(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"userId replaced, reqId gone": {`{"eventOp":"sdp","reqId":"1","userId":"liar",` +
			`"sdp":{"sdp":"v=0\r\n"}}`, `{"userId":"me","eventOp":"sdp","sdp":{"sdp":"v=0\r\n"}}`},
		"userId added": {`{"eventOp":"sdp" , "x" : [1, 2] }`,
			`{"userId":"me","eventOp":"sdp","x":[1, 2]}`},
		"no answer": {`{"eventOp":"sdp","code":"401","message":"x",` +
			`"hint":"y","codes":1}`, `{"userId":"me","eventOp":"sdp","codes":1}`},
		"userId of another kind": {`{"userId":{"a":1}}`, `{"userId":"me"}`},
		"nothing else":           {`{}`, `{"userId":"me"}`},
	} {
		t.Run(name, func(t *testing.T) {
			var e Envelope
			if err := e.Scan([]byte(c.in)); err != nil {
				t.Fatal(err)
			}
			if got := string(e.AppendRelayed(nil, []byte(`"me"`))); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestScanAndRelayDoNotAllocate(t *testing.T) {
	msg := sdpMessage()
	var e Envelope
	dst := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if e.Scan(msg) != nil {
			t.Error("refused")
		}
		dst = e.AppendRelayed(dst[:0], []byte(`"guest-2"`))
	}); n != 0 {
		t.Errorf("%v allocations a message, want 0", n)
	}
}

func sdpMessage() []byte {
	b, _ := json.Marshal(map[string]any{
		"eventOp": "sdp", "reqId": "12", "userId": "guest-2", "target": "kpoint123", "type": "cam",
		"sdp": map[string]string{
			"type": "offer",
			"sdp":  strings.Repeat("a=rtpmap:96 VP8/90000\r\n", 60),
		},
	})
	return b
}

func BenchmarkScanAndRelay(b *testing.B) {
	msg := sdpMessage()
	var e Envelope
	dst := make([]byte, 0, 4096)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if e.Scan(msg) != nil {
			b.Fatal("refused")
		}
		dst = e.AppendRelayed(dst[:0], []byte(`"guest-2"`))
	}
}

// FuzzScan compares with encoding/json: the same verdict but for the stricter rules of our own, the
// same values, and a relayed message that means the same but for its sender.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		`{}`,
		`{"eventOp":"sdp","reqId":1,"userId":"a","target":"b","sdp":{"type":"offer",` +
			`"sdp":"v=0\r\n"}}`,
		`{"userId":"a","userId":"b"}`, `{"user\u0049d":"a"}`, `[]`, `{"a":[[[[1e5,-0.1]]]]}`,
		`{"target":"\ud83d\ude00\ud800"}`, "{\"a\":\"\xff\"}", `{"reqId":-0}`,
		`{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		var e Envelope
		err := e.Scan(msg)
		object := json.Valid(msg) && bytes.HasPrefix(bytes.TrimLeft(msg, " \t\r\n"), []byte("{"))
		if (err == nil || !errors.Is(err, ErrSyntax)) != object {
			// a message may break a rule of ours before the place where it stops being JSON
			if err == nil || object {
				t.Fatalf("Scan says %v, encoding/json says valid object: %v", err, object)
			}
		}
		if err != nil {
			return
		}
		var all map[string]json.RawMessage
		if err := json.Unmarshal(msg, &all); err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string][]byte{
			"eventOp": e.Op,
			"userId":  e.UserID,
			"target":  e.Target,
		} {
			var want *string
			if raw, ok := all[name]; ok && raw[0] == '"' {
				want = new(string)
				if json.Unmarshal(raw, want) != nil {
					t.Fatalf("%s not readable", name)
				}
			}
			if (want == nil) != (got == nil) {
				t.Fatalf("%s: got %q, want %v", name, got, want)
			}
			// encoding/json replaces bytes that are not UTF-8; transports refuse them before
			// they get here
			if want != nil && *want != strings.ToValidUTF8(string(got), "\uFFFD") &&
				bytes.Equal(got, bytes.ToValidUTF8(got, nil)) {
				t.Fatalf("%s: got %q, want %q", name, got, *want)
			}
		}
		out := e.AppendRelayed(nil, []byte(`"me"`))
		var relayed map[string]json.RawMessage
		if err := json.Unmarshal(out, &relayed); err != nil {
			t.Fatalf("relayed %s: %v", out, err)
		}
		if string(relayed["userId"]) != `"me"` || bytes.Count(out, []byte(`"userId":"me"`)) < 1 {
			t.Fatalf("relayed without its sender: %s", out)
		}
		delete(all, "reqId")
		delete(all, "userId")
		delete(relayed, "userId")
		if len(all) != len(relayed) {
			t.Fatalf("relayed %d fields of %d", len(relayed), len(all))
		}
		for k, v := range all {
			if !bytes.Equal(relayed[k], v) {
				t.Fatalf("%q changed from %s to %s", k, v, relayed[k])
			}
		}
		var again Envelope
		if err := again.Scan(out); err != nil {
			t.Fatalf("relayed message is refused: %v", err)
		}
	})
}
