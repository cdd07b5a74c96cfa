//go:build chaos

package interop_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/barrier"
	"github.com/latchkey-go/latchkey/recipes/cache"
	"github.com/latchkey-go/latchkey/recipes/counter"
	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/recipes/lock"
	"github.com/latchkey-go/latchkey/recipes/membership"
)

// chaosGrip is what the handles of locks, permits and leaderships have in common.
type chaosGrip interface {
	Context() context.Context
	Valid() bool
	Txn() *client.GuardedTxn
	Release(ctx context.Context) error
}

// chaosTerm gives a leadership the names of a lock.
type chaosTerm struct{ *election.Leadership[string] }

func (t chaosTerm) Release(ctx context.Context) error { return t.Resign(ctx) }

func (p *chaosClient) lockWork(rng *rand.Rand) {
	l := lock.New(p.c, "lock")
	for p.stop.Err() == nil {
		h, err := l.Acquire(p.stop)
		if p.failed("lock", err, rng) {
			continue
		}
		p.hold(h, chaosEvent{Name: "lock", Token: uint64(h.Token()), Weight: 1}, rng)
	}
}

func (p *chaosClient) rwWork(rng *rand.Rand) {
	l := lock.NewRW(p.c, "rw")
	for p.stop.Err() == nil {
		if rng.IntN(3) > 0 {
			h, err := l.RLock(p.stop)
			if !p.failed("rw", err, rng) {
				p.hold(h, chaosEvent{Name: "rw", Weight: 1}, rng)
			}
			continue
		}
		h, err := l.Lock(p.stop)
		if !p.failed("rw", err, rng) {
			p.hold(h, chaosEvent{Name: "rw", Token: uint64(h.Token()), Weight: chaosParties}, rng)
		}
	}
}

func (p *chaosClient) semaphoreWork(rng *rand.Rand) {
	s := lock.NewSemaphore(p.c, "semaphore", chaosPermits)
	for p.stop.Err() == nil {
		h, err := s.Acquire(p.stop, 1+rng.Int64N(2))
		if !p.failed("semaphore", err, rng) {
			p.hold(h, chaosEvent{Name: "semaphore", Weight: h.Permits()}, rng)
		}
	}
}

func (p *chaosClient) electionWork(rng *rand.Rand) {
	e := election.New[string](p.c, "election")
	for p.stop.Err() == nil {
		l, err := e.Campaign(p.stop, p.name())
		if !p.failed("election", err, rng) {
			p.hold(chaosTerm{l}, chaosEvent{Name: "election", Token: uint64(l.Term()), Weight: 1}, rng)
		}
	}
}

// observeWork tells who leads, as seen from outside.
func (p *chaosClient) observeWork(*rand.Rand) {
	for leader, err := range election.New[string](p.c, "election").Observe(p.stop) {
		switch {
		case err != nil && p.stop.Err() == nil:
			p.log(chaosEvent{What: "wrong", Text: "observing ended: " + err.Error()})
		case err == nil && !leader.Vacant:
			p.log(chaosEvent{What: "leader", Name: leader.Value, Token: uint64(leader.Term)})
		}
	}
}

// failed records an error of an acquisition; the work goes on.
func (p *chaosClient) failed(name string, err error, rng *rand.Rand) bool {
	if err == nil {
		return false
	}
	if p.stop.Err() == nil {
		p.log(chaosEvent{What: "failed", Name: name, Text: err.Error()})
		p.pause(rng, 50*time.Millisecond)
	}
	return true
}

