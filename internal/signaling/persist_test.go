package signaling

import (
	"context"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/enginetest"
)

// memoryKeeper writes at once; what is written outlasts the hub.
type memoryKeeper struct {
	mu   sync.Mutex
	kept map[string][]byte
}

func (k *memoryKeeper) Load() (map[string][]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.kept), nil
}

func (k *memoryKeeper) Keep(key string, value func() []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v := value() // the last to be written must be the last to be asked
	if v == nil {
		delete(k.kept, key)
		return
	}
	k.kept[key] = v
}

// restart ends the only node as a crash would, and starts another with the same memory.
func (w *world) restart(cfg Config) {
	w.Helper()
	k := cfg.Keeper.(*memoryKeeper)
	before, _ := k.Load()
	old := w.nodes[0]
	_ = old.http.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = old.ws.Close(ctx)
	old.hub.Close()
	<-old.done
	w.nodes = nil
	k.mu.Lock()
	k.kept = before // whatever the end wrote, a crash would not have written
	k.mu.Unlock()
	w.local = directory{enginetest.NewNetwork(1)}
	w.start(cfg)
}

func withKeeper(t *testing.T, f func(w *world, cfg Config)) {
	var cfg Config
	in(t, 1, func(c *Config, _ *license.Params) {
		c.Keeper = &memoryKeeper{kept: map[string][]byte{}}
		c.Node = "n0"
		cfg = *c
	}, func(w *world) { f(w, cfg) })
}

func TestSessionsAndRoomsOutlastARestart(t *testing.T) {
	withKeeper(t, func(w *world, cfg Config) {
		kim, lee, gone := w.user(0, "kim"), w.user(0, "lee"), w.user(0, "gone")
		w.room("K1", kim, lee, gone)
		lee.want("200", msg{"eventOp": "changeName", "name": "Lee"})
		lee.want("200", msg{"eventOp": "screen"})
		w.restart(cfg)
		if a, b := kim.closeCode(), lee.closeCode(); a == 0 || b == 0 {
			w.Fatalf("connections outlast their server: %d %d", a, b)
		}
		time.Sleep(15 * time.Second)
		kim2, lee2 := w.connect(0), w.connect(0)
		a := kim2.register("kim", "resume", kim.secret)
		state, _ := a["room"].(map[string]any)
		if a["resumed"] != true || state["seq"] != 5.0 ||
			len(state["members"].(map[string]any)) != 3 ||
			state["share"].(map[string]any)["user"] != "lee" {
			w.Fatalf("answer %v", a)
		}
		if m := state["members"].(map[string]any)["lee"].(map[string]any); m["name"] != "Lee" {
			w.Errorf("member %v", m)
		}
		if a := lee2.register("lee", "resume", lee.secret); a["resumed"] != true {
			w.Fatalf("answer %v", a)
		}
		kim2.saw("") // nobody left, nobody came
		lee2.want("200", msg{"eventOp": "sdp", "target": "kim"})
		kim2.saw("sdp<lee ")
		w.connect(0).want("409", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "gone",
		})
		time.Sleep(6 * time.Second) // the window counts from the start
		kim2.saw("leave:gone:6 ")
		lee2.want("200", msg{"eventOp": "shareStop"})
		kim2.saw("shareStop:lee:7 ")
	})
}

func TestWhatCannotBeUsedIsForgotten(t *testing.T) {
	withKeeper(t, func(w *world, cfg Config) {
		kim := w.user(0, "kim")
		w.room("K1", kim)
		k := cfg.Keeper.(*memoryKeeper)
		for _, key := range []string{"session/broken", "room/broken", "session/other"} {
			k.kept[key] = []byte("{")
		}
		k.kept["session/other"] = []byte(`{"Seat":{"Node":"n9","Session":"other","Epoch":1},` +
			`"User":"x"}`)
		w.restart(cfg)
		synctest.Wait()
		all, _ := k.Load()
		if len(all) != 2 {
			w.Errorf("%d records are kept, want kim and K1", len(all))
		}
		back := w.connect(0)
		if a := back.register("kim", "resume", kim.secret); a["resumed"] != true {
			w.Errorf("answer %v", a)
		}
		back.want("200", msg{"eventOp": "leaveRoom"})
		back.goAway(1000)
		if all, _ := k.Load(); len(all) != 0 {
			w.Errorf("%d records are left when everybody has gone", len(all))
		}
	})
}

func TestNobodyComesBackAfterARestart(t *testing.T) {
	withKeeper(t, func(w *world, cfg Config) {
		w.room("K1", w.user(0, "kim"), w.user(0, "lee"))
		w.restart(cfg)
		time.Sleep(21 * time.Second)
		synctest.Wait()
		if s := w.nodes[0].hub.Stats(); s.Sessions+s.Rooms+s.Rosters != 0 {
			w.Errorf("left over: %+v", s)
		}
		if all, _ := cfg.Keeper.Load(); len(all) != 0 {
			w.Errorf("%d records are left", len(all))
		}
	})
}

// A crash may have kept a room as it was before its member went to another.
func TestARestoredSessionIsInOneRoom(t *testing.T) {
	withKeeper(t, func(w *world, cfg Config) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		k := cfg.Keeper.(*memoryKeeper)
		w.room("K1", kim, lee)
		kept, _ := k.Load()
		lee.want("200", msg{"eventOp": "leaveRoom"})
		kim.want("200", msg{"eventOp": "leaveRoom"})
		w.room("K2", kim)
		for key, value := range kept {
			if strings.HasSuffix(key, "K1") {
				k.kept[key] = value
			}
		}
		w.restart(cfg)
		in := 0
		for _, id := range []string{"K1", "K2"} {
			state, err := w.nodes[0].hub.get(t.Context(), room.Key{Tenant: w.cpCode, Room: id})
			if err != nil {
				continue
			}
			for _, m := range state.Members {
				if m.ID == "kim" {
					in++
				}
			}
		}
		if in != 1 {
			w.Errorf("kim is in %d rooms", in)
		}
		back := w.connect(0)
		back.register("kim", "resume", kim.secret)
		back.goAway(1000)
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if s := w.nodes[0].hub.Stats(); s.Sessions+s.Rooms+s.Rosters != 0 {
			w.Errorf("left over: %+v", s)
		}
	})
}
