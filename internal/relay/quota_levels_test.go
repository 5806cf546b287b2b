package relay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// empty tells that nothing is held. Sessions may still rest.
func (q *quota) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.sessions {
		if s.allocations != 0 {
			return false
		}
	}
	return q.total+len(q.tenants)+len(q.sources)+len(q.prefixes) == 0 &&
		len(q.sessions) <= len(q.recovering)
}

// of is what a session holds.
func (q *quota) of(session string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.sessions[session]; s != nil {
		return s.allocations
	}
	return 0
}

func sourceAt(addr string) source {
	return sourceOf(endpointOf(netip.AddrPortFrom(netip.MustParseAddr(addr), 1)))
}

// Each level of the quota holds by itself, those with a default and those around others too, and
// all are given back.
func TestQuotaLevels(t *testing.T) {
	for name, c := range map[string]struct {
		quota Quota
		next  func(i int) quotaKey
		want  int
	}{
		"a license, alone": {
			Quota{Source: -1},
			func(i int) quotaKey {
				return quotaKey{fmt.Sprint("t.", i), "t", sourceAt("192.0.2.1")}
			},
			7500,
		},
		"a session": {
			Quota{},
			func(i int) quotaKey {
				return quotaKey{"t.s", "t", sourceAt(fmt.Sprintf("192.0.%d.1", i))}
			},
			64,
		},
		"a license, by itself": {Quota{}, func(i int) quotaKey {
			return quotaKey{
				fmt.Sprint("t.", i), "t", sourceAt(fmt.Sprintf("192.%d.%d.1", i>>8, i&255)),
			}
		}, 2500},
		"a license, of another total": {
			Quota{Total: 10},
			func(i int) quotaKey {
				return quotaKey{fmt.Sprint("t.", i), "t", sourceAt("192.0.2.1")}
			},
			3,
		},
		"a license, as given": {
			Quota{Total: 10, Tenant: 8},
			func(i int) quotaKey {
				return quotaKey{fmt.Sprint("t.", i), "t", sourceAt("192.0.2.1")}
			},
			8,
		},
		"a license, without any total": {
			Quota{Total: -1, Source: -1},
			func(i int) quotaKey {
				return quotaKey{fmt.Sprint("t.", i), "t", sourceAt("192.0.2.1")}
			},
			-1,
		},
		"an address": {
			Quota{},
			func(i int) quotaKey {
				return quotaKey{fmt.Sprint("t.", i), fmt.Sprint(i), sourceAt("192.0.2.1")}
			},
			1000,
		},
		"an IPv6 /64": {Quota{}, func(i int) quotaKey {
			return quotaKey{
				fmt.Sprint("t.", i), fmt.Sprint(i), sourceAt(fmt.Sprintf("2001:db8::%x", i)),
			}
		}, 1000},
		"an IPv6 /48": {Quota{}, func(i int) quotaKey {
			return quotaKey{
				fmt.Sprint("t.", i), fmt.Sprint(i), sourceAt(fmt.Sprintf("2001:db8:0:%x::", i)),
			}
		}, 4000},
		"an IPv4 /24 is no address": {Quota{Source: 2}, func(i int) quotaKey {
			return quotaKey{
				fmt.Sprint("t.", i), fmt.Sprint(i), sourceAt(fmt.Sprintf("192.0.2.%d", i%256)),
			}
		}, 512},
		"the total": {Quota{}, func(i int) quotaKey {
			return quotaKey{
				fmt.Sprint("t.", i), fmt.Sprint(i),
				sourceAt(fmt.Sprintf("192.%d.%d.1", i>>8, i&255)),
			}
		}, 10000},
	} {
		q := newQuota(c.quota.withDefaults())
		if name != "a license, alone" {
			other := quotaKey{"other.s", "other", sourceAt("203.0.113.1")}
			q.acquire(other, 1, 0)
			q.release(other, 1, 0)
		}
		const most = 20000
		var held []quotaKey
		for i := range most {
			s := c.next(i)
			if q.acquire(s, 1, 0) == nil {
				break
			}
			held = append(held, s)
		}
		if want := c.want; len(held) != want && (want >= 0 || len(held) != most) {
			t.Errorf("%s: %d are held, want %d", name, len(held), want)
		}
		if q.acquire(
			quotaKey{"other.s", "other", sourceAt("203.0.113.1")},
			1,
			0,
		) == nil != (len(held) == 10000) {
			t.Errorf("%s: another pays", name)
		} else if len(held) != 10000 {
			q.release(quotaKey{"other.s", "other", sourceAt("203.0.113.1")}, 1, 0)
		}
		for _, s := range held {
			q.release(s, 1, 0)
		}
		q.evictRecovered(time.Hour)
		if !q.empty() || len(q.sessions) != 0 {
			t.Errorf("%s: left %d of %d sessions", name, q.total, len(q.sessions))
		}
	}
}