// hold keeps what was acquired for a while, writes to the store that its token guards, and gives it back. Its log says from when to when the handle was
// valid: a moment counts if Valid was true after it, so a process that was stopped in between can not claim what it no longer had.
func (p *chaosClient) hold(h chaosGrip, e chaosEvent, rng *rand.Rand) {
	e.What = "hold"
	written := make(chan struct{})
	go func() {
		defer close(written)
		p.write(h.Txn(), e, "write")
	}()
	end := time.After(time.Duration(5+rng.IntN(60)) * time.Millisecond)
	valid := true
	for over := false; !over && valid; {
		select {
		case <-end:
			over = true
		case <-time.After(time.Millisecond):
		}
		at := chaosNow()
		if valid = h.Valid(); valid {
			if e.From == 0 {
				e.From = at
				p.log(chaosEvent{What: "take", Name: e.Name, Token: e.Token})
			}
			e.To = at
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
	defer cancel()
	if valid {
		<-written
		at := chaosNow()
		if valid = h.Valid(); valid {
			e.To = at
		}
	}
	if e.From != 0 {
		p.log(e)
	}
	if !valid {
		<-h.Context().Done() // a handle that is not valid and whose context stays keeps the client from ending
		<-written
		p.log(chaosEvent{What: "lost", Name: e.Name, Text: context.Cause(h.Context()).Error()})
		p.write(h.Txn(), e, "late") // is refused once the lease has ended, which may be later; the store's order is what counts
	}
	_ = h.Release(ctx) // of one that was lost, an error
}

// write writes the token to the guarded store, of those who are alone.
func (p *chaosClient) write(txn *client.GuardedTxn, e chaosEvent, what string) {
	if e.Token == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
	defer cancel()
	_, err := txn.Then(client.OpPut("store/"+e.Name, strconv.AppendUint(nil, e.Token, 10))).Commit(ctx)
	result := "done"
	switch {
	case errors.Is(err, lock.ErrLost), errors.Is(err, election.ErrLost):
		result = "refused"
	case err != nil:
		result = "unknown"
	}
	p.log(chaosEvent{What: what + ": " + result, Name: e.Name, Token: e.Token})
}

// shareWork is a member of a group that shares two items out, and leaves it now and then.
func (p *chaosClient) shareWork(rng *rand.Rand) {
	for p.stop.Err() == nil {
		m, err := membership.Join(p.stop, p.c, "group", p.name(), p.id, membership.WithWait())
		if p.failed("group", err, rng) {
			continue
		}
		run, cancel := context.WithTimeout(p.stop, time.Duration(500+rng.IntN(2000))*time.Millisecond)
		err = membership.NewPartitioner(m, []string{"a", "b"}).Run(run, func(ctx context.Context, s *membership.Share) error {
			p.holdShare(ctx, s)
			return nil
		})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			p.failed("group", err, rng)
		}
		ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
		_ = m.Leave(ctx) // of one that was lost, an error
		cancel()
	}
}

// holdShare keeps an item until it is to be given away.
func (p *chaosClient) holdShare(ctx context.Context, s *membership.Share) {
	e := chaosEvent{What: "hold", Name: "group/" + s.Item(), Token: uint64(s.Token()), Weight: 1}
	p.write(s.Txn(), e, "write")
	for ctx.Err() == nil {
		at := chaosNow()
		if s.Valid() {
			if e.From == 0 {
				e.From = at
				p.log(chaosEvent{What: "take", Name: e.Name, Token: e.Token})
			}
			e.To = at
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
	if e.From != 0 {
		p.log(e)
	}
	if cause := context.Cause(ctx); errors.Is(cause, lock.ErrLost) {
		p.log(chaosEvent{What: "lost", Name: e.Name, Text: cause.Error()})
		p.write(s.Txn(), e, "late")
	}
}

// barrierWork is a member of the barrier, under a new name whenever it has joined anew.
func (p *chaosClient) barrierWork(rng *rand.Rand) {
	for n := 0; p.stop.Err() == nil; n++ {
		member := fmt.Sprintf("%s.%d", p.name(), n)
		party, err := barrier.NewCyclic(p.c, "barrier", chaosParties, barrier.WithMember(member)).Join(p.stop)
		if p.failed("barrier", err, rng) {
			continue
		}
		for p.stop.Err() == nil {
			from := chaosNow()
			p.log(chaosEvent{What: "arrive", Name: member, From: from})
			a, err := party.Await(p.stop)
			if p.failed("barrier", err, rng) {
				break
			}
			p.log(chaosEvent{What: "pass", Name: member, From: from, To: chaosNow(), Generation: a.Generation, Token: uint64(a.Token), Members: a.Members})
			p.pause(rng, 20*time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
		_ = party.Leave(ctx) // of one that was broken, an error
		cancel()
	}
}

// counterWork adds numbers of which each outcome is known, or known not to be.
func (p *chaosClient) counterWork(rng *rand.Rand) {
	n := counter.NewInt64(p.c, "counter")
	for p.stop.Err() == nil {
		d := 1 + rng.Int64N(9)
		ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
		sum, err := n.Add(ctx, d)
		cancel()
		switch {
		case err == nil:
			p.log(chaosEvent{What: "add", N: d, Sum: sum})
		case errors.Is(err, client.ErrUncertain):
			p.log(chaosEvent{What: "add: unknown", N: d})
		default:
			p.log(chaosEvent{What: "add: failed", N: d, Text: err.Error()})
		}
		p.pause(rng, 40*time.Millisecond)
	}
}

// cacheWork changes what all caches follow.
func (p *chaosClient) cacheWork(rng *rand.Rand) {
	for n := 0; p.stop.Err() == nil; n++ {
		key := fmt.Sprintf("cache/%d/%d", p.id, rng.IntN(8))
		ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
		var err error
		if rng.IntN(4) == 0 {
			_, err = p.c.Delete(ctx, key)
		} else {
			_, err = p.c.Put(ctx, key, strconv.AppendQuote(nil, fmt.Sprint(n)))
		}
		cancel()
		if err == nil {
			p.log(chaosEvent{What: "put"})
		}
		p.pause(rng, 40*time.Millisecond)
	}
}

// follow holds that the cache never goes back: neither its revision, nor a key's.
func (p *chaosClient) follow(copied *cache.Cache[string]) {
	var events, newest client.Revision
	keys := map[string]client.Revision{}
	for e, err := range copied.Events(p.stop) {
		if err != nil {
			if p.stop.Err() == nil {
				p.log(chaosEvent{What: "wrong", Text: "events ended: " + err.Error()})
			}
			return
		}
		rev := copied.Rev()
		if e.Rev < events || rev < newest || e.Rev > rev {
			p.log(chaosEvent{What: "wrong", Text: fmt.Sprintf("the cache went from revision %d, event %d, to %d, %d", newest, events, rev, e.Rev)})
		}
		events, newest = e.Rev, rev
		for _, change := range append(e.Diff, e) {
			if change.New.Revision == 0 {
				continue
			}
			if change.New.Revision <= keys[change.Key] {
				p.log(chaosEvent{What: "wrong", Text: fmt.Sprintf("%s went from revision %d to %d", change.Key, keys[change.Key], change.New.Revision)})
			}
			keys[change.Key] = change.New.Revision
		}
		p.log(chaosEvent{What: "event: " + e.Type.String()})
	}
}
