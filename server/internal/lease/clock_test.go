package lease

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var start = time.Unix(1_000_000, 0)

// model is the clock as one would write it without a care for speed.
type model struct {
	running  bool
	now      time.Time
	deadline map[int64]time.Time
	ttl      map[int64]time.Duration
	expiring map[int64]bool
}

func newModel() *model {
	return &model{now: start, deadline: map[int64]time.Time{}, ttl: map[int64]time.Duration{}, expiring: map[int64]bool{}}
}

func (m *model) clear() {
	clear(m.deadline)
	clear(m.ttl)
	clear(m.expiring)
}

func (m *model) grant(id int64, ttl time.Duration) {
	m.ttl[id], m.deadline[id] = ttl, m.now.Add(ttl)
	delete(m.expiring, id)
}

func (m *model) revoke(id int64) {
	delete(m.ttl, id)
	delete(m.deadline, id)
	delete(m.expiring, id)
}

func (m *model) due() []int64 {
	var ids []int64
	for id, d := range m.deadline {
		if !m.expiring[id] && !d.After(m.now) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b int64) int {
		if c := m.deadline[a].Compare(m.deadline[b]); c != 0 {
			return c
		}
		return cmp.Compare(a, b)
	})
	return ids
}

// check compares everything that the clock shows, and its invariants.
func (m *model) check(t require.TestingT, c *Clock) {
	require.Equal(t, len(m.deadline), c.Len())
	first := time.Time{}
	for id, d := range m.deadline {
		left, ok := c.Remaining(id, m.now)
		require.True(t, ok)
		want := max(0, d.Sub(m.now))
		if m.expiring[id] {
			want = 0
		} else if first.IsZero() || d.Before(first) {
			first = d
		}
		require.Equal(t, want, left)
	}
	next, ok := c.Next()
	if !first.IsZero() {
		require.True(t, ok)
		require.False(t, next.After(first), "Next must not be later than the first deadline")
	}
	require.NoError(t, c.check())
}

// check tells the first invariant of the type's comment that does not hold.
func (c *Clock) check() error {
	entries := make(map[uint32]int)
	for i, e := range c.queue {
		entries[e.slot]++
		if i > 0 && e.before(c.queue[(i-1)/arity]) {
			return fmt.Errorf("entry %d is before its parent", i)
		}
		if e.at > c.records[e.slot].deadline && c.records[e.slot].phase == live {
			return fmt.Errorf("entry %d is later than the deadline of lease %d", i, e.id)
		}
	}
	var ids, deadRecords int
	for slot, r := range c.records {
		want := map[phase]int{live: 1, dead: 1}[r.phase]
		if entries[uint32(slot)] != want {
			return fmt.Errorf("slot %d in phase %d has %d entries", slot, r.phase, entries[uint32(slot)])
		}
		switch r.phase {
		case live, expiring:
			ids++
			if s, ok := c.byID[r.id]; !ok || s != uint32(slot) {
				return fmt.Errorf("lease %d is at slot %d and known at %d", r.id, slot, s)
			}
		case dead:
			deadRecords++
		}
	}
	if ids != len(c.byID) || deadRecords != c.dead {
		return fmt.Errorf("%d leases, %d ids, %d dead, counted %d", ids, len(c.byID), deadRecords, c.dead)
	}
	return nil
}

// Any sequence of calls shows what a map of deadlines shows.
func TestClockIsAMapOfDeadlines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, m := New(), newModel()
		id := rapid.Int64Range(1, 12)
		ttl := rapid.SampledFrom([]time.Duration{0, 1, time.Millisecond, 50 * time.Millisecond, time.Second, 3 * time.Second, 9_000_000_000 * time.Second})
		t.Repeat(map[string]func(*rapid.T){
			"promote": func(t *rapid.T) {
				m.running = true
				m.clear()
				var leases []Lease
				for _, id := range rapid.SliceOfNDistinct(id, 0, 12, rapid.ID).Draw(t, "ids") {
					leases = append(leases, Lease{ID: id, TTL: ttl.Draw(t, "ttl")})
					m.grant(id, leases[len(leases)-1].TTL)
				}
				c.Promote(leases, m.now)
			},
			"demote": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
					return
				}
				m.running = false
				m.clear()
				c.Demote()
			},
			"grant": func(t *rapid.T) {
				id, ttl := id.Draw(t, "id"), ttl.Draw(t, "ttl")
				if m.running {
					m.grant(id, ttl)
				}
				c.Grant(id, ttl, m.now)
			},
			"revoke": func(t *rapid.T) {
				id := id.Draw(t, "id")
				m.revoke(id)
				c.Revoke(id)
			},
			"renew": func(t *rapid.T) {
				id := id.Draw(t, "id")
				want, known := m.ttl[id]
				ok := known && !m.expiring[id]
				got, renewed := c.Renew(id, m.now)
				require.Equal(t, ok, renewed)
				if ok {
					require.Equal(t, want, got)
					m.deadline[id] = later64(m.deadline[id], m.now.Add(want))
				}
			},
			"due": func(t *rapid.T) {
				limit := rapid.IntRange(0, 5).Draw(t, "limit")
				want := m.due()
				want = want[:min(limit, len(want))]
				got := c.Due(m.now, limit)
				require.Equal(t, append([]int64{}, want...), append([]int64{}, got...))
				for _, id := range got {
					m.expiring[id] = true
				}
			},
			"restore": func(t *rapid.T) {
				ids := rapid.SliceOfN(id, 0, 4).Draw(t, "ids")
				c.Restore(ids)
				for _, id := range ids {
					delete(m.expiring, id)
				}
			},
			"time passes": func(t *rapid.T) {
				m.now = m.now.Add(rapid.SampledFrom([]time.Duration{1, time.Millisecond, 70 * time.Millisecond, time.Second}).Draw(t, "by"))
			},
			"": func(t *rapid.T) { m.check(t, c) },
		})
	})
}

