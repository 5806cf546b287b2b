package room_test

import (
	"context"
	"fmt"

	"github.com/ieum-rtc/ieum/internal/room"
)

// printer is a sink that shows what the members are told.
type printer struct{}

func (printer) Deliver(to []room.Address, e room.Event) {
	names := map[room.Kind]string{
		room.Entered:     "entered",
		room.Joined:      "joined",
		room.Left:        "left",
		room.HostChanged: "host is",
	}
	for _, a := range to {
		fmt.Printf("%s gets %d: %s %s\n", a.Session, e.Seq, names[e.Kind], e.Member.ID)
	}
}

// A room is commanded by Do and speaks through its sink: every member gets the events in one order.
func ExampleRegistry_Do() {
	g := room.NewRegistry(printer{}, room.Limits{}, room.Hooks{})
	defer g.Close()
	ctx, key := context.Background(), room.Key{Tenant: "MY-APP", Room: "weekly"}
	member := func(id string) room.Member {
		return room.Member{ID: id, Address: room.Address{Node: "n0", Session: id + "'s session"}}
	}
	for _, cmd := range []room.Command{
		room.Create{Owner: "kim", Capacity: 2},
		room.Join{Member: member("kim")},
		room.Join{Member: member("lee")},
		room.Join{Member: member("max")},
		room.Leave{User: "kim", Address: member("kim").Address},
	} {
		if _, err := g.Do(ctx, key, cmd); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// kim's session gets 1: entered kim
	// lee's session gets 2: entered lee
	// kim's session gets 2: joined lee
	// room full
	// lee's session gets 3: left kim
	// lee's session gets 4: host is lee
}
