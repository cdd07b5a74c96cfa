package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

const (
	// ownerBytesMax bounds what WithOwner puts into each key; the rest is cut off.
	ownerBytesMax = 256
	// releaseTimeout bounds how long Do waits for its release to be confirmed.
	// The release itself goes on.
	releaseTimeout = 5 * time.Second
)

// Lock is a lock on a name. It holds no state of its own: any number of Lock
// objects of one name, in any number of processes, are the same lock. It is
// safe for concurrent use.
type Lock struct {
	client  *client.Client
	name    string
	value   []byte
	session *client.Session // nil for the client's own
	err     error           // what is wrong with the name; each call returns it
}

// Option is an option of New.
type Option func(*options)

type options struct {
	session *client.Session
	owner   string
}

// WithSession binds the lock to a session instead of the client's own one. The
// session must belong to the same cluster.
func WithSession(s *client.Session) Option { return func(o *options) { o.session = s } }

// WithOwner sets what others see as the owner of the lock, up to 256 bytes.
// Default: the host's name and the process id.
func WithOwner(owner string) Option { return func(o *options) { o.owner = owner } }

// New returns the lock with the name. It does nothing yet; a name that can not
// be used makes every call return [ErrName].
func New(c *client.Client, name string, opts ...Option) *Lock {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if o.owner == "" {
		host, _ := os.Hostname() // only for people to read
		o.owner = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	l := &Lock{client: c, name: name, session: o.session}
	l.value, l.err = json.Marshal(record{Owner: o.owner[:min(len(o.owner), ownerBytesMax)]})
	if !contender.ValidName(name) {
		l.err = ErrName
	}
	return l
}

// Name returns the lock's name.
func (l *Lock) Name() string { return l.name }

func (l *Lock) prefix() string { return l.name + "/" }

// Acquire waits until the lock is ours. Who comes first is served first, over
// all processes by the order in which their keys were created, and within this
// process by the order of the calls.
//
// ctx bounds the waiting only: the lock is held until Release, or until it is
// lost, whatever becomes of ctx. An Acquire that gives up leaves no key behind;
// if it is still unknown whether it made one, that is found out and undone in
// the background.
//
// Errors: those of ctx; [ErrLost] when the place in the queue was lost, be it
// that the session ended or that the key was deleted; [ErrConflict]; [ErrName];
// and those of the client that waiting does not cure.
func (l *Lock) Acquire(ctx context.Context) (*Held, error) {
	s, err := l.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("acquire lock %q: %w", l.name, err)
	}
	c, err := contender.Take(ctx, l.spec(s))
	if err != nil {
		return nil, fmt.Errorf("acquire lock %q: %w", l.name, err)
	}
	q := l.queue(c)
	return l.held(c, c.Run(ctx, func(ctx context.Context) error { return c.Queue(ctx, q) }))
}

// TryAcquire takes the lock if it is free at this moment, and returns [ErrHeld]
// if it is not; it never joins the queue, not even for a moment. The lock is
// taken too while others wait for it inside this process.
//
// Everything else is as with [Lock.Acquire].
func (l *Lock) TryAcquire(ctx context.Context) (*Held, error) {
	s, err := l.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("try to acquire lock %q: %w", l.name, err)
	}
	c, err := contender.Try(ctx, l.spec(s))
	if err != nil {
		return nil, fmt.Errorf("try to acquire lock %q: %w", l.name, err)
	}
	if c == nil {
		return nil, l.heldHere(ctx)
	}
	return l.held(c, c.Run(ctx, l.queue(c).seize))
}

// Do acquires the lock, calls fn and releases the lock when fn has returned.
// The context of fn is ctx, and ends when the lock is lost, with a [*LostError]
// as its cause; it carries the token, see [fence.FromContext].
//
// Do returns the error of fn, joined with that of a loss or a failed release.
// It waits at most five seconds for the release to be confirmed.
func (l *Lock) Do(ctx context.Context, fn func(ctx context.Context, h *Held) error) (err error) {
	h, err := l.Acquire(ctx)
	if err != nil {
		return err
	}
	work, cancel := context.WithCancelCause(fence.NewContext(ctx, l.name, h.Token()))
	stop := context.AfterFunc(h.Context(), func() { cancel(context.Cause(h.Context())) })
	defer func() {
		stop()
		cancel(context.Canceled)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		if released := h.Release(ctx); released != nil {
			err = errors.Join(err, released)
		}
	}()
	return fn(work, h)
}

// open returns the session to use, which is live.
func (l *Lock) open(ctx context.Context) (*client.Session, error) {
	if l.err != nil {
		return nil, l.err
	}
	s := l.session
	if s == nil {
		var err error
		if s, err = l.client.Session(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.Err(); err != nil {
		return nil, &LostError{Name: l.name, Reason: err, At: time.Now()}
	}
	return s, nil
}

// spec says what a claim of this lock is.
func (l *Lock) spec(s *client.Session) contender.Spec {
	return contender.Spec{
		Client:   l.client,
		Session:  s,
		Keys:     []contender.Key{{Name: l.prefix() + s.ID().String(), Value: l.value}},
		Lost:     l.lost,
		Released: ErrReleased,
	}
}

func (l *Lock) lost(loss contender.Loss) error {
	return &LostError{Name: l.name, Token: fence.Token(loss.Token), Reason: loss.Reason, At: loss.At}
}

func (l *Lock) queue(c *contender.Claim) *queue { return &queue{claim: c, names: []string{l.name}} }

// held makes the result of a claim that has run.
func (l *Lock) held(c *contender.Claim, err error) (*Held, error) {
	if err != nil {
		return nil, fmt.Errorf("acquire lock %q: %w", l.name, conflict(l.name, err))
	}
	return newHeld(l, c), nil
}

// heldHere makes the error for a lock that is taken inside this process.
func (l *Lock) heldHere(ctx context.Context) error {
	held := &HeldError{Name: l.name}
	info, err := Inspect(ctx, l.client, l.name)
	if err != nil {
		return fmt.Errorf("try to acquire lock %q: %w", l.name, err)
	}
	if len(info.Holders) > 0 {
		held.Holder = info.Holders[0]
	}
	return held
}
