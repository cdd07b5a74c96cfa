package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// State is how far a session can be trusted.
type State uint8

// The states of a session. Active and Suspect alternate; Lost is final.
const (
	// Active: a renewal was acknowledged less than half a TTL ago.
	Active State = iota
	// Suspect: no renewal was acknowledged for half a TTL, or the process was suspended since. The session may live on.
	Suspect
	// Lost: the trust deadline passed, the server said that the lease is gone, or the session was closed.
	Lost
)

// String returns "active", "suspect" or "lost".
func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Suspect:
		return "suspect"
	}
	return "lost"
}

// SessionOption is an option of NewSession.
type SessionOption interface{ applySession(*sessionConfig) }

type sessionConfig struct{ ttl time.Duration }

type sessionOption func(*sessionConfig)

func (o sessionOption) applySession(c *sessionConfig) { o(c) }

// SessionTTL is the TTL of the session's lease, instead of Config.SessionTTL. Rounded up to whole seconds; the server
// may raise it.
func SessionTTL(ttl time.Duration) SessionOption {
	return sessionOption(func(c *sessionConfig) { c.ttl = ttl })
}

// Session is a lease that the client renews, and what the client knows about it: whether keys attached to it can still
// be relied on. It is safe for concurrent use. See "Sessions and trust" in the package's documentation.
type Session struct {
	core   *core
	id     LeaseID
	ctx    context.Context // done when the session is lost
	cancel context.CancelCauseFunc

	trust atomic.Pointer[trust] // written by the keeper, never nil

	revoked sync.Once // Close has begun to revoke

	mu      sync.Mutex    // protects changed
	changed chan struct{} // closed and replaced at each change of state

	renewal // owned by the keeper
}

// Session returns the client's own session: the one that all recipes share unless told otherwise. It is made on first
// use, and anew after a loss; ctx bounds the making only. The session returned is live, not necessarily Active.
func (c *Client) Session(ctx context.Context) (*Session, error) {
	return c.core.own.get(ctx, c)
}

// NewSession makes a session of its own. ctx bounds the making only. The caller should Close it; the end of the client
// closes it as well.
func (c *Client) NewSession(ctx context.Context, opts ...SessionOption) (*Session, error) {
	conf := sessionConfig{ttl: c.core.cfg.SessionTTL}
	for _, o := range opts {
		o.applySession(&conf)
	}
	g, err := c.core.grant(ctx, conf.ttl)
	if err != nil {
		return nil, fmt.Errorf("new session: %w", err)
	}
	s := newSession(c.core, g)
	if err := c.core.keeper.add(s); err != nil {
		s.cancel(err)
		return nil, &Error{Op: "new session", Kind: err}
	}
	return s, nil
}

func newSession(co *core, g granted) *Session {
	s := &Session{core: co, id: g.id, changed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.trust.Store(&trust{sentAt: g.sentAt, ttl: g.ttl})
	return s
}

// ID returns the session's lease, to attach keys to.
func (s *Session) ID() LeaseID { return s.id }

// TTL returns the lease's TTL as the server granted it last.
func (s *Session) TTL() time.Duration { return s.trust.Load().ttl }

// State returns the session's state at this moment. It is a cheap, local call.
func (s *Session) State() State {
	state, _ := s.look()
	return state
}

// Remaining returns for how long the session can be trusted if no further renewal succeeds; zero when it is lost. Time
// for which the process may have been suspended counts. It is a cheap, local call: make it right before each side effect
// that relies on the session.
func (s *Session) Remaining() time.Duration {
	_, remaining := s.look()
	return remaining
}

// look judges the session now. Who finds that the process was suspended asks for a renewal at once.
func (s *Session) look() (State, time.Duration) {
	if s.ctx.Err() != nil {
		return Lost, 0
	}
	t, now := s.trust.Load(), s.core.clock.now()
	if t.suspended(now) {
		s.core.keeper.poke()
	}
	return t.state(now), t.remaining(now)
}

// Doubt asks for a renewal at once, and does not wait for it: for whoever was told that the lease does not exist, such as
// by [ErrLeaseNotFound]. If that is so, the session is Lost when the renewal is answered, and not a third of a TTL later.
func (s *Session) Doubt() { s.core.keeper.hurry(s) }

// Context returns a context that is done when the session is Lost. Its cause is a [*SessionError], which is
// [ErrSessionLost] after a loss and [ErrSessionClosed] after Close.
func (s *Session) Context() context.Context { return s.ctx }

// Err returns nil while the session is not Lost, then the cause of its Context.
func (s *Session) Err() error { return context.Cause(s.ctx) }

// States yields the state now and after each change, and ends after Lost or when ctx is done. A slow loop sees the
// latest state only.
func (s *Session) States(ctx context.Context) iter.Seq[State] {
	return func(yield func(State) bool) {
		for first, last := true, Lost; ; first = false {
			changed := s.changes() // before looking, so that nothing is missed in between
			state := s.State()
			if first || state != last {
				if !yield(state) || state == Lost {
					return
				}
				last = state
			}
			select {
			case <-changed:
			case <-s.ctx.Done():
			case <-ctx.Done():
				return
			}
		}
	}
}

// Client returns the client that the session belongs to, without a namespace.
func (s *Session) Client() *Client { return &Client{core: s.core} }

// Close ends the session at once for this process, then revokes its lease, which deletes the keys attached to it. If
// the revocation does not succeed before ctx is done, its error is returned and the lease ends by itself within its
// TTL. A ctx without a deadline is bounded by Config.RequestTimeout. Further calls do nothing.
func (s *Session) Close(ctx context.Context) error {
	s.core.keeper.end(s, ErrSessionClosed)
	var err error
	s.revoked.Do(func() {
		if err = s.core.revoke(ctx, s.id); errors.Is(err, ErrLeaseNotFound) {
			err = nil
		}
	})
	if err != nil {
		return fmt.Errorf("close session %s: %w", s.id, err)
	}
	return nil
}

func (s *Session) changes() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// announce wakes all that wait for a change of state.
func (s *Session) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// ownSession is the client's own session, made on demand by one caller at a time.
type ownSession struct {
	turn    chan struct{} // holds one element: the right to make a session
	current atomic.Pointer[Session]
}

func (o *ownSession) init() {
	o.turn = make(chan struct{}, 1)
	o.turn <- struct{}{}
}

func (o *ownSession) get(ctx context.Context, c *Client) (*Session, error) {
	if s := o.live(); s != nil {
		return s, nil
	}
	ctx, cancel := c.core.bounded(ctx)
	defer cancel()
	select {
	case <-o.turn:
	case <-ctx.Done():
		return nil, &Error{Op: "session", Kind: ErrUnavailable, causes: []error{ctxError(ctx)}}
	case <-c.core.ctx.Done():
		return nil, &Error{Op: "session", Kind: ErrClosed}
	}
	defer func() { o.turn <- struct{}{} }()
	if s := o.live(); s != nil {
		return s, nil
	}
	s, err := c.NewSession(ctx)
	if err == nil {
		o.current.Store(s)
	}
	return s, err
}

func (o *ownSession) live() *Session {
	if s := o.current.Load(); s != nil && s.State() != Lost {
		return s
	}
	return nil
}
