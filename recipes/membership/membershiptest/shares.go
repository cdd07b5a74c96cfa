package membershiptest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
	"github.com/latchkey-go/latchkey/recipes/membership"
)

// ledger is who serves which item, as the functions themselves see it.
type ledger struct {
	t       *testing.T
	mu      sync.Mutex                   // protects what follows
	serves  map[string]string            // item to member
	tokens  map[string]fence.Token       // the largest of each item
	share   map[string]*membership.Share // the last of each item
	moves   int
	changed chan struct{} // closed and replaced at each change
}

func newLedger(t *testing.T) *ledger {
	return &ledger{
		t: t, serves: make(map[string]string), tokens: make(map[string]fence.Token),
		share: make(map[string]*membership.Share), changed: make(chan struct{}),
	}
}

// begin notes that a member serves an item, which nobody else may.
func (l *ledger) begin(id string, s *membership.Share) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other := l.serves[s.Item()]; other != "" {
		l.t.Errorf("%s serves %s, and so does %s", id, s.Item(), other)
	}
	if s.Token() <= l.tokens[s.Item()] {
		l.t.Errorf("%s has %s with token %d after %d", id, s.Item(), s.Token(), l.tokens[s.Item()])
	}
	l.serves[s.Item()], l.tokens[s.Item()], l.share[s.Item()] = id, s.Token(), s
	l.moves++
	l.announceLocked()
}

func (l *ledger) over(s *membership.Share) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.serves, s.Item())
	l.announceLocked()
}

func (l *ledger) announceLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// await waits until the items are served so that ok is satisfied. It returns how
// many each member has.
func (l *ledger) await(h *harness, ok func(serves map[string]string) bool) map[string]int {
	l.t.Helper()
	for {
		l.mu.Lock()
		changed, satisfied := l.changed, ok(l.serves)
		count := make(map[string]int)
		for _, id := range l.serves {
			count[id]++
		}
		l.mu.Unlock()
		if satisfied {
			return count
		}
		select {
		case <-changed:
		case <-h.ctx.Done():
			l.t.Fatalf("the items are served like this: %v", l.serves)
		}
	}
}

// by says whether n items are served, by all of these members and nobody else.
func by(n int, members ...string) func(map[string]string) bool {
	return func(serves map[string]string) bool {
		seen := make(map[string]bool)
		for _, id := range serves {
			seen[id] = true
		}
		for _, id := range members {
			if !seen[id] {
				return false
			}
		}
		return len(serves) == n && len(seen) == len(members)
	}
}

// partaker is a member that runs a partitioner.
type partaker struct {
	h    *harness
	m    *member
	stop context.CancelFunc
	done chan error
}

// serve is what members do with a share in most cases.
func (l *ledger) serve(id string) func(context.Context, *membership.Share) error {
	return func(ctx context.Context, s *membership.Share) error {
		l.begin(id, s)
		defer l.over(s)
		<-ctx.Done()
		return ctx.Err()
	}
}

func items(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("shard-%d", i))
	}
	return out
}

func (h *harness) partake(m *member, items []string, fn func(context.Context, *membership.Share) error) *partaker {
	ctx, cancel := context.WithCancel(h.ctx)
	p := &partaker{h: h, m: m, stop: cancel, done: make(chan error, 1)}
	go func() { p.done <- membership.NewPartitioner(m, items).Run(ctx, fn) }()
	h.t.Cleanup(func() { cancel() })
	return p
}

// end ends the run, and the membership.
func (p *partaker) end() {
	p.h.t.Helper()
	p.stop()
	require.ErrorIs(p.h.t, <-p.done, context.Canceled)
	p.h.leave(p.m)
}

// All items are served, each by one, and about as many by each; a member that comes
// or goes moves its own only.
func testSpread(t *testing.T, h *harness) {
	const n = 60
	l := newLedger(t)
	h.join(h.c, "spectator") // does not run a partitioner, and gets nothing
	var all []*partaker
	for i, id := range []string{"a", "b", "c"} {
		all = append(all, h.partake(h.join(h.client(client.Config{}), id), items(n), l.serve(id)))
		l.await(h, by(n, []string{"a", "b", "c"}[:i+1]...))
	}
	count := l.await(h, by(n, "a", "b", "c"))
	t.Logf("%v", count)
	for id, c := range count {
		require.InDelta(t, n/3, c, n/6, id)
	}
	l.mu.Lock()
	moved := l.moves - n
	l.moves = 0
	l.mu.Unlock()
	require.Less(t, moved, n*3/2, "n/2 for the second, n/3 for the third")
	h.awaitKeys("team.shares/", n)

	all[1].end()
	l.await(h, by(n, "a", "c"))
	l.mu.Lock()
	require.Equal(t, count["b"], l.moves, "nobody else's items have moved")
	l.mu.Unlock()
	all[0].end()
	l.await(h, by(n, "c"))
	all[2].end()
	h.awaitKeys("team.shares/", 0)
}

