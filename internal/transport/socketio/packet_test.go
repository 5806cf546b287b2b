package socketio

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ieum-rtc/ieum/internal/transport"
)

func TestParsePacket(t *testing.T) {
	for in, want := range map[string]struct {
		kind                 packetType
		namespace, ack, data string
	}{
		`0`:                                  {typeConnect, "/", "", ""},
		`0{"token":"x"}`:                     {typeConnect, "/", "", `{"token":"x"}`},
		`0/room,`:                            {typeConnect, "/room", "", ""},
		`0/room`:                             {typeConnect, "/room", "", ""},
		`0/room?token=x,`:                    {typeConnect, "/room", "", ""},
		`0/room,{"a":1}`:                     {typeConnect, "/room", "", `{"a":1}`},
		`1`:                                  {typeDisconnect, "/", "", ""},
		`2["e",{}]`:                          {typeEvent, "/", "", `["e",{}]`},
		`20["e"]`:                            {typeEvent, "/", "0", `["e"]`},
		`2/,12["e"]`:                         {typeEvent, "/", "12", `["e"]`},
		`2/a,12["e"]`:                        {typeEvent, "/a", "12", `["e"]`},
		`2/["e"]`:                            {typeEvent, `?`, "", ""},
		`34[]`:                               {typeAck, "/", "4", `[]`},
		`21234567890123456["e"]`:             {typeEvent, "/", "1234567890123456", `["e"]`},
		`212345678901234567["e"]`:            {},
		`0/a b,`:                             {},
		`0/a"b,`:                             {},
		`0/가,`:                               {},
		`0/` + strings.Repeat("x", 64) + `,`: {},
		``:                                   {},
		`7`:                                  {},
		`a`:                                  {},
		` 2`:                                 {},
		`-1`:                                 {},
		"2\n":                                {typeEvent, "/", "", "\n"},
	} {
		k, err := parsePacket([]byte(in))
		if want.namespace == "?" { // an unfinished name may only end in a refusal
			if err == nil && k.namespace == "/" {
				t.Errorf("%q was taken for a packet of the namespace /", in)
			}
			continue
		}
		if want.kind == 0 {
			if err == nil {
				t.Errorf("%q was taken as %+v", in, k)
			}
			continue
		}
		if err != nil || k.typ != want.kind || k.namespace != want.namespace ||
			string(k.ack) != want.ack ||
			string(k.data) != want.data {
			t.Errorf("%q: %+v %v, want %+v", in, k, err, want)
		}
		if (k.ack == nil) != (want.ack == "") {
			t.Errorf("%q: an acknowledgement is asked for: %v", in, k.ack != nil)
		}
	}
	for _, in := range []string{`51-["e",{"_placeholder":true,"num":0}]`, `61-1[]`, `5`} {
		if _, err := parsePacket([]byte(in)); !errors.Is(err, errBinary) {
			t.Errorf("%q: %v, want a refusal of binary data", in, err)
		}
	}
}

func TestParseEvent(t *testing.T) {
	for in, want := range map[string][2]string{
		`["knowledgetalk",{"a":1}]`:             {"knowledgetalk", `{"a":1}`},
		" [ \"knowledgetalk\" ,\n{\"a\":1} ]\t": {"knowledgetalk", `{"a":1}`},
		`["knowledgetalk"]`:                     {"knowledgetalk", ""},
		`["knowledgetalk",{"a":1},{"b":2}]`:     {"knowledgetalk", `{"a":1},{"b":2}`},
		`["knowledgetalk","{}"]`:                {"knowledgetalk", `"{}"`},
		`["a\"b",1]`:                            {`a\"b`, "1"},
		`["knowledgetalk",]`:                    {"knowledgetalk", ""},
	} {
		name, arg, err := parseEvent([]byte(in))
		if err != nil || string(name) != want[0] || string(arg) != want[1] {
			t.Errorf("%q: %q %q %v, want %q", in, name, arg, err, want)
		}
	}
	for _, in := range []string{
		``, `[`, `[]`, `{}`, `[1]`, `["a`, `["a\"]`, `["a"1]`, `["a" "b"]`, `"a"`, `[[]]`, `]["a"]`,
		`[\u0022a"]`,
	} {
		if name, arg, err := parseEvent([]byte(in)); err == nil {
			t.Errorf("%q was taken as %q %q", in, name, arg)
		}
	}
}

