package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// Crowds on three nodes are treated as one would treat them.
func TestCrowdsOnThreeNodes(t *testing.T) {
	n := newNetwork(t)
	chatHasOneOrder(t, n)
	roomsAreNeverOverfull(t, n)
	licensesAreNeverOverfull(t, n)
}

// Five members of a room, on three nodes, say a hundred things each. All see the same order, and in
// it what each has said in the order in which it was said.
func chatHasOneOrder(t *testing.T, n *network) {
	t.Helper()
	const members, messages = 5, 100
	authKey := n.license("acme", 100)
	var all []*guest
	for i := range members {
		g, err := n.nodes[i%3].enter("acme", authKey, fmt.Sprint("user", i))
		n.must(err)
		t.Cleanup(g.leave)
		if i == 0 {
			g.do(t, "createRoom", "room")
		}
		g.do(t, "joinRoom", "room")
		all = append(all, g)
	}
	var talk sync.WaitGroup
	for i, g := range all {
		talk.Go(func() {
			for k := range messages {
				if a := g.ask(map[string]any{
					"eventOp": "chat", "roomId": "room", "message": fmt.Sprint(i, " ", k),
				}); a["code"] != "200" {
					t.Errorf("user%d, message %d: %v", i, k, a)
					return
				}
			}
		})
	}
	talk.Wait()
	order := map[float64]string{}
	for i, g := range all {
		until(t, fmt.Sprintf("user%d has all messages", i), func() bool {
			return len(chats(g.seen())) >= (members-1)*messages
		})
	}
	for i, g := range all {
		said := chats(g.seen())
		if len(said) != (members-1)*messages {
			t.Errorf("user%d got %d messages", i, len(said))
		}
		last := float64(0)
		next := map[string]int{}
		for _, e := range said {
			seq, _ := e["seq"].(float64)
			from, text := fmt.Sprint(e["user"]), fmt.Sprint(e["message"])
			if seq <= last {
				t.Fatalf("user%d got %v after %v", i, e, last)
			}
			last = seq
			want := fmt.Sprint(from[len("user"):], " ", next[from])
			next[from]++
			if text != want {
				t.Fatalf("user%d got %q, not %q", i, text, want)
			}
			if other, ok := order[seq]; ok && other != text {
				t.Fatalf("message %v is %q and %q", seq, text, other)
			}
			order[seq] = text
		}
	}
	numbers := slices.Sorted(maps.Keys(order))
	if len(order) != members*messages ||
		numbers[len(numbers)-1]-numbers[0] != float64(members*messages-1) {
		t.Errorf("%d messages have the numbers %v to %v", len(order),
			numbers[0], numbers[len(numbers)-1])
	}
}

// chats are the chat messages among events.
func chats(events []map[string]any) (said []map[string]any) {
	for _, e := range events {
		if e["type"] == "chat" {
			said = append(said, e)
		}
	}
	return said
}

// Three users, one on each node, want to be in each of 500 rooms for two, all at once. One of each
// three is refused, and the members of a room agree on who is in.
func roomsAreNeverOverfull(t *testing.T, n *network) {
	t.Helper()
	const rooms = 500
	authKey := n.license("rooms", 3*rooms)
	guests := make([][3]*guest, rooms)
	spread(3*rooms, 32, func(i int) {
		id, at := i/3, i%3
		g, err := n.nodes[(id+at)%3].enter("rooms", authKey, fmt.Sprintf("user%d-%d", id, at))
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(g.leave)
		if guests[id][at] = g; at != 0 {
			return
		}
		if a := g.ask(map[string]any{
			"eventOp": "createRoom", "roomId": fmt.Sprint("room", id), "capacity": 2,
		}); a["code"] != "200" {
			t.Errorf("room%d: %v", id, a)
		}
	})
	if t.Failed() {
		return
	}
	var admitted, full atomic.Int64
	in := make([][3]bool, rooms)
	spread(3*rooms, 3*rooms, func(i int) {
		id, at := i/3, i%3
		a := guests[id][at].ask(map[string]any{
			"eventOp": "joinRoom", "roomId": fmt.Sprint("room", id),
		})
		switch a["code"] {
		case "200":
			admitted.Add(1)
			in[id][at] = true
		case "444":
			full.Add(1)
		default:
			t.Errorf("user%d-%d: %v", id, at, a)
		}
	})
	if admitted.Load() != 2*rooms || full.Load() != rooms {
		t.Errorf("%d users are in, %d were refused", admitted.Load(), full.Load())
	}
	spread(3*rooms, 32, func(i int) {
		id, at := i/3, i%3
		if !in[id][at] {
			return
		}
		a := guests[id][at].ask(map[string]any{"eventOp": "memberList"})
		members, _ := a["members"].(map[string]any)
		for k, is := range in[id] {
			if _, listed := members[fmt.Sprintf("user%d-%d", id, k)]; listed != is {
				t.Errorf("room%d has %v, to user%d-%d", id, members, id, at)
			}
		}
	})
}

// Many more users than a license has want to register, at once, on all nodes. It is full with
// exactly as many as it has.
func licensesAreNeverOverfull(t *testing.T, n *network) {
	t.Helper()
	const seats, wanted = 150, 600
	authKey := n.license("full", seats)
	var admitted, full atomic.Int64
	spread(wanted, 200, func(i int) {
		g, answer := n.nodes[i%3].register(map[string]any{
			"eventOp": "register", "cpCode": "full", "authKey": authKey,
		})
		if g != nil {
			t.Cleanup(g.leave)
		}
		switch answer["code"] {
		case "200":
			admitted.Add(1)
		case "445":
			full.Add(1)
		default:
			t.Errorf("user %d: %v", i, answer)
		}
	})
	if admitted.Load() != seats || full.Load() != wanted-seats {
		t.Errorf("%d users are in, %d were refused", admitted.Load(), full.Load())
	}
}

// spread calls f for each of the first count numbers, some at a time.
func spread(count, parallel int, f func(i int)) {
	var all sync.WaitGroup
	var next atomic.Int64
	for range parallel {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	all.Wait()
}
