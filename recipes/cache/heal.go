package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

// run makes what is in the store what is wanted, and waits until either changes.
func (p *Persistent[T]) run() {
	defer close(p.done)
	for failures := 0; ; failures++ {
		want, waiting, release := p.newest()
		rev, at, err := p.carryOut(waiting, want)
		switch {
		case p.note(want, rev, err):
			release()
			return
		case err == nil || errors.Is(err, ErrTaken):
			failures = -1
			p.awaitChange(waiting, want, at)
		default:
			pause(waiting, failures)
		}
		release()
	}
}

// newest returns what is wanted, with a context that is done when something else
// is. release must be called.
func (p *Persistent[T]) newest() (want wish, waiting context.Context, release context.CancelFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting, p.interrupt = context.WithCancel(context.Background())
	return p.want, waiting, p.interrupt
}

// carryOut makes the store what is wanted. It returns the revision of our key, zero
// if there is none, and that at which this was so.
func (p *Persistent[T]) carryOut(ctx context.Context, want wish) (rev, at client.Revision, err error) {
	if want.none {
		at, err = p.remove()
		return 0, at, err
	}
	if err := p.open(ctx); err != nil {
		return 0, 0, err
	}
	return p.put(want.value)
}

// open makes a live session the current one.
func (p *Persistent[T]) open(ctx context.Context) error {
	s := p.session
	if s == nil {
		var err error
		if s, err = p.client.Session(ctx); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	p.current = s
	if !slices.Contains(p.leases, s.ID()) {
		// An older one than these has ended on the server too.
		p.leases = append(p.leases[max(0, len(p.leases)+1-leasesMax):], s.ID())
	}
	return nil
}

// put writes the key where there is none, or ours. A request ends with the session
// only, not when another wish comes: what is under way should have an answer.
func (p *Persistent[T]) put(value []byte) (rev, at client.Revision, err error) {
	ctx, lease := p.current.Context(), p.current.ID()
	write := client.OpPut(p.key, value, client.WithLease(lease))
	for {
		res, err := p.commit(ctx, p.client.Txn().If(client.Missing(p.key)).Then(write).Else(client.OpGet(p.key)))
		if err != nil {
			return 0, 0, err
		}
		if res.Succeeded {
			p.written = time.Now()
			return res.Revision, res.Revision, nil
		}
		kv := res.Results[0].Get.KVs[0]
		if !slices.Contains(p.leases, kv.Lease) {
			return 0, res.Revision, fmt.Errorf("%w: it has lease %s", ErrTaken, kv.Lease)
		}
		if kv.Lease == lease && bytes.Equal(kv.Value, value) {
			return kv.ModRevision, res.Revision, nil
		}
		same := client.ModRevision(p.key).Equal(kv.ModRevision)
		if res, err = p.commit(ctx, p.client.Txn().If(same).Then(write)); err != nil {
			return 0, 0, err
		}
		if res.Succeeded {
			return res.Revision, res.Revision, nil
		}
	}
}

// remove deletes the key if it is ours, and returns the revision at which it was not
// there.
func (p *Persistent[T]) remove() (at client.Revision, err error) {
	if p.current == nil {
		return 0, nil // nothing was ever written
	}
	ctx := p.current.Context()
	for {
		res, err := p.client.Get(ctx, p.key)
		if err != nil {
			return 0, err
		}
		if len(res.KVs) == 0 || !slices.Contains(p.leases, res.KVs[0].Lease) {
			return res.Revision, nil
		}
		same := client.ModRevision(p.key).Equal(res.KVs[0].ModRevision)
		done, err := p.commit(ctx, p.client.Txn().If(same).Then(client.OpDelete(p.key)))
		if err != nil {
			return 0, err
		}
		if done.Succeeded {
			return done.Revision, nil
		}
	}
}

// commit executes a transaction, and remembers one whose outcome is unknown.
func (p *Persistent[T]) commit(ctx context.Context, txn *client.Txn) (*client.TxnResult, error) {
	res, err := txn.Commit(ctx)
	if errors.Is(err, client.ErrUncertain) {
		p.late = time.Now().Add(lateTime)
	}
	return res, err
}

// note tells what became of a wish, and whether there will be no other.
func (p *Persistent[T]) note(want wish, rev client.Revision, err error) (over bool) {
	s := *p.status.Load()
	lost := p.current != nil && p.current.Err() != nil
	s.rev, s.err = rev, err
	switch {
	case err == nil && want.none:
		s.version, s.err = want.version, ErrClosed
		s.ended = lost || p.current == nil || time.Now().After(p.late)
	case err == nil:
		s.version = want.version
	case errors.Is(err, client.ErrClosed):
		s.ended, s.err = true, fmt.Errorf("%w: %w", ErrClosed, err)
	case p.session != nil && p.session.Err() != nil, want.none && lost:
		s.ended = true
	case !lost && !errors.Is(err, ErrTaken):
		s.rev = p.status.Load().rev // it was not asked: what was there may be there still
	}
	p.publish(s)
	return s.ended
}

func (p *Persistent[T]) publish(s status) {
	s.changed = make(chan struct{})
	close(p.status.Swap(&s).changed)
}

// awaitChange waits until the key changes after a revision, the session ends, or
// something else is wanted.
func (p *Persistent[T]) awaitChange(ctx context.Context, want wish, at client.Revision) {
	var cancel context.CancelFunc
	if want.none {
		ctx, cancel = context.WithDeadline(ctx, p.late)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	defer context.AfterFunc(p.current.Context(), cancel)()
	for _, err := range p.client.Watch(ctx, p.key, client.FromRevision(at+1)) {
		if err == nil || !errors.Is(err, client.ErrCompacted) {
			pause := time.NewTimer(time.Until(p.written.Add(healPause)))
			defer pause.Stop()
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
		}
		break
	}
	if lost := p.current.Err(); lost != nil {
		s := *p.status.Load()
		s.rev, s.err = 0, lost
		p.publish(s)
	}
}
