package client

import (
	"context"
	"iter"
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
type Session struct{}

// Session returns the client's own session: the one that all recipes share unless told otherwise. It is made on first
// use, and anew after a loss; ctx bounds the making only. The session returned is live, not necessarily Active.
func (c *Client) Session(ctx context.Context) (*Session, error) { panic("not yet") }

// NewSession makes a session of its own. ctx bounds the making only. The caller should Close it; the end of the client
// closes it as well.
func (c *Client) NewSession(ctx context.Context, opts ...SessionOption) (*Session, error) {
	panic("not yet")
}

// ID returns the session's lease, to attach keys to.
func (s *Session) ID() LeaseID { panic("not yet") }

// TTL returns the lease's TTL as the server granted it.
func (s *Session) TTL() time.Duration { panic("not yet") }

// State returns the session's state at this moment. It is a cheap, local call.
func (s *Session) State() State { panic("not yet") }

// Remaining returns for how long the session can be trusted if no further renewal succeeds. Zero when it is lost, and
// while the process does not know for how long it was suspended. It is a cheap, local call: make it right before each
// side effect that relies on the session.
func (s *Session) Remaining() time.Duration { panic("not yet") }

// Context returns a context that is done when the session is Lost. Its cause is a [*SessionError], which is
// [ErrSessionLost] after a loss and [ErrSessionClosed] after Close.
func (s *Session) Context() context.Context { panic("not yet") }

// Err returns nil while the session is not Lost, then the cause of its Context.
func (s *Session) Err() error { panic("not yet") }

// States yields the state now and after each change, and ends after Lost or when ctx is done. A slow loop sees the
// latest state only.
func (s *Session) States(ctx context.Context) iter.Seq[State] { panic("not yet") }

// Client returns the client that the session belongs to, without a namespace.
func (s *Session) Client() *Client { panic("not yet") }

// Close ends the session at once for this process, then revokes its lease, which deletes the keys attached to it. If
// the revocation does not succeed before ctx is done, its error is returned and the lease ends by itself within its
// TTL. A ctx without a deadline is bounded by Config.RequestTimeout. Further calls do nothing.
func (s *Session) Close(ctx context.Context) error { panic("not yet") }
