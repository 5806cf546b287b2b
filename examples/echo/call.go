package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"github.com/ieum-rtc/ieum/examples/signaling"
)

type bot struct {
	client *signaling.Client
	api    *webrtc.API
	config webrtc.Configuration
	calls  map[string][2]*webrtc.PeerConnection // by user: from the user, to the user
}

// decode turns a field of a message into a value of pion's.
func decode[T any](field any) (value T) {
	b, _ := json.Marshal(field)
	_ = json.Unmarshal(b, &value) // what is no description is refused by pion
	return value
}

// describe sends a description once it has all candidates.
func (b *bot) describe(
	user string, pc *webrtc.PeerConnection, d webrtc.SessionDescription, err error,
) {
	gathered := webrtc.GatheringCompletePromise(pc)
	if err == nil {
		err = pc.SetLocalDescription(d)
	}
	if err != nil {
		log.Print(user, ": ", err)
		return
	}
	<-gathered
	_ = b.client.Send(context.Background(), signaling.Message{
		"eventOp": "sdp",
		"target":  user,
		"type":    "cam",
		"sdp":     pc.LocalDescription(),
	})
}

// answer takes a call, and calls back with what comes.
func (b *bot) answer(user string, offer webrtc.SessionDescription) {
	b.hangUp(user)
	from, err1 := b.api.NewPeerConnection(b.config)
	to, err2 := b.api.NewPeerConnection(b.config)
	if err1 != nil || err2 != nil {
		log.Fatal(err1, err2)
	}
	b.calls[user] = [2]*webrtc.PeerConnection{from, to}
	video, _ := webrtc.NewTrackLocalStaticRTP(vp8, "video", "echo")
	audio, _ := webrtc.NewTrackLocalStaticRTP(opus, "audio", "echo")
	_, _ = to.AddTrack(video)
	_, _ = to.AddTrack(audio)
	from.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		back := map[webrtc.RTPCodecType]*webrtc.TrackLocalStaticRTP{
			webrtc.RTPCodecTypeVideo: video,
			webrtc.RTPCodecTypeAudio: audio,
		}[track.Kind()]
		for keyframe := time.Now(); ; {
			packet, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			_ = back.WriteRTP(packet)
			if time.Now().After(keyframe) { // the caller's player starts with one
				keyframe = time.Now().Add(time.Second)
				_ = from.WriteRTCP(
					[]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(track.SSRC())}},
				)
			}
		}
	})
	if err := from.SetRemoteDescription(offer); err != nil {
		log.Print(user, ": ", err)
		return
	}
	local, err := from.CreateAnswer(nil)
	b.describe(user, from, local, err)
	local, err = to.CreateOffer(nil)
	b.describe(user, to, local, err)
	fmt.Println("answered", user)
}

func (b *bot) hear(m signaling.Message) {
	user := m.Str("userId")
	call, calling := b.calls[user]
	switch description := decode[webrtc.SessionDescription](m["sdp"]); {
	case m.Str("type") == "leave":
		b.hangUp(m.Str("user"))
	case m.Str("eventOp") == "sdp" && description.Type == webrtc.SDPTypeOffer:
		b.answer(user, description)
	case m.Str("eventOp") == "sdp" && calling:
		if err := call[1].SetRemoteDescription(description); err != nil {
			log.Print(user, ": ", err)
		}
	case m.Str("eventOp") == "candidate" && calling:
		for _, pc := range call { // the one with this user fragment takes it
			if pc.RemoteDescription() != nil {
				_ = pc.AddICECandidate(decode[webrtc.ICECandidateInit](m["candidate"]))
			}
		}
	}
}

func (b *bot) hangUp(user string) {
	for _, pc := range b.calls[user] {
		if pc != nil {
			_ = pc.Close()
		}
	}
	delete(b.calls, user)
}
