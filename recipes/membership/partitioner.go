package membership

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/rendezvous"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

const (
	// itemsMax bounds the items of a Partitioner: each that is held is a lock.
	itemsMax = 1024
	// releaseTimeout bounds how long a release is waited for. It goes on.
	releaseTimeout = 5 * time.Second
)

var (
	// ErrMoved is the cause with which a share ends that belongs to another member
	// now.
	ErrMoved = errors.New("item belongs to another member")
	// ErrTooManyItems: a Partitioner has at most 1,024 items.
	ErrTooManyItems = errors.New("too many items")
)

// Share is an item that is ours, once: when it comes back later, it is another
// Share. It is safe for concurrent use.
type Share struct {
	item string
	held *lock.Held
}

// Item returns the item's name.
func (s *Share) Item() string { return s.item }

// Token returns the fencing token, larger than that of everybody who had the item
// before.
func (s *Share) Token() fence.Token { return s.held.Token() }

// Valid says whether the share can be relied on at this moment. It is a cheap, local
// call: make it right before each side effect.
func (s *Share) Valid() bool { return s.held.Valid() }

// Remaining returns for how long the share can be relied on if the cluster can not
// be reached from now on.
func (s *Share) Remaining() time.Duration { return s.held.Remaining() }

// Guard returns the condition that holds exactly as long as the share is held, for
// transactions.
func (s *Share) Guard() client.Compare { return s.held.Guard() }

// Txn starts a transaction that is executed only while the share is held, however
// late it arrives: otherwise, Commit returns an error that is [lock.ErrLost].
func (s *Share) Txn() *client.GuardedTxn { return s.held.Txn() }

// Partitioner shares items out among those members of a group that run one. All must
// have the same items. It is safe for concurrent use.
type Partitioner[M any] struct {
	member *Member[M]
	items  []string
	err    error // what is wrong with the items; Run returns it
}

// NewPartitioner returns a partitioner of items for a member. It does nothing yet;
// items that can not be used make Run return an error: more than 1,024
// ([ErrTooManyItems]), or a name that is empty, contains "/" or is twice there
// ([ErrName]).
func NewPartitioner[M any](m *Member[M], items []string) *Partitioner[M] {
	p := &Partitioner[M]{member: m, items: items}
	seen := make(map[string]bool, len(items))
	for _, item := range items {
		if err := checkPart(item); err != nil {
			p.err = err
		}
		if seen[item] {
			p.err = fmt.Errorf("item %q is there twice: %w", item, ErrName)
		}
		seen[item] = true
	}
	if len(items) > itemsMax {
		p.err = ErrTooManyItems
	}
	return p
}

// Run takes part in the sharing until ctx or the membership ends, and calls fn for
// each item while that is ours, on a goroutine of its own. The context of fn ends
// when the item belongs to another member (its cause is [ErrMoved]), when it is
// lost (a [*lock.LostError]), or with Run; it carries the token, see
// [fence.FromContext]. The item is given away only when fn has returned.
//
// fn is to work until then. If it returns nil before, the item stays ours, and
// nothing is called for it; if it returns an error before, Run ends with that error.
//
// Run returns when no fn runs any more and all items are given away, with why it
// ended: the error of ctx or of fn, [ErrLeft], or another cause of the member's
// context.
func (p *Partitioner[M]) Run(ctx context.Context, fn func(ctx context.Context, s *Share) error) error {
	if p.err != nil {
		return p.err
	}
	r := &running[M]{p: p, fn: fn, caller: ctx, workers: make(map[string]*worker), leaving: make(map[string]*worker)}
	r.ctx, r.end = context.WithCancelCause(ctx)
	defer r.end(nil)
	defer context.AfterFunc(p.member.ctx, func() { r.end(context.Cause(p.member.ctx)) })()
	err := p.takePart(r.ctx, true)
	switch {
	case err == nil:
		err = r.follow()
	case r.ctx.Err() != nil:
		err = r.why()
	}
	r.end(err)
	r.all.Wait()
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if p.member.ctx.Err() == nil {
		// The others take us for one who shares until they hear otherwise, and wait
		// for the items: so an error is worth telling.
		if stopped := p.takePart(leaving, false); stopped != nil && p.member.ctx.Err() == nil {
			err = errors.Join(err, stopped)
		}
	}
	return err
}