// By default a license has three quarters of the relay while no other license asks for allocations,
// and one quarter from then on.
func TestALicenseHasThreeQuartersWhileItIsAlone(t *testing.T) {
	const day = 24 * time.Hour
	license := func(tenant string, i int) quotaKey {
		return quotaKey{fmt.Sprint(tenant, ".", i), tenant, sourceAt("192.0.2.1")}
	}
	fill := func(q *quota, tenant string, now time.Duration) (held int) {
		for q.acquire(license(tenant, held), 1, now) != nil {
			held++
		}
		for i := range held {
			q.release(license(tenant, i), 1, now)
		}
		return held
	}
	q := newQuota(Quota{Total: 40}.withDefaults())
	// The server's own check of its relay.
	q.acquire(quotaKey{"self.1", selfTenant, sourceAt("127.0.0.1")}, 1, 0)
	for i, step := range []struct {
		tenant string
		now    time.Duration
		want   int
	}{
		{"a", 0, 30},
		{"b", time.Second, 10},
		{"a", time.Second, 10},
		{"b", 2 * time.Second, 10},
		{"c", 3 * time.Second, 10},
		{"a", day, 10},
		{"a", day + 3*time.Second, 30},
		{"b", 2 * day, 10},
		{"a", 2 * day, 10},
	} {
		if got := fill(q, step.tenant, step.now); got != step.want {
			t.Errorf("step %d: %s takes %d, want %d", i, step.tenant, got, step.want)
		}
	}
	q = newQuota(Quota{Total: 40, Tenant: 7}.withDefaults())
	if got := fill(q, "a", 0); got != 7 {
		t.Errorf("a limit that was given: %d, want 7", got)
	}
	q = newQuota(Quota{Total: -1, Source: 60}.withDefaults())
	if got := fill(q, "a", 0); got != 60 {
		t.Errorf("without a total: %d, want 60", got)
	}
}

// A license that fills the relay, right after a restart or after a quiet day, leaves the next
// license its whole share. A check of the relay by its own server finds room as well.
func TestTheNextLicenseFindsItsShareFree(t *testing.T) {
	for total := 2; total < 50; total++ {
		limit := Quota{Total: total, Source: -1}.withDefaults()
		for name, begin := range map[string]time.Duration{
			"restart": 0, "quiet day": 25 * time.Hour,
		} {
			q := newQuota(limit)
			take := func(tenant string, now time.Duration) (held int) {
				for {
					key := quotaKey{
						fmt.Sprint(tenant, ".", held), tenant, sourceAt("192.0.2.1"),
					}
					if q.acquire(key, 1, now) == nil {
						return held
					}
					held++
				}
			}
			if begin > 0 { // others were there, a day ago
				key := quotaKey{"c.s", "c", sourceAt("192.0.2.1")}
				q.acquire(key, 1, 0)
				q.release(key, 1, 0)
			}
			take("public", begin)
			self := quotaKey{"self.1", selfTenant, sourceAt("127.0.0.1")}
			if q.acquire(self, 1, begin) == nil {
				t.Errorf("%s, %d in all: the server's own check finds no room", name, total)
			}
			q.release(self, 1, begin)
			if got := take("next", begin+time.Second); got != limit.Tenant {
				t.Errorf("%s, %d in all: the next license gets %d of its %d",
					name, total, got, limit.Tenant)
			}
		}
	}
}

// A session has its bandwidth once, whatever number of allocations it has, has had, and begins
// anew. The same at random.
func TestBandwidthOfASessionIsShared(t *testing.T) {
	const rate, size = 100_000, 1000 - overhead // a hundred packets a second
	w, _ := offline(64)
	s := w.server
	s.quota.limit.Session = -1 // nor is it limited how often a session allocates
	w.bandwidth, w.sessionBand = byteCostAt(rate), byteCostAt(2*rate)
	random := rand.New(rand.NewPCG(1, 2))
	open := func(port uint16) *allocation { return offlineAllocation(t, w, offlinePath(port)) }
	begin := w.now
	var passed int
	live := []*allocation{open(1)}
	next := uint16(2)
	for range 20_000 {
		switch random.IntN(8) {
		case 0:
			if len(live) < 10 {
				live = append(live, open(next))
				next++
			}
		case 1:
			if len(live) > 0 {
				w.closeAllocation(live[0], closedByRefresh)
				live = live[1:]
			}
		case 2:
			w.now += time.Duration(random.IntN(int(20 * time.Millisecond)))
		default:
			for _, a := range live {
				if w.admitUp(a, size) {
					passed++
				}
			}
		}
	}
	most := int((w.now-begin+burstTime)/time.Second*200) + 200
	if passed > most || passed < most/2 {
		t.Errorf("%d packets in %v, at most %d are allowed", passed, w.now-begin, most)
	}
	for _, a := range live {
		w.closeAllocation(a, closedByRefresh)
	}
	w.now += burstTime
	if !s.quota.empty() {
		t.Error("the quota is not empty")
	}
	w.closeAllocation(open(next), closedByRefresh)
	if len(s.quota.sessions)+len(s.quota.recovering) != 0 {
		t.Errorf("%d sessions rest for ever", len(s.quota.sessions))
	}
}

