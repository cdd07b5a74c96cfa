package discovery

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/presence"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// defaultDrainTimeout is how long Drain waits for those who watch.
const defaultDrainTimeout = 5 * time.Second

// RegisterOption is an option of Register.
type RegisterOption func(*registerOptions)

type registerOptions struct {
	session *client.Session
	health  Health
	drain   time.Duration
	wait    bool
}

// WithSession binds the registration to a session instead of the client's own
// one, and its next one after a loss. The registration ends with the session. It
// must belong to the same cluster.
func WithSession(s *client.Session) RegisterOption { return func(o *registerOptions) { o.session = s } }

// WithHealth makes the instance check itself: it is taken out of the service
// while it can not serve, and put back when it can.
func WithHealth(h Health) RegisterOption {
	return func(o *registerOptions) { o.health = h.withDefaults() }
}

// WithDrainTimeout sets how long Drain waits after it has told everybody. Default
// 5 s.
func WithDrainTimeout(d time.Duration) RegisterOption {
	return func(o *registerOptions) { o.drain = d }
}

// WithWait makes Register wait while another instance has the id: for programs
// that are restarted with the same id, and whose former registration may live on
// for as long as its lease.
func WithWait() RegisterOption { return func(o *registerOptions) { o.wait = true } }

// Registration is an instance that is registered, until Close. It is safe for
// concurrent use.
type Registration[M any] struct {
	service, id string
	by          string // the incarnation
	drain       time.Duration
	key         *presence.Presence
	ctx         context.Context // that of key, with the causes of this package
	end         context.CancelCauseFunc
	stop        func() bool

	checks    sync.WaitGroup // the goroutine of the health check
	endChecks context.CancelFunc

	mu       sync.Mutex    // protects what follows
	rec      record        // as it is in the store, or will be when the instance is healthy again
	down     bool          // taken out by the health check
	draining chan struct{} // closed when rec says so
}

// Register adds the instance to its service and keeps it there until Close. Without
// an ID it gets a random one. ctx bounds the registering only; with [WithHealth],
// it is waited for the first check that succeeds, and with [WithWait] for the id.
//
// After a loss of the session, and after its key was deleted, the registration
// comes back by itself.
//
// Errors: [ErrDuplicateID], [ErrName], those of ctx, the last failure of the health
// check when ctx ended meanwhile, and those of a write that trying again does not
// cure. A Register that gives up leaves nothing behind.
func Register[M any](ctx context.Context, c *client.Client, in Instance[M], opts ...RegisterOption) (*Registration[M], error) {
	o := registerOptions{drain: defaultDrainTimeout}
	for _, opt := range opts {
		opt(&o)
	}
	if in.ID == "" {
		in.ID = rand.Text()
	}
	r := &Registration[M]{service: in.Service, id: in.ID, by: rand.Text(), drain: o.drain, draining: make(chan struct{})}
	if err := errors.Join(checkService(in.Service), checkID(in.ID)); err != nil {
		return nil, err
	}
	in.State = Up
	if in.Addr == "" {
		return nil, fmt.Errorf("register %s: there is no address: %w", r.Key(), client.ErrInvalid)
	}
	var err error
	if r.rec, err = recordOf(in, r.by); err != nil {
		return nil, fmt.Errorf("register %s: %w", r.Key(), err)
	}
	value, err := json.Marshal(r.rec)
	if err != nil {
		return nil, fmt.Errorf("register %s: %w", r.Key(), err)
	}
	if o.health.Check != nil {
		if err := o.health.pass(ctx); err != nil {
			return nil, fmt.Errorf("register %s: %w: %w", r.Key(), retry.Why(ctx), err)
		}
	}
	r.key, err = presence.Keep(ctx, presence.Config{
		Client: c, Session: o.session, Key: r.Key(), Mine: r.isMine, Wait: o.wait, Changed: r.changed,
	}, value)
	if err != nil {
		return nil, fmt.Errorf("register: %w", r.translate(err))
	}
	r.start(o.health)
	return r, nil
}

// start ties the registration's context to that of its key, and begins to check
// the health.
func (r *Registration[M]) start(h Health) {
	r.ctx, r.end = context.WithCancelCause(context.Background())
	r.stop = context.AfterFunc(r.key.Context(), func() { r.end(r.translate(context.Cause(r.key.Context()))) })
	checking, cancel := context.WithCancel(r.ctx)
	r.endChecks = cancel
	if h.Check == nil {
		return
	}
	r.checks.Go(func() {
		h.run(checking, func(up bool) {
			same := func(*record) error { return nil }
			for n := 0; r.change(checking, same, func() { r.down = !up }) != nil && retry.Pause(checking, n); n++ {
			}
		})
	})
}

// isMine says whether this registration has written the value.
func (r *Registration[M]) isMine(value []byte) bool {
	rec, err := decodeRecord(value)
	return err == nil && rec.By == r.by
}

// changed takes over what is in the store now, by us or by others. What was taken
// out says nothing.
func (r *Registration[M]) changed(value []byte) {
	if rec, err := decodeRecord(value); err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.setLocked(rec)
	}
}

