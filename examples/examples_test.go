// Package examples runs the programs of this folder against a server built from this repository.
package examples

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/ieum-rtc/ieum/examples/signaling"
)

// failSafe ends a test that hangs; nothing is measured.
const failSafe = time.Minute

var (
	bin string // folder of the built programs
	dev string // address of a server started with --dev
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		log.Print(err)
		code = 1
	}
	os.Exit(code)
}

// run builds everything once and keeps one server for the tests.
func run(m *testing.M) (code int, err error) {
	if bin, err = os.MkdirTemp("", "examples"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(bin)
	for pkg, dir := range map[string]string{"./cmd/ieum": "..", "./chat": ".", "./echo": "."} {
		build := exec.Command("go", "build", "-o", bin+string(filepath.Separator), pkg)
		build.Dir = dir
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	server, stop, err := start(context.Background(), nil, append(serve, "--dev")...)
	if err != nil {
		return 0, err
	}
	defer stop()
	if dev, err = server.find(`http://[\d.:]+`); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

var serve = []string{
	"ieum",
	"serve",
	"--listen",
	"127.0.0.1:0",
	"--stun-listen",
	"off",
	"--admin-listen",
	"off",
}

// output are the lines that a program prints.
type output struct {
	lines *bufio.Scanner
	in    io.Writer
}

// find reads lines until one of them has a match.
func (o *output) find(pattern string) (string, error) {
	want, read := regexp.MustCompile(pattern), bytes.Buffer{}
	for o.lines.Scan() {
		fmt.Fprintln(&read, o.lines.Text())
		if found := want.FindString(o.lines.Text()); found != "" {
			return found, nil
		}
	}
	return "", fmt.Errorf("no %q in:\n%s", pattern, &read)
}

func (o *output) want(t *testing.T, pattern string) string {
	t.Helper()
	found, err := o.find(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// start runs a program, a built one if there is one of this name, until stop is called or ctx is
// done.
func start(ctx context.Context, env []string, args ...string) (o *output, stop func(), err error) {
	name := args[0]
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if name = filepath.Join(bin, name); !exists(name) {
		name = args[0]
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, name, args[1:]...)
	cache := filepath.Join(bin, "cache") // where --dev keeps its license
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+cache, "HOME="+cache)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		cancel()
		return nil, nil, fmt.Errorf("%v %v", err1, err2)
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, nil, err
	}
	return &output{bufio.NewScanner(out), in}, sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait()
	}), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// program is start for a test, which ends it.
func program(t *testing.T, env []string, args ...string) (*output, func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), failSafe)
	t.Cleanup(cancel)
	o, stop, err := start(ctx, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return o, stop
}

func TestChat(t *testing.T) {
	kim, _ := program(t, nil, "chat", "-server", dev, "-room", "chat", "-name", "Kim")
	kim.want(t, "^1 in chat$")
	lee, _ := program(t, nil, "chat", "-server", dev, "-room", "chat", "-name", "Lee")
	lee.want(t, "^2 in chat$")
	kim.want(t, "^Lee joined$")
	fmt.Fprintln(kim.in, "안녕하세요")
	lee.want(t, "^Kim: 안녕하세요$")
	fmt.Fprintln(lee.in, "hello")
	kim.want(t, "^Lee: hello$")
	if err := lee.in.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	kim.want(t, "^Lee left$")
}

// A caller that sends video gets its own packets back, over a connection that the bot makes.
func TestEcho(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), failSafe)
	defer cancel()
	bot, _ := program(t, nil, "echo", "-server", dev, "-room", "echo")
	bot.want(t, "^waiting in echo$")
	client, err := signaling.Register(ctx, dev, signaling.Message{"userId": "caller"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	room, err := client.Join(ctx, "echo")
	if err != nil {
		t.Fatal(err)
	}
	var target string
	for id := range room["members"].(map[string]any) {
		if id != client.UserID {
			target = id
		}
	}

	out, in := connection(t), connection(t)
	track, err := webrtc.NewTrackLocalStaticRTP(
		webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "camera",
	)
	if err != nil {
		t.Fatal(err)
	}
	sendOnly := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}
	if _, err := out.AddTransceiverFromTrack(track, sendOnly); err != nil {
		t.Fatal(err)
	}
	back := make(chan []byte, 1)
	in.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		if packet, _, err := track.ReadRTP(); err == nil {
			back <- packet.Payload
		}
	})
	say := func(pc *webrtc.PeerConnection, d webrtc.SessionDescription, err error) {
		t.Helper()
		gathered := webrtc.GatheringCompletePromise(pc)
		if err == nil {
			err = pc.SetLocalDescription(d)
		}
		if err != nil {
			t.Fatal(err)
		}
		<-gathered
		description := signaling.Message{
			"eventOp": "sdp",
			"target":  target,
			"type":    "cam",
			"sdp":     pc.LocalDescription(),
		}
		if err := client.Send(ctx, description); err != nil {
			t.Fatal(err)
		}
	}
	offer, err := out.CreateOffer(nil)
	say(out, offer, err)
	for seen := 0; seen < 2; {
		m, err := client.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if m.Str("eventOp") != "sdp" || m.Str("code") != "" {
			continue
		}
		seen++
		var d webrtc.SessionDescription
		if b, err := json.Marshal(m["sdp"]); err != nil || json.Unmarshal(b, &d) != nil {
			t.Fatalf("no description: %v", m)
		}
		if d.Type == webrtc.SDPTypeAnswer {
			err = out.SetRemoteDescription(d)
		} else if err = in.SetRemoteDescription(d); err == nil {
			var answer webrtc.SessionDescription
			answer, err = in.CreateAnswer(nil)
			say(in, answer, err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	// The descriptor of VP8, and some bytes.
	payload := []byte{0x10, 0, 0, 0, 0x9d, 1, 0x2a, 'e', 'c', 'h', 'o'}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := uint16(0); ; n++ {
		select {
		case got := <-back:
			if !bytes.Equal(got, payload) {
				t.Errorf("got %x back, want %x", got, payload)
			}
			return
		case <-tick.C:
			header := rtp.Header{
				Version:        2,
				SequenceNumber: n,
				Timestamp:      uint32(n) * 1800,
				Marker:         true,
			}
			if err := track.WriteRTP(&rtp.Packet{Header: header, Payload: payload}); err != nil {
				t.Fatal(err)
			}
		case <-ctx.Done():
			t.Fatal("nothing came back")
		}
	}
}

func connection(t *testing.T) *webrtc.PeerConnection {
	t.Helper()
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(media)).
		NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return pc
}

// The backend's tokens let their user into their room, where the license alone admits nobody.
func TestTokens(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED: Node is missing")
	}
	ctx, cancel := context.WithTimeout(context.Background(), failSafe)
	defer cancel()
	key := filepath.Join(t.TempDir(), "license-signing.key")
	made, _ := program(t, nil, "ieum", "license", "keygen", key)
	made.want(t, "license")
	issued, _ := program(
		t, nil, "ieum", "license", "issue", "--cp-code", "MY-APP", "--require-user-token", "--json",
		"--license-signing-key-file", key,
	)
	var license struct{ CpCode, AuthKey, UserTokenKey string }
	if err := json.Unmarshal([]byte(issued.want(t, "^{.*}$")), &license); err != nil {
		t.Fatal(err)
	}
	server, _ := program(t, nil, append(serve, "--license-signing-key-file", key)...)
	at := server.want(t, `http://[\d.:]+`)
	backend, _ := program(t, []string{
		"CP_CODE=" + license.CpCode,
		"AUTH_KEY=" + license.AuthKey,
		"USER_TOKEN_KEY=" + license.UserTokenKey,
		`USERS={"kim":"pass:word"}`,
		"PORT=0",
	}, node, "tokens/server.mjs")
	url := backend.want(t, `http://\S+/token`)

	if status, _ := get(t, url+"?room=weekly", "kim", "wrong"); status != http.StatusUnauthorized {
		t.Errorf("a wrong password is answered %d", status)
	}
	if status, _ := get(t, url, "kim", "pass:word"); status != http.StatusBadRequest {
		t.Errorf("without a room: %d", status)
	}
	status, token := get(t, url+"?room=weekly", "kim", "pass:word")
	if status != http.StatusOK || token.Str("cpCode") != license.CpCode {
		t.Fatalf("%d %v", status, token)
	}
	alone := signaling.Message{"cpCode": license.CpCode, "authKey": license.AuthKey}
	if _, err := signaling.Register(ctx, at, alone); err == nil {
		t.Error("the license alone was admitted")
	}
	client, err := signaling.Register(
		ctx, at, signaling.Message{"cpCode": license.CpCode, "authKey": token["token"]},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if client.UserID != "kim" {
		t.Errorf("registered as %s", client.UserID)
	}
	if _, err := client.Join(ctx, "another"); err == nil {
		t.Error("the token admits to another room")
	}
	if _, err := client.Join(ctx, "weekly"); err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url, user, password string) (status int, body signaling.Message) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(user, password)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, body
}
