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
)

// Leadership is one term of ours: a second campaign gives another Leadership. It
// is safe for concurrent use.
type Leadership[T any] struct {
	election *Election[T]
	claim    *contender.Claim
	ctx      context.Context

	heir atomic.Pointer[heir] // whom to name when we resign

	asked    context.Context // ends when we are first asked to step down
	ask      context.CancelCauseFunc
	requests chan *StepDown // capacity 1: that request
}

// heir is a candidate who is to lead next.
type heir struct {
	key   string
	next  succession
	lease client.LeaseID
}

func newLeadership[T any](e *Election[T]) *Leadership[T] {
	l := &Leadership[T]{election: e, requests: make(chan *StepDown, 1)}
	l.asked, l.ask = context.WithCancelCause(context.Background())
	return l
}

// spec says what a candidate is: its key, which is etcd's, and its record. Both
// live and end together.
func (l *Leadership[T]) spec(s *client.Session, proposal []byte) contender.Spec {
	e := l.election
	id := s.ID().String()
	return contender.Spec{
		Client:  e.client,
		Session: s,
		Keys: []contender.Key{
			{Name: e.keys.candidate(id), Value: proposal},
			{Name: e.keys.record(id), Value: encode(e.record)},
		},
		Lost:     e.lost,
		Released: ErrResigned,
		Farewell: l.farewell,
	}
}

// farewell is done with the deletion of our keys: the requests to us are
// answered by it, and an heir is named, or what named us is forgotten.
func (l *Leadership[T]) farewell(c *contender.Claim) []client.Op {
	keys, term := l.election.keys, fence.Token(c.Token())
	ops := []client.Op{client.OpDelete(keys.requests(term), client.Prefix())}
	if h := l.heir.Load(); h != nil {
		stands := client.CreateRevision(h.key).Equal(client.Revision(h.next.Term))
		name := client.OpPut(keys.next(), encode(h.next), client.WithLease(h.lease))
		return append(ops, client.OpTxn([]client.Compare{stands}, []client.Op{name}, nil))
	}
	own, _ := keys.candidateID(c.Key(0))
	ours := client.Value(keys.next()).Equal(encode(succession{To: own, Term: term}))
	return append(ops, client.OpTxn([]client.Compare{ours}, []client.Op{client.OpDelete(keys.next())}, nil))
}

// begin starts what goes on during a leadership.
func (l *Leadership[T]) begin(line *line) {
	l.ctx = fence.NewContext(l.claim.Context(), l.election.name, l.Term())
	go l.listen(line)
	l.election.health.watch(l.ctx, l.stepDown)
}

// Name returns the election's name.
func (l *Leadership[T]) Name() string { return l.election.name }

// Key returns the key that stands for this leadership, without the client's
// namespace.
func (l *Leadership[T]) Key() string { return l.claim.Key(0) }

// Term returns the fencing token: the revision at which the key was created,
// larger than that of every earlier leader.
func (l *Leadership[T]) Term() fence.Token { return fence.Token(l.claim.Token()) }

// Context returns a context that lives as long as the leadership. When that is
// lost, it ends with a [*LostError] as its cause, before anybody else can lead
// unless the key was deleted by hand; after Resign and HandOver, the cause is
// [ErrResigned]. It has the values of the context given to Campaign, but neither
// its deadline nor its cancellation, and carries the term, see
// [fence.FromContext].
func (l *Leadership[T]) Context() context.Context { return l.ctx }

// Valid says whether the leadership can be relied on at this moment. It is a
// cheap, local call: make it right before each side effect. It can be wrong by as
// much as the process is suspended between the call and the effect; only a
// resource that checks the term closes that gap.
func (l *Leadership[T]) Valid() bool { return l.Remaining() > 0 }

// Remaining returns for how long the leadership can be relied on if the cluster
// can not be reached from now on; zero when it is lost or resigned. It is a
// cheap, local call.
func (l *Leadership[T]) Remaining() time.Duration { return l.claim.Remaining() }