func (r *Registration[M]) setLocked(rec record) {
	r.rec = rec
	if rec.state() != Draining {
		return
	}
	select {
	case <-r.draining:
	default:
		close(r.draining)
	}
}

// translate makes this package's errors of those of the key.
func (r *Registration[M]) translate(err error) error {
	var taken *presence.TakenError
	switch {
	case errors.As(err, &taken):
		rec, _ := decodeRecord(taken.KV.Value) // the address is for people to read
		return &DuplicateError{Service: r.service, ID: r.id, Addr: rec.Addr, Lease: taken.KV.Lease}
	case errors.Is(err, presence.ErrRemoved):
		return ErrClosed
	}
	return err
}

// change writes what f makes of the record. prepare, which may be nil, is called
// before f, with mu held.
func (r *Registration[M]) change(ctx context.Context, f func(*record) error, prepare func()) error {
	err := r.key.Change(ctx, func(value []byte) ([]byte, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if prepare != nil {
			prepare()
		}
		next := r.rec
		if value != nil {
			var err error
			if next, err = decodeRecord(value); err != nil {
				return nil, err
			}
		}
		before := next
		if err := f(&next); err != nil {
			return nil, err
		}
		switch {
		case r.down:
			r.setLocked(next) // for later
			return nil, nil
		case value != nil && reflect.DeepEqual(before, next):
			return value, nil // however others have written it
		}
		return json.Marshal(next)
	})
	return r.translate(err)
}

// ID returns the id of the instance.
func (r *Registration[M]) ID() string { return r.id }

// Key returns the key of the instance, without the client's namespace.
func (r *Registration[M]) Key() string { return prefix(r.service) + r.id }

// Instance returns the instance as others see it, or would if it were healthy.
func (r *Registration[M]) Instance() Instance[M] {
	r.mu.Lock()
	defer r.mu.Unlock()
	// What was encoded here can be decoded, unless others have put something else
	// into it, which is then missing.
	in, _ := instanceOf[M](r.service, r.id, r.rec)
	return in
}

// Registered says whether others could see the instance when we last looked: not
// while the session is lost, while it is not healthy, and after Close. It is a
// cheap, local call.
func (r *Registration[M]) Registered() bool { return r.key.Live() }

// Context returns a context that lives as long as the registration. The loss of a
// session or of the key does not end it, as they are healed. Its cause is
// [ErrClosed] after Close, a [*DuplicateError] when another instance has the id
// now, and the error of a session that was given or of the client when that ended.
func (r *Registration[M]) Context() context.Context { return r.ctx }

// Draining returns a channel that is closed when the instance has been told to
// drain: by Drain, or by an operator with the function of that name.
func (r *Registration[M]) Draining() <-chan struct{} { return r.draining }

// Update changes what others see of the instance: f is given the present one, and
// what it makes of it is written. Its Service, ID and State stay as they are. f may
// be called several times; its error is returned as it is.
//
// Update returns when the change is in the store. While the cluster can not be
// reached, it waits; if ctx ends first, the change may be made all the same:
// client.ErrUncertain.
func (r *Registration[M]) Update(ctx context.Context, f func(in *Instance[M]) error) error {
	return r.change(ctx, func(rec *record) error {
		in, err := instanceOf[M](r.service, r.id, *rec)
		if err != nil {
			return err
		}
		if err := f(&in); err != nil {
			return err
		}
		if in.Addr == "" {
			return fmt.Errorf("update %s: there is no address: %w", r.Key(), client.ErrInvalid)
		}
		in.State = rec.state()
		*rec, err = recordOf(in, r.by)
		return err
	}, nil)
}

// Drain tells everybody that the instance wants no new requests, and returns when
// they have had the time of [WithDrainTimeout] to hear of it and to finish. Close
// is left to the caller. Drain returns early, with the error of ctx, when that
// ends.
func (r *Registration[M]) Drain(ctx context.Context) error {
	if err := r.sayGoodbye(ctx); err != nil {
		return err
	}
	if !sleep(ctx, r.drain) {
		return retry.Why(ctx)
	}
	return nil
}

func (r *Registration[M]) sayGoodbye(ctx context.Context) error {
	return r.change(ctx, func(rec *record) error { rec.setState(Draining); return nil }, nil)
}

// Close takes the instance out of the service: it says goodbye, so that those who
// watch do not take it for lost, and deletes the key. It returns when the key is
// known to be gone; if ctx ends first, with client.ErrUncertain, and the deletion
// goes on in the background until the session ends. Further calls wait for the
// same.
func (r *Registration[M]) Close(ctx context.Context) error {
	r.endChecks()
	if r.Registered() {
		// Who is not told sees it lost, which it will be in a moment.
		_ = r.sayGoodbye(ctx)
	}
	err := r.key.Remove(ctx)
	r.stop()
	r.end(r.translate(context.Cause(r.key.Context())))
	r.checks.Wait()
	return err
}
