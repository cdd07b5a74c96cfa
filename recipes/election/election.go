package election

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// Election is an election by name. Any number of Election objects of one name,
// in any number of processes, are the same election. It is safe for concurrent
// use.
type Election[T any] struct {
	client  *client.Client
	name    string
	keys    keys
	codec   client.Codec[T]
	session *client.Session // nil for the client's own
	record  record
	health  health
	err     error // what is wrong with the name or the options; each call returns it

	reborn atomic.Bool // no former life of ours is left to look for
}

// New returns the election with the name. It does nothing yet; a name that can
// not be used makes every call return [ErrName].
func New[T any](c *client.Client, name string, opts ...Option) *Election[T] {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	e := &Election[T]{
		client: c, name: name, keys: keys(name), session: o.session, health: o.health,
		record: record{ID: o.identity[:min(len(o.identity), identityBytesMax)], Priority: o.priority, Preempts: o.preempt},
	}
	e.codec, e.err = codecOf[T](o.codec)
	if !contender.ValidName(name) {
		e.err = ErrName
	}
	e.reborn.Store(o.identity == "")
	return e
}

// Name returns the election's name.
func (e *Election[T]) Name() string { return e.name }

// Campaign stands for the election and waits until it leads. The line is in the
// order in which candidates joined it, over all processes; priorities and
// hand-overs come before the line. Goroutines that share a session lead one after
// the other, in the order of their calls.
//
// ctx bounds the waiting only: the leadership lasts until Resign, or until it is
// lost, whatever becomes of ctx. A Campaign that gives up leaves no candidate
// behind; if it is still unknown whether it made one, that is found out and
// undone in the background.
//
// Errors: those of ctx; [ErrLost] when the place in the line was lost, be it that
// the session ended or that the key was deleted; [ErrConflict]; [ErrName]; what
// the codec says of val; and those of the client that waiting does not cure.
func (e *Election[T]) Campaign(ctx context.Context, val T) (*Leadership[T], error) {
	proposal, err := e.encode(val)
	for err == nil {
		var l *Leadership[T]
		l, err = e.stand(ctx, proposal)
		if err == nil {
			return l, nil
		}
		if ctx.Err() == nil && (errors.Is(err, errPassed) || errors.Is(err, ErrUnhealthy)) {
			err = nil // stand again: at the tail of the line, when healthy
		}
	}
	return nil, fmt.Errorf("campaign for %q: %w", e.name, err)
}

func (e *Election[T]) encode(val T) ([]byte, error) {
	if e.err != nil {
		return nil, e.err
	}
	return e.codec.Encode(val)
}

// stand is one candidacy. It ends with errPassed when the turn came and was
// passed to another, and with ErrUnhealthy when the candidate fell ill.
func (e *Election[T]) stand(ctx context.Context, proposal []byte) (*Leadership[T], error) {
	if err := e.health.await(ctx); err != nil {
		return nil, err
	}
	s, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	l := newLeadership(e)
	if l.claim, err = contender.Take(ctx, l.spec(s, proposal)); err != nil {
		return nil, err
	}
	standing, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e.health.watch(standing, cancel)
	line := &line{claim: l.claim, keys: e.keys, own: s.ID().String(), record: e.record}
	err = l.claim.Run(standing, func(ctx context.Context) error {
		view, created, err := l.claim.Create(ctx, contender.Entry{Then: line.Reads(0)})
		if err != nil {
			return err
		}
		changed, err := e.rebirth(ctx, l.claim)
		if err != nil {
			return err
		}
		if !created || changed {
			return l.claim.Await(ctx, line, nil)
		}
		return l.claim.Await(ctx, line, &view)
	})
	var foreign *contender.ForeignError
	if errors.As(err, &foreign) {
		err = &ConflictError{Name: e.name, Key: foreign.Key, Recipe: foreign.Recipe}
	}
	if err != nil {
		return nil, err
	}
	l.begin(line)
	return l, nil
}

// open returns the session to use, which is live.
func (e *Election[T]) open(ctx context.Context) (*client.Session, error) {
	s := e.session
	if s == nil {
		var err error
		if s, err = e.client.Session(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.Err(); err != nil {
		return nil, e.lost(contender.Loss{Reason: err, At: time.Now()})
	}
	return s, nil
}

func (e *Election[T]) lost(loss contender.Loss) error {
	return &LostError{Name: e.name, Term: fence.Token(loss.Token), Reason: loss.Reason, At: loss.At}
}

// rebirth removes the candidates of our identity that are not us: those of
// earlier lives of this process. If one of them led, we are to lead next. It
// does so once in the life of the Election, so that two processes that have one
// identity by mistake do not replace each other for ever. It says whether it has
// changed anything.
func (e *Election[T]) rebirth(ctx context.Context, c *contender.Claim) (changed bool, err error) {
	if e.reborn.Load() {
		return false, nil
	}
	r, err := e.roll(ctx)
	if err != nil {
		return false, err
	}
	for id, rec := range r.records {
		kv, stands := r.candidates[id]
		if !stands || rec.ID != e.record.ID || kv.Lease == c.Session().ID() {
			continue
		}
		if err := e.bury(ctx, c, kv, id == r.leader); err != nil {
			return false, err
		}
		changed = true
	}
	e.reborn.Store(true)
	return changed, nil
}

// bury removes the candidate of an earlier life, and names us in its place if it
// led. Doing it again does no harm, as both conditions name create revisions.
func (e *Election[T]) bury(ctx context.Context, c *contender.Claim, former client.KV, led bool) error {
	id, _ := e.keys.candidateID(former.Key)
	ops := []client.Op{client.OpDelete(former.Key), client.OpDelete(e.keys.record(id))}
	if led {
		own, _ := e.keys.candidateID(c.Key(0))
		next := encode(succession{To: own, Term: fence.Token(c.Token())})
		ops = append(ops, client.OpPut(e.keys.next(), next, client.WithLease(c.Session().ID())))
	}
	return retry.Do(ctx, func() error {
		_, err := e.client.Txn().
			If(c.Guard()...).If(client.CreateRevision(former.Key).Equal(former.CreateRevision)).
			Then(ops...).Commit(ctx)
		return err
	})
}