// A member that is asked to let go takes its time: nobody has the item before.
func testReleaseBeforeAcquire(t *testing.T, h *harness) {
	l := newLedger(t)
	finish, asked := make(chan struct{}), make(chan string, 10)
	slow := h.partake(h.join(h.client(client.Config{}), "a"), items(10), func(ctx context.Context, s *membership.Share) error {
		l.begin("a", s)
		defer l.over(s)
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), membership.ErrMoved) {
			asked <- s.Item()
			<-finish
			if !s.Valid() {
				t.Error("it is ours until we return")
			}
			if _, err := s.Txn().Then(client.OpPut("done/"+s.Item(), nil)).Commit(h.ctx); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	l.await(h, by(10, "a"))
	quick := h.partake(h.join(h.client(client.Config{}), "b"), items(10), l.serve("b"))
	item := <-asked
	l.await(h, func(serves map[string]string) bool { return serves[item] == "a" })
	h.awaitKeys("team.shares/"+item+"/", 2) // b waits
	l.await(h, func(serves map[string]string) bool { return serves[item] == "a" })
	close(finish)
	l.await(h, by(10, "a", "b"))
	quick.end()
	l.await(h, by(10, "a"))
	slow.end()
}

// The server ends the lease of a member, as it does when it is cut off: the others
// take over, and it takes part again with its next session.
func testCrash(t *testing.T, h *harness) {
	l := newLedger(t)
	c := h.client(client.Config{SessionTTL: shortTTL})
	a := h.partake(h.join(c, "a"), items(12), l.serve("a"))
	b := h.partake(h.join(h.client(client.Config{}), "b"), items(12), l.serve("b"))
	l.await(h, by(12, "a", "b"))
	s, err := c.Session(h.ctx)
	require.NoError(t, err)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	l.await(h, func(serves map[string]string) bool { return by(12, "b")(serves) })
	l.await(h, by(12, "a", "b"))
	a.end()
	b.end()
}

// A member that does not learn of its loss is stopped by the token and by the
// guard.
func testStaleHolder(t *testing.T, h *harness) {
	l := newLedger(t)
	s, err := h.c.NewSession(h.ctx)
	require.NoError(t, err)
	suspended := make(chan struct{})
	a := h.partake(h.join(h.c, "a", membership.WithSession(s)), items(1), func(_ context.Context, s *membership.Share) error {
		l.begin("a", s)
		l.over(s)
		<-suspended
		return nil
	})
	l.await(h, func(map[string]string) bool { return l.moves == 1 })
	old := l.share["shard-0"]
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	b := h.partake(h.join(h.client(client.Config{}), "b"), items(1), l.serve("b"))
	l.await(h, by(1, "b"))
	require.Greater(t, l.share["shard-0"].Token(), old.Token())
	_, err = old.Txn().Then(client.OpPut("file", []byte("old"))).Commit(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)
	_, err = l.share["shard-0"].Txn().Then(client.OpPut("file", []byte("new"))).Commit(h.ctx)
	require.NoError(t, err)
	close(suspended)
	require.ErrorIs(t, <-a.done, client.ErrSessionLost)
	b.end()
}

// Members come and go all the time; no item is ever served twice at once, and in
// the end all are served.
func testChurn(t *testing.T, h *harness) {
	const n, rounds = 16, 12
	l := newLedger(t)
	stays := h.partake(h.join(h.client(client.Config{}), "stays"), items(n), l.serve("stays"))
	var churn sync.WaitGroup
	for i := range 3 {
		id := fmt.Sprintf("comes-%d", i)
		c := h.client(client.Config{})
		churn.Go(func() {
			for range rounds {
				m, err := membership.Join(h.ctx, c, "team", id, tags{})
				if err != nil {
					t.Error(err)
					return
				}
				p := h.partake(m, items(n), l.serve(id))
				l.await(h, func(serves map[string]string) bool {
					for _, who := range serves {
						if who == id {
							return true
						}
					}
					return false
				})
				p.stop()
				<-p.done
				if err := m.Leave(h.ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	churn.Wait()
	l.await(h, by(n, "stays"))
	require.Greater(t, l.moves, n+2*rounds)
	stays.end()
	h.awaitKeys("team", 0)
}

func testEnds(t *testing.T, h *harness) {
	m := h.join(h.c, "a")
	failed := errors.New("broken")
	p := membership.NewPartitioner(m, items(3))
	err := p.Run(h.ctx, func(ctx context.Context, s *membership.Share) error {
		token, ok := fence.FromContext(ctx, "team.shares/"+s.Item())
		require.True(t, ok)
		require.Equal(t, s.Token(), token)
		if s.Item() == "shard-1" {
			return failed
		}
		<-ctx.Done()
		return nil
	})
	require.Equal(t, failed, err)
	h.awaitKeys("team.shares/", 0)
	require.True(t, m.Present(), "the membership goes on")

	// A function that has nothing more to do keeps its item, though others wait.
	called := make(chan fence.Token, 10)
	part := h.partake(m, items(1), func(_ context.Context, s *membership.Share) error {
		called <- s.Token()
		return nil
	})
	token := <-called
	waits := make(chan error)
	go func() {
		held, err := lock.New(h.client(client.Config{}), "team.shares/shard-0").Acquire(h.ctx)
		if err == nil {
			err = held.Release(h.ctx)
		}
		waits <- err
	}()
	h.awaitKeys("team.shares/shard-0/", 2)
	info, err := lock.Inspect(h.ctx, h.c, "team.shares/shard-0")
	require.NoError(t, err)
	require.Equal(t, token, info.Holders[0].Token)
	require.Equal(t, "a", info.Holders[0].Owner)
	h.leave(m)
	require.ErrorIs(t, <-part.done, membership.ErrLeft)
	require.NoError(t, <-waits)
	require.Empty(t, called)
	h.awaitKeys("team", 0)
	require.ErrorIs(t, p.Run(h.ctx, nil), membership.ErrLeft)
}

func testItems(t *testing.T, h *harness) {
	m := h.join(h.c, "a")
	for _, bad := range [][]string{{""}, {"a/b"}, {"a", "a"}} {
		require.ErrorIs(t, membership.NewPartitioner(m, bad).Run(h.ctx, nil), membership.ErrName)
	}
	require.ErrorIs(t, membership.NewPartitioner(m, items(1025)).Run(h.ctx, nil), membership.ErrTooManyItems)
	require.ErrorIs(t, membership.NewPartitioner(m, []string{"read"}).Run(h.ctx, nil), lock.ErrName)
	h.leave(m)
}
