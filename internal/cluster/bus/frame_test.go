package bus

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func sample() frame {
	return frame{
		kind:        kindRequest,
		incarnation: 3,
		seq:         9,
		id:          77,
		from:        "node-1.example",
		payload:     []byte(`{"do":1}`),
	}
}

func TestAFrameSurvivesItsEncoding(t *testing.T) {
	f := sample()
	b := f.append(nil)
	if got, err := parseFrame(b); err != nil || !reflect.DeepEqual(got, f) {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range headerSize + len(f.from) {
		if _, err := parseFrame(b[:n]); !errors.Is(err, errFrame) {
			t.Errorf("%d bytes are a frame: %v", n, err)
		}
	}
}

// A frame of the next version is counted as what is missing: sender and number stay readable.
func TestAFrameOfAnotherVersionHasSenderAndNumber(t *testing.T) {
	f := sample()
	b := f.append(nil)
	b[0]++
	got, err := parseFrame(b)
	if !errors.Is(err, errVersion) || got.from != f.from || got.seq != f.seq ||
		got.incarnation != f.incarnation {
		t.Fatalf("%+v, %v", got, err)
	}
	b[0]--
	b[1] = byte(kindAck) + 1
	if _, err := parseFrame(b); !errors.Is(err, errVersion) {
		t.Errorf("an unknown kind: %v", err)
	}
}

// A name is part of a subject, where some characters have a meaning.
func TestNamesDoNotReachIntoOtherSubjects(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{
		"a", "A", "a.b", "a_b", "a_2eb", "*", ">", "a b", "a\nb", "노드", "a-b", "_", "__", "",
	} {
		s := Subject(name)
		if strings.ContainsAny(s, ".*> \r\n\t") || strings.ContainsFunc(s, func(r rune) bool {
			return r > 126 || r < 33
		}) {
			t.Errorf("%q becomes %q", name, s)
		}
		if other, twice := seen[s]; twice {
			t.Errorf("%q and %q both become %q", name, other, s)
		}
		seen[s] = name
	}
}

// Nodes of the previous and of this version understand each other while these bytes stay.
func TestTheEncodingStaysAsItIs(t *testing.T) {
	f := sample()
	packet, _ := pack(nil, [][]byte{f.append(nil), {}})
	const want = "00000031" + // length
		"01" + "02" + "0000000000000003" + "0000000000000009" + "000000000000004d" +
		"0e" + "6e6f64652d312e6578616d706c65" + // name
		"7b22646f223a317d" + // payload
		"00000000" // length of the second frame
	if got := hex.EncodeToString(packet); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestFramesTravelTogether(t *testing.T) {
	var frames [][]byte
	for _, n := range []int{0, 1, 1500, packetSize, packetSize - 8, 4, 20_000, 20_000} {
		frames = append(frames, bytes.Repeat([]byte{byte(n)}, n))
	}
	var got [][]byte
	packets := 0
	for rest := frames; len(rest) > 0; packets++ {
		var packet []byte
		packet, rest = pack(nil, rest)
		if n := slices.Collect(unpack(packet)); len(packet) > packetSize && len(n) != 1 {
			t.Errorf("%d frames in %d bytes", len(n), len(packet))
		}
		got = append(got, slices.Collect(unpack(packet))...)
	}
	if !reflect.DeepEqual(got, frames) || packets != 5 {
		t.Errorf("%d frames of %d in %d packets", len(got), len(frames), packets)
	}
}

func FuzzUnpack(f *testing.F) {
	packet, _ := pack(nil, [][]byte{[]byte("one"), nil, []byte("three")})
	f.Add(packet)
	f.Add(packet[:len(packet)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		whole := true
		for frame := range unpack(b) {
			if frame == nil {
				whole = false
				continue
			}
			again, _ = pack(again, [][]byte{frame})
		}
		if !bytes.HasPrefix(b, again) || whole != (len(again) == len(b)) {
			t.Errorf("%x was taken for %x", b, again)
		}
	})
}

func FuzzParseFrame(f *testing.F) {
	s := sample()
	f.Add(s.append(nil))
	nack := frame{kind: kindNack, seq: 1, from: "n", payload: appendSpan(nil, 3, 5)}
	f.Add(nack.append(nil))
	lost := frame{kind: kindLost, seq: 1, from: "n", payload: appendIDs(nil, []uint64{1, 2})}
	f.Add(lost.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFrame(b)
		first, last, ok := parseSpan(got.payload)
		if ok && (first > last || last > maxSeq) {
			t.Fatalf("span from %d to %d", first, last)
		}
		if ids, ok := parseIDs(got.payload); ok && len(ids)*8 != len(got.payload) {
			t.Fatalf("%d ids in %d bytes", len(ids), len(got.payload))
		}
		if err != nil {
			return
		}
		if again := got.append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}