// takePart tells the others whether we share the work.
func (p *Partitioner[M]) takePart(ctx context.Context, yes bool) error {
	return p.member.change(ctx, func(r record) ([]byte, error) {
		r.Shares = yes
		return p.member.encode(r, nil)
	})
}

// running is one Run.
type running[M any] struct {
	p       *Partitioner[M]
	fn      func(ctx context.Context, s *Share) error
	caller  context.Context // of Run
	ctx     context.Context // ends with the run
	end     context.CancelCauseFunc
	all     sync.WaitGroup     // of the workers
	workers map[string]*worker // by item; those that are wanted
	leaving map[string]*worker // by item; the last one that is not
}

// worker is the goroutine that has, or wants, an item.
type worker struct {
	stop context.CancelCauseFunc
	done chan struct{}
}

// follow starts and stops workers as the group changes, until the run ends.
func (r *running[M]) follow() error {
	m := r.p.member
	for v, err := range Members[M](r.ctx, m.client, m.group) {
		if err != nil {
			if r.ctx.Err() != nil {
				return r.why()
			}
			return err
		}
		for _, item := range r.p.items {
			w, mine := r.workers[item], owner(v.Members, item) == m.id
			switch {
			case mine && w == nil:
				r.start(item)
			case !mine && w != nil:
				w.stop(ErrMoved)
				delete(r.workers, item)
				r.leaving[item] = w
			}
		}
	}
	return r.why()
}

// why says why the run has ended.
func (r *running[M]) why() error {
	if r.caller.Err() != nil {
		return retry.Why(r.caller)
	}
	return context.Cause(r.ctx)
}

// owner returns the member that an item belongs to; empty when nobody shares.
func owner[M any](members []Peer[M], item string) string {
	best, score := "", 0.0
	for _, m := range members {
		if !m.Shares {
			continue
		}
		if s := rendezvous.Score(m.ID, item, 1); s > score {
			best, score = m.ID, s
		}
	}
	return best
}

// start starts a worker for an item, behind the one that had it before.
func (r *running[M]) start(item string) {
	before := r.leaving[item]
	delete(r.leaving, item)
	ctx, stop := context.WithCancelCause(r.ctx)
	w := &worker{stop: stop, done: make(chan struct{})}
	r.workers[item] = w
	r.all.Go(func() {
		defer close(w.done)
		defer stop(nil)
		if before != nil {
			<-before.done
		}
		if err := r.work(ctx, item); err != nil {
			r.end(err)
		}
	})
}

// work has the item as often as it can be had, until ctx ends. It returns what
// ends the whole run.
func (r *running[M]) work(ctx context.Context, item string) error {
	m := r.p.member
	opts := []lock.Option{lock.WithOwner(m.id)}
	if m.session != nil {
		opts = append(opts, lock.WithSession(m.session))
	}
	l := lock.New(m.client, m.group+".shares/"+item, opts...)
	for n := 0; ctx.Err() == nil; n++ {
		held, err := l.Acquire(ctx)
		switch {
		case err == nil:
			n = 0
			if err := r.serve(ctx, &Share{item, held}); err != nil {
				return err
			}
		case ctx.Err() != nil:
		case errors.Is(err, lock.ErrLost), retry.Temporary(err):
			retry.Pause(ctx, n) // the session ended; the next one will do
		default:
			return fmt.Errorf("share %s of group %s: %w", item, m.group, err)
		}
	}
	return nil
}

// serve calls fn while the share is ours, and gives it away.
func (r *running[M]) serve(ctx context.Context, s *Share) error {
	work, cancel := context.WithCancelCause(fence.NewContext(ctx, s.held.Name(), s.Token()))
	defer cancel(nil)
	defer context.AfterFunc(s.held.Context(), func() { cancel(context.Cause(s.held.Context())) })()
	defer func() {
		// The release goes on if it is not confirmed in time, and a share that was
		// lost needs none.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		_ = s.held.Release(ctx)
	}()
	if err := r.fn(work, s); err != nil && work.Err() == nil {
		return err
	}
	<-work.Done()
	return nil
}
