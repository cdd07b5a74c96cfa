package presence

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// suspectFor is how long a creation whose answer was lost may still be executed:
// longer than any server keeps a request, or any network a packet.
const suspectFor = 30 * time.Second

// healPause is how far apart two healings have to be for the second one not to
// wait: who deletes a key again and again is not to be fought at full speed.
const healPause = 10 * time.Second

var (
	// ErrTaken: the key belongs to somebody else. A [*TakenError] tells to whom.
	ErrTaken = errors.New("key belongs to somebody else")
	// ErrRemoved is the cause of a presence's context after Remove.
	ErrRemoved = errors.New("key was removed")
)

// TakenError has the key that is in the way. It is [ErrTaken].
type TakenError struct {
	KV       client.KV
	Revision client.Revision // at which it was there
}

// Error tells the key and its lease.
func (e *TakenError) Error() string {
	return fmt.Sprintf("key %s belongs to somebody else, with lease %s", e.KV.Key, e.KV.Lease)
}

// Is makes the error ErrTaken.
func (e *TakenError) Is(target error) bool { return target == ErrTaken }

// Config says what to keep.
type Config struct {
	Client *client.Client
	// Session, if given, is the one that the key lives and ends with. Without,
	// it is the client's own, and the next one after a loss.
	Session *client.Session
	Key     string
	// Mine says whether a value was written by this presence.
	Mine func(value []byte) bool
	// Wait makes Keep wait until the key is free, instead of failing with ErrTaken.
	Wait bool
	// Changed, if given, is told of each value that is kept from now on, by a change
	// or because others have edited it. It is called from the owning goroutine, in
	// order, and must not wait.
	Changed func(value []byte)
}

// Presence is a key that is kept. It is safe for concurrent use.
type Presence struct {
	cfg  Config
	ctx  context.Context // done when the key is no longer kept
	end  context.CancelCauseFunc
	live atomic.Bool // the key is known to be there

	changes chan *change
	gone    chan struct{} // closed when the key is known to be gone, or to be no longer ours
	outcome error         // of the removal; readable once gone is closed

	keep // owned by run
}

// keep is what run knows.
type keep struct {
	value   []byte          // what is to be there; nil for nothing
	stored  client.KV       // what is there, as far as we know; ModRevision zero for nothing
	seen    client.Revision // at which we have looked last
	unsure  bool            // the last attempt has no answer
	suspect time.Time       // until then, a creation may arrive late
	pending *change         // being made
	heals   int             // one after the other
	healed  time.Time       // the last one
}

// change is a change of the value on its way.
type change struct {
	next func(value []byte) ([]byte, error)
	done chan error // gets one result
}

// Keep creates the key, with the value, and keeps it from then on. ctx bounds the
// creation only; if it ends first, the key is removed again should it be there.
//
// Errors: those of ctx, ErrTaken, that of a session that was given and is lost,
// and those of a write that trying again does not cure.
func Keep(ctx context.Context, cfg Config, value []byte) (*Presence, error) {
	if ctx.Err() != nil {
		return nil, retry.Why(ctx)
	}
	if cfg.Changed == nil {
		cfg.Changed = func([]byte) {}
	}
	p := &Presence{cfg: cfg, changes: make(chan *change), gone: make(chan struct{})}
	p.ctx, p.end = context.WithCancelCause(context.Background())
	first := &change{next: func([]byte) ([]byte, error) { return value, nil }, done: make(chan error, 1)}
	p.pending = first
	go p.run()
	select {
	case err := <-first.done:
		if err != nil {
			p.end(err)
			return nil, err
		}
		return p, nil
	case <-p.ctx.Done():
		return nil, context.Cause(p.ctx)
	case <-ctx.Done():
		p.end(ErrRemoved)
		return nil, retry.Why(ctx)
	}
}

// Context returns a context that is done when the key is no longer kept: after
// Remove, with [ErrRemoved] as its cause; when somebody else has it, with a
// [*TakenError]; when a session that was given is lost, or the client closed, with
// the session's or client's error.
func (p *Presence) Context() context.Context { return p.ctx }

// Live says whether the key was there when we last looked.
func (p *Presence) Live() bool { return p.live.Load() && p.ctx.Err() == nil }

// Change makes next of the value and returns when it is in the store. A value of
// nil means that the key is not to be there. next may be called several times, as
// others may edit the value; its error is returned as it is, and nothing changes.
//
// If ctx ends first, the change may be made all the same: the error is
// client.ErrUncertain.
func (p *Presence) Change(ctx context.Context, next func(value []byte) ([]byte, error)) error {
	c := &change{next: next, done: make(chan error, 1)}
	select {
	case p.changes <- c:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	case <-ctx.Done():
		return retry.Why(ctx)
	}
	select {
	case err := <-c.done:
		return err
	case <-p.gone: // with an answer, if the change came first
		select {
		case err := <-c.done:
			return err
		default:
			return fmt.Errorf("%w: %w", client.ErrUncertain, context.Cause(p.ctx))
		}
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", client.ErrUncertain, retry.Why(ctx))
	}
}

// Remove deletes the key and returns when that is known. If ctx ends first, its
// error is returned with client.ErrUncertain, and the removal goes on until the
// session ends. Remove may be called again, and waits for the same removal.
func (p *Presence) Remove(ctx context.Context) error {
	p.end(ErrRemoved)
	select {
	case <-p.gone:
		return p.outcome
	case <-ctx.Done():
		return fmt.Errorf("remove key %s: %w: %w", p.cfg.Key, client.ErrUncertain, retry.Why(ctx))
	}
}

// run owns the key from its creation until it is known to be gone.
func (p *Presence) run() {
	var s *client.Session
	for p.ctx.Err() == nil {
		next, err := p.session()
		if err != nil {
			p.end(err)
			break
		}
		s = next
		for p.ctx.Err() == nil && s.Err() == nil {
			if err := p.settle(s); err != nil {
				p.end(err)
				break
			}
			p.idle(s)
		}
		p.live.Store(false)
	}
	if p.pending != nil {
		p.reply(fmt.Errorf("%w: %w", client.ErrUncertain, context.Cause(p.ctx)))
	}
	if s != nil && !errors.Is(context.Cause(p.ctx), ErrTaken) {
		p.outcome = p.delete(s)
	}
	close(p.gone)
	if s != nil {
		p.sweep(s)
	}
}

// session returns the session to use.
func (p *Presence) session() (*client.Session, error) {
	if s := p.cfg.Session; s != nil {
		return s, s.Err()
	}
	for n := 0; ; n++ {
		s, err := p.cfg.Client.Session(p.ctx)
		switch {
		case err == nil || p.ctx.Err() != nil || errors.Is(err, client.ErrClosed):
			return s, err
		case p.pending != nil && !retry.Temporary(err):
			return nil, err // nothing is kept yet, or somebody waits for a change
		}
		if !retry.Pause(p.ctx, n) {
			return nil, context.Cause(p.ctx)
		}
	}
}

// reply ends the pending change.
func (p *Presence) reply(err error) {
	p.pending.done <- err
	p.pending = nil
}
