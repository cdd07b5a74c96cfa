package election

import (
	"context"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

// identityBytesMax bounds what WithIdentity takes.
const identityBytesMax = 256

// Option is an option of New.
type Option func(*options)

type options struct {
	session  *client.Session
	codec    any // a client.Codec of the election's type
	identity string
	priority int
	preempt  bool
	health   health
}

// WithSession binds candidates to a session instead of the client's own one. The
// session must belong to the same cluster. When it ends, Run ends too; with the
// client's own one it goes on with the next.
func WithSession(s *client.Session) Option { return func(o *options) { o.session = s } }

// WithCodec sets how proposals are written. Default: a string or a []byte as it
// is, which is what etcd's clients expect, and anything else as JSON. The
// codec's type must be that of the election, else every call fails.
func WithCodec[T any](codec client.Codec[T]) Option { return func(o *options) { o.codec = codec } }

// WithIdentity names the candidate, in up to 256 bytes, over restarts of its
// process: it becomes the ID of the candidate. The first campaign of this
// Election then takes a candidate of the same identity for its own former life
// and removes it; if that one led, the new one leads next, with a new term,
// instead of everybody waiting until the old lease has ended. (Candidates of
// etcd's clients do not step back for it.) Two processes that live must not have
// the same identity: the one that starts later ends the leadership of the other.
func WithIdentity(id string) Option { return func(o *options) { o.identity = id } }

// WithPriority ranks the candidate. Who is first in line passes its turn to the
// candidate with the highest priority of all that wait, if that is higher than
// its own; among equals the line decides. Who leads already is not concerned:
// see WithPreempt. Default: 0. Candidates of etcd's clients pass nothing on.
func WithPriority(priority int) Option { return func(o *options) { o.priority = priority } }

// WithPreempt makes the candidate ask a leader of lower priority to step down,
// unless it leads because it was named by a HandOver. In [Election.Run] the
// leader does so when its function has returned.
func WithPreempt() Option { return func(o *options) { o.preempt = true } }

// WithHealth makes the candidate stand only while check returns nil. It is
// called before each candidacy and then after each interval, with a context that
// ends after one interval, at the latest. A candidate that is not healthy leaves
// the line until it is; a leader is asked to step down. The default interval, for
// zero, is one second.
func WithHealth(check func(ctx context.Context) error, interval time.Duration) Option {
	return func(o *options) { o.health = health{check: check, interval: interval} }
}

// codecOf returns the codec for values of type T.
func codecOf[T any](given any) (client.Codec[T], error) {
	if given != nil {
		codec, ok := given.(client.Codec[T])
		if !ok {
			return nil, fmt.Errorf("codec %T is not one of the election's type %T", given, *new(T))
		}
		return codec, nil
	}
	switch any(*new(T)).(type) {
	case string, []byte:
		return raw[T]{}, nil
	}
	return client.JSON[T](), nil
}

// raw is the codec of strings and byte slices, which leaves them as they are.
type raw[T any] struct{}

func (raw[T]) Encode(v T) ([]byte, error) {
	switch v := any(v).(type) {
	case string:
		return []byte(v), nil
	case []byte:
		return v, nil
	}
	panic("codecOf lets no other type in")
}

func (raw[T]) Decode(b []byte) (v T, err error) {
	switch v := any(&v).(type) {
	case *string:
		*v = string(b)
	case *[]byte:
		*v = b
	}
	return v, nil
}
