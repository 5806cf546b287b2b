package enginetest

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLocalIsADirectory(t *testing.T) {
	s := Suite{Start: func(t *testing.T, _ int) *Cluster {
		t.Helper()
		l := engine.NewLocal("n0")
		return &Cluster{
			Names:       []string{"n0"},
			Buses:       []engine.Bus{l},
			Directories: []engine.Directory{l},
		}
	}}
	s.TestDirectory(t, 1)
}

// virtual starts the nodes of a Network in virtual time.
func virtual(seed uint64, delay time.Duration) Suite {
	return Suite{
		Start: func(t *testing.T, nodes int) *Cluster {
			t.Helper()
			n := NewNetwork(seed)
			if delay > 0 {
				n.RandomDelay(delay)
			}
			c := &Cluster{Virtual: true}
			for i := range nodes {
				at := n.Join(fmt.Sprint("n", i))
				c.Names = append(c.Names, at.name)
				c.Buses = append(c.Buses, at)
				c.Directories = append(c.Directories, at)
			}
			c.Lose = func(from, to, frames int) {
				n.Lose(func(f Frame) bool {
					lose := frames > 0 && f.From == c.Names[from] && f.To == c.Names[to]
					if lose {
						frames--
					}
					return lose
				})
			}
			c.Cut = func(from, to int, cut bool) { n.Cut(c.Names[from], c.Names[to], cut) }
			c.Kill = func(node int) { n.Kill(c.Names[node]); n.Bury(c.Names[node]) }
			c.Isolate = func(node int, isolated bool) { n.Isolate(c.Names[node], isolated) }
			c.Restart = func(t *testing.T, node int) {
				t.Helper()
				n.Kill(c.Names[node])
				at := n.Join(c.Names[node])
				c.Buses[node], c.Directories[node] = at, at
			}
			return c
		},
		In: func(t *testing.T, name string, f func(t *testing.T)) {
			t.Helper()
			t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
		},
	}
}

func TestNetworkIsABus(t *testing.T) {
	for seed := range uint64(5) {
		virtual(seed, 0).TestBus(t)
		virtual(seed, 5*time.Millisecond).TestBus(t)
	}
}

func TestNetworkIsADirectory(t *testing.T) {
	for _, nodes := range []int{1, 2, 3} {
		virtual(1, 0).TestDirectory(t, nodes)
	}
}
