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
		return &Cluster{[]string{"n0"}, []engine.Bus{l}, []engine.Directory{l}}
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
			c := &Cluster{}
			for i := range nodes {
				at := n.Join(fmt.Sprint("n", i))
				c.Names = append(c.Names, at.name)
				c.Buses = append(c.Buses, at)
				c.Directories = append(c.Directories, at)
			}
			return c
		},
		In: func(t *testing.T, name string, f func(t *testing.T)) {
			t.Helper()
			t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
		},
	}
}

func TestNetworkIsADirectory(t *testing.T) {
	for _, nodes := range []int{1, 2, 3} {
		virtual(1, 0).TestDirectory(t, nodes)
	}
}