func later64(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// A renewal that is handed an older time than an earlier one must not bring the end nearer.
func TestRenewNeverShortens(t *testing.T) {
	c := New()
	c.Promote([]Lease{{ID: 1, TTL: time.Second}}, start)
	c.Renew(1, start.Add(5*time.Second))
	c.Renew(1, start.Add(time.Second))
	require.Empty(t, c.Due(start.Add(6*time.Second-1), 10))
	require.Equal(t, []int64{1}, c.Due(start.Add(6*time.Second), 10))
}

// A time to live beyond what a deadline can hold is cut at the end of time, which is centuries away.
func TestDeadlineDoesNotOverflow(t *testing.T) {
	c := New()
	c.Promote([]Lease{{ID: 1, TTL: math.MaxInt64}}, start)
	c.Renew(1, start.Add(time.Hour))
	require.Empty(t, c.Due(start.Add(1000*time.Hour), 10))
}

// Between the proposal of an expiry and its end in the log, the lease may not be renewed and is not named again; it
// runs on only when the proposal died.
func TestExpiringLease(t *testing.T) {
	c := New()
	c.Promote([]Lease{{ID: 7, TTL: time.Second}}, start)
	now := start.Add(time.Second)
	require.Equal(t, []int64{7}, c.Due(now, 10))
	require.Empty(t, c.Due(now, 10))
	_, ok := c.Renew(7, now)
	require.False(t, ok)
	require.Equal(t, []int64{7}, c.Expiring([]int64{8, 7}))

	c.Restore([]int64{7, 8})
	require.Empty(t, c.Expiring([]int64{7, 8}))
	_, ok = c.Renew(7, now)
	require.True(t, ok)
	require.Empty(t, c.Due(now, 10))
	require.Equal(t, []int64{7}, c.Due(now.Add(time.Second), 10))

	c.Revoke(7)
	c.Restore([]int64{7})
	require.Zero(t, c.Len())
	require.Empty(t, c.Due(now.Add(time.Hour), 10))
}

// Leases that are granted and revoked at once must not leave their heap entries behind until they would have ended.
func TestRevokedLeasesAreForgotten(t *testing.T) {
	c := New()
	c.Promote(nil, start)
	for id := int64(1); id <= 10_000; id++ {
		c.Grant(id, time.Hour, start)
		c.Revoke(id)
	}
	require.Less(t, len(c.queue), 10)
	require.Less(t, len(c.records), 10)
	require.NoError(t, c.check())
}

// After a promotion all leases surface at one instant. The call that meets them does a bounded part of the work, says
// by Next that there is more, and later calls finish it.
func TestMassRenewalIsMovedInBoundedSteps(t *testing.T) {
	const n = 3*staleStepsMax + 17
	leases := make([]Lease, n)
	for i := range leases {
		leases[i] = Lease{ID: int64(i + 1), TTL: time.Second}
	}
	c := New()
	c.Promote(leases, start)
	for i := range leases[:n-1] {
		_, ok := c.Renew(leases[i].ID, start.Add(500*time.Millisecond))
		require.True(t, ok)
	}
	now := start.Add(time.Second)
	calls, ids := 0, []int64(nil)
	for {
		next, ok := c.Next()
		require.True(t, ok)
		if next.After(now) {
			break
		}
		ids = append(ids, c.Due(now, 100)...)
		calls++
	}
	require.Equal(t, []int64{n}, ids, "only the lease that was not renewed")
	require.Equal(t, 4, calls)
	require.NoError(t, c.check())
}

func benchmarkClock(n int) *Clock {
	leases := make([]Lease, n)
	for i := range leases {
		leases[i] = Lease{ID: int64(i)*0x5851f42d4c957f2d&math.MaxInt64 + 1, TTL: 10 * time.Second}
	}
	c := New()
	c.Promote(leases, start)
	return c
}

func sizes(b *testing.B, f func(b *testing.B, n int)) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { f(b, n) })
	}
}

func BenchmarkRenew(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		c := benchmarkClock(n)
		now, i := start, 0
		b.ReportAllocs()
		for b.Loop() {
			i = (i + 7919) % n
			now = now.Add(time.Microsecond)
			c.Renew(c.records[i].id, now)
		}
	})
}

// One turn of the clock under load: every lease renewed once in its time to live, and the heap kept up.
func BenchmarkRenewAndDue(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		c := benchmarkClock(n)
		step := 10 * time.Second / time.Duration(n)
		now, i := start, 0
		b.ReportAllocs()
		for b.Loop() {
			i = (i + 1) % n
			now = now.Add(step)
			c.Renew(c.records[i].id, now)
			if i%1000 == 0 && len(c.Due(now.Add(-time.Second), 1000)) > 0 {
				b.Fatal("a renewed lease ended")
			}
		}
	})
}

func BenchmarkPromote(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		leases := make([]Lease, n)
		for i := range leases {
			leases[i] = Lease{ID: int64(i)*0x5851f42d4c957f2d&math.MaxInt64 + 1, TTL: 10 * time.Second}
		}
		c := New()
		for b.Loop() {
			c.Promote(leases, start)
		}
	})
}

func BenchmarkBytesPerLease(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		before := inUse()
		c := benchmarkClock(n)
		after := inUse()
		for b.Loop() {
			c.Next()
		}
		b.ReportMetric(float64(after-before)/float64(n), "bytes/lease")
	})
}

func inUse() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
