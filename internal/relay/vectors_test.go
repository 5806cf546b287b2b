package relay

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
)

const (
	vectorPassword = "VOkJxbRl1RmTxUk/WvJxBt"
	vectorUser     = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
	vectorRealm    = "example.org"
	vectorSecret   = "TheMatrIX" // as SASLprep leaves it
)

// The samples of RFC 5769 section 2, and of RFC 8489 appendix B.1 with erratum 6268.
var vectors = map[string]string{
	"request": `000100582112a442b7e7a701bc34d686fa87dfae
		802200105354554e207465737420636c69656e74 002400046e0001ff
		80290008932ff9b151263b36 000600096576746a3a68367659202020
		000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 80280004e57a3bcf`,
	"IPv4 response": `0101003c2112a442b7e7a701bc34d686fa87dfae
		8022000b7465737420766563746f7220 002000080001a147e112a643
		000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004c07d4c96`,
	"IPv6 response": `010100482112a442b7e7a701bc34d686fa87dfae 8022000b7465737420766563746f7220
		002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9
		00080014a382954e4be67bf11784c97c8292c275bfe3ed41 80280004c8fb0b4c`,
	"long-term": `000100602112a44278ad3433c6ad72c029da412e
		00060012e3839ee38388e383aae38383e382afe382b90000
		0015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341
		0014000b6578616d706c652e6f726700
		00080014f67024656dd64a3e02b8e0712e85c9a28ca89666`,
	"SHA-256": `000100902112a44278ad3433c6ad72c029da412e
		001e00204a3cf38fef6992bda952c6780417da0f2481941556 9e60b205c46e41407f1704
		001500296f624d61744a6f7332414141
		43662f2f3439396b39353464364f4c33346f4c39465354767936347341000000
		0014000b6578616d706c652e6f726700
		001d000400020000 001c0020b5c7bf005b6c52a21c51c5e892f819241362 96cb927c43149309278cc6518e65`,
}

func vector(t *testing.T, name string) *stun.Message {
	t.Helper()
	raw, err := hex.DecodeString(strings.Join(strings.Fields(vectors[name]), ""))
	if err != nil {
		t.Fatal(err)
	}
	if !isSTUN(raw) {
		t.Fatalf("%s: not taken for STUN", name)
	}
	m := &stun.Message{Raw: raw}
	if err := m.Decode(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

// Each sample's integrity is right under its key, and wrong as soon as a bit of it, of the key, or
// of what it covers is another.
func TestIntegrityOfPublishedVectors(t *testing.T) {
	short := []byte(vectorPassword)
	for name, key := range map[string][]byte{
		"request": short, "IPv4 response": short, "IPv6 response": short,
		"long-term": longTermKey(algorithmMD5, vectorUser, vectorRealm, vectorSecret),
		"SHA-256":   longTermKey(algorithmSHA256, vectorUser, vectorRealm, vectorSecret),
	} {
		m := vector(t, name)
		attr, of := stun.AttrMessageIntegrity, sha1.New
		if name == "SHA-256" {
			attr, of = stun.AttrMessageIntegritySHA256, sha256.New
		}
		want, err := m.Get(attr)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		check := func(raw, key []byte) bool {
			return verifyMAC(
				raw, uint16(attr), hmac.New(of, key), want,
			)
		}
		if !check(m.Raw, key) {
			t.Errorf("%s: integrity is refused", name)
		}
		if check(m.Raw, append(bytes.Clone(key), 'x')) {
			t.Errorf("%s: another key is as good", name)
		}
		covered := bytes.Index(m.Raw, want) - 4
		for at := range covered {
			if at == 2 || at == 3 {
				continue // the length is replaced by that of the message up to its integrity
			}
			raw := bytes.Clone(m.Raw)
			if raw[at] ^= 1; check(raw, key) {
				t.Errorf("%s: byte %d is not covered", name, at)
			}
		}
	}
}

func TestFingerprintOfPublishedVectors(t *testing.T) {
	for _, name := range []string{"request", "IPv4 response", "IPv6 response"} {
		m := vector(t, name)
		if err := stun.Fingerprint.Check(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if m.Raw[30] ^= 1; stun.Fingerprint.Check(m) == nil {
			t.Errorf("%s: a fingerprint of other bytes is as good", name)
		}
	}
}

// What we write of the same parts is the published response byte for byte, from the mapped address
// on.
func TestAnswersAreWrittenAsPublished(t *testing.T) {
	for name, address := range map[string]string{
		"IPv4 response": "192.0.2.1:32853",
		"IPv6 response": "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
	} {
		want := vector(t, name)
		mapped := netip.MustParseAddrPort(address)
		value, err := want.Get(stun.AttrXORMappedAddress)
		if err != nil {
			t.Fatal(err)
		}
		read, f, ok := readAddress(value, want.Raw[4:stunHeader])
		if !ok || read != endpointOf(mapped) || (f == v6) != mapped.Addr().Is6() {
			t.Errorf("%s: read %v, %v, %t", name, read, f, ok)
		}
		a := new(stun.Message)
		a.Type, a.TransactionID = want.Type, want.TransactionID
		a.WriteHeader()
		a.Add(stun.AttrSoftware, []byte("test vector"))
		a.Raw[len(a.Raw)-1] = ' ' // the samples pad with a space
		addAddress(a, stun.AttrXORMappedAddress, endpointOf(mapped))
		(&credential{key: []byte(vectorPassword)}).sign(a)
		if err := stun.Fingerprint.AddTo(a); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Raw, want.Raw) {
			t.Errorf("%s: wrote\n%x, want\n%x", name, a.Raw, want.Raw)
		}
	}
}

// We know no users by a hash of their name, so a request with USERHASH is told that we do not
// understand it, by 420.
func TestUserHashIsUnknown(t *testing.T) {
	s := start(t, nil)
	m := vector(t, "SHA-256")
	if got := s.workers[0].unknownAttrs(m); !bytes.Equal(got, []byte{0, 0x1e}) {
		t.Errorf("unknown attributes %x", got)
	}
}
