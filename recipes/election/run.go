package election

import (
	"context"
	"errors"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

const (
	// resignTimeout bounds how long Run waits for a resignation to be confirmed.
	// The resignation itself goes on.
	resignTimeout = 5 * time.Second
	// lossPause is how long Run waits before it stands again after its place in the
	// line was lost.
	lossPause = 10 * time.Millisecond
)

// Run campaigns, calls fn whenever it leads, and campaigns again after that.
//
// The context of fn is ctx; it also ends when the leadership is lost, with a
// [*LostError] as its cause, and when the leader is asked to step down, with a
// [*StepDown]. It carries the term, see [fence.FromContext]. The leadership is
// given up only when fn has returned, and the session is renewed until then. So
// unless it is lost, nobody leads while fn runs, however long that takes.
//
// What follows depends on what fn returns, and why:
//   - nil: Run resigns and stands again, at the tail of the line;
//   - [ErrStop], wrapped or not: Run resigns and returns nil;
//   - anything, after ctx has ended: Run resigns and returns it, or for nil the
//     error of ctx;
//   - anything, after the leadership was lost or the leader asked to step down: it
//     is taken for a consequence of that, and Run stands again. A leader that was
//     asked by a request hands over to the candidate it names, or else to the one
//     that would lead if it did not stand any more;
//   - another error: Run resigns and returns it.
//
// A loss does not end Run: it goes on with another session. (A session given by
// WithSession has no other: then Run returns [ErrLost].) While the cluster can
// not be reached it tries again until ctx ends. Errors: those above, and those of
// Campaign that trying again does not cure.
func (e *Election[T]) Run(ctx context.Context, val T, fn func(ctx context.Context, l *Leadership[T]) error) error {
	for {
		var l *Leadership[T]
		err := retry.Do(ctx, func() (err error) {
			l, err = e.Campaign(ctx, val)
			return err
		})
		switch {
		case err == nil:
			if again, err := l.serve(ctx, fn); !again {
				return err
			}
		case !errors.Is(err, ErrLost) || e.session != nil && e.session.Err() != nil:
			return err
		case !sleep(ctx, lossPause):
			return ctxError(ctx)
		}
	}
}

// serve calls fn and gives the leadership up when it has returned. again says
// that Run goes on; otherwise err is its result.
func (l *Leadership[T]) serve(ctx context.Context, fn func(context.Context, *Leadership[T]) error) (again bool, err error) {
	work, cancel := context.WithCancelCause(fence.NewContext(ctx, l.Name(), l.Term()))
	defer cancel(nil)
	for _, end := range []context.Context{l.ctx, l.asked} {
		defer context.AfterFunc(end, func() { cancel(context.Cause(end)) })()
	}
	returned := false
	defer func() {
		if !returned { // fn has panicked
			_ = l.leave(ctx)
		}
	}()
	failed := fn(work, l)
	interrupted := l.ctx.Err() != nil || l.asked.Err() != nil
	returned = true
	left := l.leave(ctx)
	switch {
	case errors.Is(failed, ErrStop):
		return false, left
	case ctx.Err() != nil && failed == nil:
		return false, ctxError(ctx)
	case ctx.Err() != nil, failed != nil && !interrupted:
		return false, errors.Join(failed, left)
	}
	return true, nil
}

// leave gives the leadership up, for the heir if a request has asked for it. It
// returns an error only if the outcome is not known: a loss is none of it.
func (l *Leadership[T]) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignTimeout)
	defer cancel()
	var request *StepDown
	if errors.As(context.Cause(l.asked), &request) && request.Kind == ErrAsked && l.ctx.Err() == nil { //nolint:errorlint // the kind is that very value
		l.appoint(ctx, request.To)
	}
	if err := l.Resign(ctx); errors.Is(err, client.ErrUncertain) {
		return err
	}
	return nil
}

// appoint names the candidate of a request, or the one that leads if we leave
// for good: without it, we could stand again before that one has its turn, and
// be the one with the highest priority. Nobody, if that can not be found out.
func (l *Leadership[T]) appoint(ctx context.Context, to string) {
	r, err := l.election.roll(ctx)
	if err != nil {
		return
	}
	own, _ := l.election.keys.candidateID(l.Key())
	delete(r.candidates, own)
	next, ok := r.first()
	if heir := r.heir(next); heir != "" {
		next = heir
	}
	for id := range r.candidates {
		if to != "" && r.candidate(id).answersTo(to) {
			next, ok = id, true
		}
	}
	if ok {
		l.name(r.candidate(next))
	}
}
