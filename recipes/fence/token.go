package fence

import (
	"context"
	"errors"
	"fmt"
)

// Token is a number that strictly grows from one holder of a lock to the next.
// Zero is no token, and is never admitted. Tokens of different locks have
// nothing to do with each other.
type Token uint64

// ErrStale says that a newer token has been seen: the caller no longer holds
// what it believes to hold. [*StaleError] carries the details.
var ErrStale = errors.New("fencing token is stale")

// StaleError is the refusal of a token. It is [ErrStale].
type StaleError struct {
	Resource string
	Token    Token // the one that was refused
	Newest   Token // the newest one that the resource has seen
}

// Error tells both tokens.
func (e *StaleError) Error() string {
	return fmt.Sprintf("%v: %d for %q, which has seen %d", ErrStale, e.Token, e.Resource, e.Newest)
}

// Is makes the error ErrStale.
func (e *StaleError) Is(target error) bool { return target == ErrStale }

// contextKey is a lock's name as a key of context values.
type contextKey string

// NewContext returns ctx with the token under the lock's name, for code further
// down that writes to a resource and does not know the lock's handle. A context
// can carry tokens of several locks.
func NewContext(ctx context.Context, name string, t Token) context.Context {
	return context.WithValue(ctx, contextKey(name), t)
}

// FromContext returns the token that ctx carries under the lock's name.
func FromContext(ctx context.Context, name string) (Token, bool) {
	t, ok := ctx.Value(contextKey(name)).(Token)
	return t, ok && t != 0
}