// Guard returns the condition that holds exactly as long as the leadership, for
// transactions on the cluster that the election is on. Keys are in the namespace
// of the client that the election was made with.
func (l *Leadership[T]) Guard() client.Compare { return l.claim.Guard()[0] }

// Txn starts a transaction that is executed only during this leadership, however
// late it arrives. If that is over, Commit returns an error that is [ErrLost];
// that a condition of the caller's own does not hold is a result, not an error.
func (l *Leadership[T]) Txn() *client.GuardedTxn {
	return l.election.client.Guarded(l.claim.Ended(), l.Guard())
}

// Proclaim changes the value that the leader leads with, for all who observe. The
// term stays. The values of several calls are written in the order of the calls.
//
// Errors: [ErrLost] when the leadership is over; [client.ErrUncertain] when ctx
// ended while an answer was missing, so that the value may have been written, or
// still be; what the codec says; and those of the client.
func (l *Leadership[T]) Proclaim(ctx context.Context, val T) error {
	proposal, err := l.election.encode(val)
	if err == nil {
		err = l.claim.Rewrite(ctx, 0, proposal)
	}
	if err != nil && !errors.Is(err, ErrLost) {
		return fmt.Errorf("proclaim in election %q: %w", l.election.name, err)
	}
	return err
}

// Resign gives the leadership up; the next in line leads. The handle's context
// ends at once, before anybody else can lead. Resign returns nil when the key is
// known to be gone; a [*LostError] when the leadership had been lost before; and
// when ctx ends first, its error with [client.ErrUncertain]. In that case it goes
// on in the background until the cluster has confirmed it or the session ends,
// and nobody in this process stands with this session before.
//
// Resign may be called again, also at the same time: it waits for the same
// resignation, and deletes nothing but the keys of this leadership.
func (l *Leadership[T]) Resign(ctx context.Context) error {
	err := l.claim.Release(ctx)
	if err != nil && !errors.Is(err, ErrLost) {
		return fmt.Errorf("resign from election %q: %w", l.election.name, err)
	}
	return err
}

// HandOver gives the leadership up as Resign does, and names the candidate with
// the ID as the one to lead next: those who stand before it pass their turns,
// except for etcd's clients. Nobody preempts a leader who was named.
//
// [ErrNoCandidate], and the leadership goes on, when nobody else of that ID
// stands. One who leaves later is passed over. All other errors are those of
// Resign, and those of a read, after which the leadership goes on as well.
func (l *Leadership[T]) HandOver(ctx context.Context, to string) error {
	r, err := l.election.roll(ctx)
	if err != nil {
		return fmt.Errorf("hand over election %q: %w", l.election.name, err)
	}
	for _, c := range r.line() {
		if c.answersTo(to) && c.Key != l.Key() {
			l.name(c)
			return l.Resign(ctx)
		}
	}
	return fmt.Errorf("hand over election %q to %q: %w", l.election.name, to, ErrNoCandidate)
}

// name makes a candidate the heir.
func (l *Leadership[T]) name(c Candidate) {
	id, _ := l.election.keys.candidateID(c.Key)
	l.heir.Store(&heir{key: c.Key, lease: c.Lease, next: succession{To: id, Term: c.Term}})
}

// stepDown notes that we are asked to step down; only the first time counts.
func (l *Leadership[T]) stepDown(why error) {
	if l.asked.Err() == nil {
		l.ask(why)
		var s *StepDown
		if errors.As(context.Cause(l.asked), &s) {
			select {
			case l.requests <- s:
			default:
			}
		}
	}
}

// StepDownRequested returns a channel with the first request to step down of
// this term, if there is one: by RequestStepDown, by a candidate that preempts,
// or by the health check. [Election.Run] obeys by itself; with Campaign, it is
// for the caller to finish and to Resign, or to HandOver if the request says to
// whom. Nothing happens if he does not.
func (l *Leadership[T]) StepDownRequested() <-chan *StepDown { return l.requests }
