// Echo answers every call in a room with the caller's own sound and video, as a test of the
// caller's devices and network. It is a raw client: it announces no features, so each direction has
// a connection of its own.
//
//	go run ./echo -room lobby
package main

import (
	"context"
	"flag"
	"fmt"
	"log"

	"github.com/pion/webrtc/v4"

	"github.com/ieum-rtc/ieum/examples/signaling"
)

var (
	vp8  = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
	opus = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
)

func main() {
	server := flag.String(
		"server",
		"http://127.0.0.1:7102",
		"address of the server, started with --dev",
	)
	room := flag.String("room", "lobby", "room id")
	flag.Parse()

	media := &webrtc.MediaEngine{} // these two codecs alone, so that the way back has the same
	_ = media.RegisterCodec(
		webrtc.RTPCodecParameters{RTPCodecCapability: vp8, PayloadType: 96},
		webrtc.RTPCodecTypeVideo,
	)
	_ = media.RegisterCodec(
		webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: 111},
		webrtc.RTPCodecTypeAudio,
	)
	ctx := context.Background()
	client, err := signaling.Register(ctx, *server, signaling.Message{"name": "Echo"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.Join(ctx, *room); err != nil {
		log.Fatal(err)
	}
	b := &bot{
		client: client,
		api:    webrtc.NewAPI(webrtc.WithMediaEngine(media)),
		config: webrtc.Configuration{ICEServers: decode[[]webrtc.ICEServer](client.ICEServers)},
		calls:  map[string][2]*webrtc.PeerConnection{},
	}
	fmt.Println("waiting in", *room)
	for {
		m, err := client.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		b.hear(m)
	}
}
