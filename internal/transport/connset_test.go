package transport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/netaddr"
)

// addressed is a connection of which only the address matters.
type addressed struct {
	net.Conn
	addr net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.addr }

func somebody(addr string) net.Conn {
	return addressed{
		addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 1)),
	}
}

// check compares what a crowd counts with what is in its lists, and both with its bounds.
func (k *connSet) check(t *testing.T) {
	t.Helper()
	n, idle, sites := map[netip.Prefix]int{}, map[netip.Prefix]int{}, map[netip.Prefix]int{}
	for state := range k.lists {
		for at := k.lists[state].Front(); at != nil; at = at.Next() {
			e := at.Value.(*entry)
			if e.state != state || e.left || e.suspensions != 0 {
				t.Fatalf("in the list of state %d: %+v", state, e)
			}
			if e.source.IsValid() {
				n[e.source]++
				idle[e.source] += state
				sites[netaddr.Site(e.source)]++
			}
		}
	}
	if len(n) != len(k.sources) || len(sites) != len(k.sites) {
		t.Fatalf("%d sources and %d sites are counted, %d and %d are there", len(k.sources),
			len(k.sites), len(n), len(sites))
	}
	for source, c := range k.sources {
		if c.n != n[source] || c.idle != idle[source] {
			t.Fatalf("%s: %+v, there are %d and %d", source, c, n[source], idle[source])
		}
	}
	greatest, sized := 0, 0
	for site, h := range k.sites {
		listed := false
		for at := k.bySize[h.n].Front(); at != nil; at = at.Next() {
			listed = listed || at == h.sizeElement && at.Value == h
		}
		if !listed || h.n != sites[site] || h.lists[0].Len()+h.lists[1].Len() != h.n {
			t.Fatalf("%s: %d, there are %d", site, h.n, sites[site])
		}
		greatest = max(greatest, h.n)
	}
	for _, set := range k.bySize {
		sized += set.Len()
	}
	if k.largestSize != greatest || sized != len(k.sites) {
		t.Fatalf("the greatest has %d and not %d, %d of %d are sorted", greatest, k.largestSize,
			sized, len(k.sites))
	}
}

// Whatever happens in whatever order, the counts are right, and no bound is passed by those who
// were let in.
func TestConnSetCountsRandomOperations(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			var evicted []*entry
			k := newConnSet(connSetLimits{
				total:         20,
				perSource:     5,
				idlePerSource: 2,
				exempt:        []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
				slowAfter:     slowAfter,
			}, func(e *entry) { evicted = append(evicted, e) })
			var in []*entry // known to be connected, excused or not
			for range 400 {
				time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
				switch pick := r.IntN(6); {
				case pick < 2 || len(in) == 0:
					addr := fmt.Sprintf(
						[]string{
							"192.0.2.%d", "2001:db8:0:%x::1", "2001:db8:1:0::%x", "127.0.0.%d",
							"10.0.0.%d",
						}[r.IntN(5)],
						1+r.IntN(6))
					busy, idle := k.count()
					if e := k.add(somebody(addr), r.IntN(2)); e != nil {
						in = append(in, e)
					}
					if after, more := k.count(); after+more > max(20, busy+idle) {
						t.Fatalf("%d came in where 20 may be", after+more)
					}
				case pick == 2:
					k.setState(in[r.IntN(len(in))], r.IntN(2))
				case pick == 3:
					e := in[r.IntN(len(in))]
					if e.suspensions < 2 {
						k.suspend(e)
					}
				case pick == 4:
					if e := in[r.IntN(len(in))]; e.suspensions > 0 {
						k.resume(e)
					}
				default:
					i := r.IntN(len(in))
					k.remove(in[i])
					for in[i].suspensions > 0 { // a request over HTTP/2 may outlive its connection
						k.resume(in[i])
					}
					in = append(in[:i], in[i+1:]...)
				}
				k.check(t)
			}
			for _, e := range in {
				k.remove(e)
				for e.suspensions > 0 {
					k.resume(e)
				}
			}
			k.check(t)
			if busy, idle := k.count(); busy+idle != 0 || len(k.sources)+len(k.sites) != 0 {
				t.Errorf("nobody is there, and %d are counted of %d sources", busy+idle,
					len(k.sources))
			}
			seen := map[*entry]bool{}
			for _, e := range evicted {
				if seen[e] {
					t.Error("one had to make room twice")
				}
				seen[e] = true
			}
		})
	}
}

var fortyConns = connSetLimits{total: 40, perSource: 8, idlePerSource: 4, slowAfter: slowAfter}

// However many one site has open, and whatever it does with them, who has fewer finds room at once.
func TestConnSetEvictsFromLargestSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newConnSet(fortyConns, func(*entry) {})
		for i := range 1000 {
			k.add(somebody(fmt.Sprintf("2001:db8:0:%x::1", i)), activeList)
			k.add(somebody("192.0.2.1"), activeList)
		}
		for i := range 30 {
			if k.add(somebody(fmt.Sprintf("198.51.100.%d", i)), activeList) == nil {
				t.Fatalf("the %dth of as many addresses is kept out by two sites", i+1)
			}
		}
		k.check(t)
	})
}

func TestConnSetEvictsIdleWhenOutOfDescriptors(t *testing.T) {
	var evicted []*entry
	k := newConnSet(fortyConns, func(e *entry) { evicted = append(evicted, e) })
	busy, idle := k.add(somebody("192.0.2.1"), activeList), k.add(somebody("127.0.0.1"), idleList)
	if !k.evictIdle() || k.evictIdle() || len(evicted) != 1 || evicted[0] != idle ||
		!k.remove(busy) ||
		k.remove(idle) {
		t.Errorf("%v had to make room", evicted)
	}
}
