// Chat joins a room: each line of standard input goes to the room, and what others say is printed.
//
//	go run ./chat -room lobby -name Kim
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"os"

	"github.com/ieum-rtc/ieum/examples/signaling"
)

func main() {
	server := flag.String(
		"server",
		"http://127.0.0.1:7102",
		"address of the server, started with --dev",
	)
	room := flag.String("room", "lobby", "room id")
	name := flag.String("name", "", "name shown to others")
	flag.Parse()

	ctx := context.Background()
	client, err := signaling.Register(ctx, *server, signaling.Message{"name": *name})
	if err != nil {
		log.Fatal(err)
	}
	state, err := client.Join(ctx, *room)
	if err != nil {
		log.Fatal(err)
	}
	names := map[string]string{}
	for id, member := range state["members"].(map[string]any) {
		names[id] = signaling.Message(member.(map[string]any)).Str("name")
	}
	fmt.Printf("%d in %s\n", len(names), *room)

	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			say := signaling.Message{"eventOp": "chat", "roomId": *room, "message": lines.Text()}
			if err := client.Send(ctx, say); err != nil {
				log.Fatal(err)
			}
		}
		_ = client.Close() // the loop below ends with an error
	}()
	for {
		m, err := client.Next(ctx)
		if err != nil {
			return
		}
		switch user := m.Str("user"); m.Str("type") {
		case "join":
			member := signaling.Message(m["user"].(map[string]any))
			names[member.Str("userId")] = member.Str("name")
			fmt.Println(member.Str("name"), "joined")
		case "leave":
			fmt.Println(names[user], "left")
		case "chat":
			fmt.Printf("%s: %s\n", names[user], m.Str("message"))
		}
		if code := m.Str("code"); code != "" && code != "200" {
			fmt.Println(code, m.Str("message"), m.Str("hint"))
		}
	}
}
