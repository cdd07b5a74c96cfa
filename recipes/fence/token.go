package fence

import (
	"context"
	"errors"
	"fmt"
	"iter"
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

// contextKey is the key of the newest carried token in a context.
type contextKey struct{}

// carried is a token that a context carries, and those that it carried before.
type carried struct {
	name   string
	token  Token
	before *carried
}

// NewContext returns ctx with the token under the lock's name, for code further
// down that writes to a resource and does not know the lock's handle. A context
// can carry tokens of several locks. Zero takes away a token that ctx carries.
func NewContext(ctx context.Context, name string, t Token) context.Context {
	before, _ := ctx.Value(contextKey{}).(*carried)
	return context.WithValue(ctx, contextKey{}, &carried{name: name, token: t, before: before})
}

// FromContext returns the token that ctx carries under the lock's name.
func FromContext(ctx context.Context, name string) (Token, bool) {
	c, _ := ctx.Value(contextKey{}).(*carried)
	for ; c != nil; c = c.before {
		if c.name == name {
			return c.token, c.token != 0
		}
	}
	return 0, false
}

// Tokens yields all tokens that ctx carries, with the names of their locks.
func Tokens(ctx context.Context) iter.Seq2[string, Token] {
	return func(yield func(string, Token) bool) {
		seen := make(map[string]bool)
		c, _ := ctx.Value(contextKey{}).(*carried)
		for ; c != nil; c = c.before {
			if !seen[c.name] && c.token != 0 && !yield(c.name, c.token) {
				return
			}
			seen[c.name] = true
		}
	}
}
