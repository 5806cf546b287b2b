package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// A request to a node that closes is answered, whether or not it is decided.
func TestRequestsReturnWhenTheirNodeCloses(t *testing.T) {
	for range 5 {
		c := start(t, 1)[0]
		var clients sync.WaitGroup
		var begun sync.WaitGroup
		begun.Add(32)
		for i := range 32 {
			clients.Go(func() {
				to := engine.Location{Node: c.cfg.Node, Session: fmt.Sprint(i)}
				for n := 0; ; n++ {
					_, err := c.Directory().ClaimUser(context.Background(), "t",
						fmt.Sprint(i, n), to, 1<<30)
					if n == 0 {
						begun.Done()
					}
					if err != nil {
						return
					}
				}
			})
		}
		begun.Wait()
		crash(t, c)
		clients.Wait()
	}
}