// What the session's bandwidth refuses is not taken from the allocation's.
func TestRefusedBySessionCostsTheAllocationNothing(t *testing.T) {
	w, _ := offline(4)
	w.bandwidth, w.sessionBand = byteCostAt(1_000_000), byteCostAt(100_000)
	a := offlineAllocation(t, w, offlinePath(1))
	for name, direction := range map[string]struct {
		admit  func(a *allocation, size int) bool
		fullAt func() int64
	}{
		"up":   {w.admitUp, func() int64 { return int64(a.upBucket.fullAt) }},
		"down": {w.admitDown, func() int64 { return int64(a.bucket.Until()) }},
	} {
		dropped := a.dropped[reasonOverBandwidth].Load()
		for direction.admit(a, 1000-overhead) {
		}
		full := direction.fullAt()
		if direction.admit(a, 1000-overhead) || direction.fullAt() != full {
			t.Errorf("%s: the allocation pays for what its session has not", name)
		}
		if got := a.dropped[reasonOverBandwidth].Load() - dropped; got != 2 {
			t.Errorf("%s: %d dropped", name, got)
		}
	}
}

// The cost of a packet is what a division gives, but for a nanosecond.
func TestCostOfAPacket(t *testing.T) {
	for _, bandwidth := range []int{
		1, 7, 1000, 100_000, DefaultBandwidth, 2 * DefaultBandwidth, 1 << 40,
	} {
		cost := byteCostAt(bandwidth)
		for _, size := range []int{0, 1, 160, 1100, 1472, maxDatagram} {
			want := time.Duration(size+overhead) * time.Second / time.Duration(bandwidth)
			if got := cost.of(size); got < want || got > want+1 {
				t.Errorf("%d bytes at %d a second: %v, want %v", size, bandwidth, got, want)
			}
		}
	}
	if got := byteCostAt(-1).of(1100); got != 0 {
		t.Errorf("without a limit: %v", got)
	}
}

// A session whose bandwidth another worker used at the last moment, by a clock that it had read a
// little later, is forgotten all the same.
func TestASessionIsForgottenHoweverLateItsLastPacket(t *testing.T) {
	q := newQuota(Quota{}.withDefaults())
	one := quotaKey{"t.s", "t", sourceAt("192.0.2.1")}
	usage := q.acquire(one, 1, 0)
	usage.down.TakeWithin(0, time.Millisecond, burstTime)
	q.release(one, 1, 0)
	usage.down.TakeWithin(time.Millisecond, burstTime, burstTime)
	for now := time.Duration(0); now < 3*burstTime; now += time.Millisecond {
		q.evictRecovered(now)
	}
	if len(q.sessions)+len(q.recovering) != 0 {
		t.Errorf("%d sessions and %d recovering are kept", len(q.sessions), len(q.recovering))
	}
}

// A session that ends its allocations at once may make as many as the rate allows, and has no more
// by being forgotten in between.
func TestAllocationsOfASessionAreLimitedInTime(t *testing.T) {
	q := newQuota(Quota{}.withDefaults())
	one := quotaKey{"t.s", "t", sourceAt("192.0.2.1")}
	other := quotaKey{"t.other", "t", sourceAt("192.0.2.1")}
	made := 0
	for now := time.Duration(0); now < time.Minute; now += 10 * time.Millisecond {
		if q.acquire(one, 1, now) != nil {
			made++
			q.release(one, 1, now)
		}
		if len(q.recovering) > 1 {
			t.Fatalf("one session is listed %d times", len(q.recovering))
		}
	}
	if made != 256+4*60-1 && made != 256+4*60 {
		t.Errorf("%d in a minute", made)
	}
	if q.acquire(other, 1, time.Minute) == nil {
		t.Error("another session has none left")
	}
	q.release(other, 1, time.Minute)
	q.evictRecovered(3 * time.Minute)
	q.evictRecovered(4 * time.Minute)
	if len(q.sessions)+len(q.recovering) != 0 {
		t.Errorf("%d sessions and %d recovering are kept", len(q.sessions), len(q.recovering))
	}
}