func messages(texts ...string) []*transport.Message {
	var all []*transport.Message
	for _, t := range texts {
		all = append(all, newPacket(t))
	}
	return all
}

// The texts and lengths are those that the parsers of the npm clients write and read.
func TestPayloads(t *testing.T) {
	packets := []string{`4hello`, `4안녕`, `4😀é`, `2`}
	for version, want := range map[int]string{
		4: "4hello\x1e4안녕\x1e4😀é\x1e2",
		3: "6:4hello3:4안녕4:4😀é1:2",
	} {
		got := appendPayload(nil, version, messages(packets...))
		if string(got) != want {
			t.Errorf("version %d: %q, want %q", version, got, want)
		}
		for rest := got; ; {
			var p []byte
			var err error
			if p, rest, err = nextPacket(rest, version); err != nil || string(p) != packets[0] {
				t.Fatalf("version %d: %q %v, want %q", version, p, err, packets[0])
			}
			if packets = packets[1:]; len(rest) == 0 {
				break
			}
		}
		if len(packets) != 0 {
			t.Errorf("version %d: not read: %q", version, packets)
		}
		packets = []string{`4hello`, `4안녕`, `4😀é`, `2`}
	}
	for version, all := range map[int][]string{
		4: {"", "\x1e", "2\x1e", "\x1e2", "2\x1e\x1e2"},
		3: {
			"", "2", ":", ":2", "0:", "01:2", "1", "1:", "2:2", "-1:2", "+1:2", "1 :2", "2:4",
			"1:😀", "2:4😀", "99999999:2", "1:2x", "1:21:",
		},
	} {
		for _, in := range all {
			rest, err := []byte(in), error(nil)
			for first := true; err == nil && (first || len(rest) > 0); first = false {
				_, rest, err = nextPacket(rest, version)
			}
			if err == nil {
				t.Errorf("version %d: %q was read", version, in)
			}
		}
	}
}

func FuzzPacket(f *testing.F) {
	for _, s := range []string{
		`0`, `0/a?b,{"x":1}`, `21["knowledgetalk",{"eventOp":"sdp"}]`, `2/,1["e",1]`, `51-["e"]`,
		`43[1]`, `2[ "e" , 1 ]`, `2["\"",1]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		k, err := parsePacket(in)
		if err != nil {
			return
		}
		if k.namespace == "" || k.namespace[0] != '/' || len(k.namespace) > maxNamespace ||
			len(k.ack) > maxAckID {
			t.Fatalf("%q: %+v", in, k)
		}
		name, arg, err := parseEvent(k.data)
		if err != nil {
			return
		}
		// what was taken apart, put together again, is taken apart the same way
		again := `["` + string(name) + `",` + string(arg) + `]`
		n, a, err := parseEvent([]byte(again))
		if err != nil || string(n) != string(name) || string(a) != string(arg) {
			t.Fatalf("%q: %q %q, then %q %q %v", in, name, arg, n, a, err)
		}
	})
}

func FuzzPayload(f *testing.F) {
	for _, s := range []string{
		"2\x1e4x", "1:23:4안녕", "4:4😀é", "\x1e", "99999999999999999999:x", "1:😀",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, in []byte, three bool) {
		if !utf8.Valid(in) {
			return // refused before
		}
		version := 4
		if three {
			version = 3
		}
		var packets []string
		for rest := in; ; {
			var p []byte
			var err error
			if p, rest, err = nextPacket(rest, version); err != nil {
				return
			}
			if len(p) == 0 || !utf8.Valid(p) {
				t.Fatalf("%q: packet %q", in, p)
			}
			if packets = append(packets, string(p)); len(rest) == 0 {
				break
			}
		}
		if got := appendPayload(nil, version, messages(packets...)); string(got) != string(in) {
			t.Fatalf("%q was written again as %q", in, got)
		}
	})
}
