package counter

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/latchkey-go/latchkey/client"
)

// Value is a value of type T in the store. Any number of Value objects of one name, in any
// number of processes, are the same value. It is safe for concurrent use.
type Value[T any] struct {
	client *client.Client
	name   string
	codec  client.Codec[T]
}

// Version is a value as it was from one revision on.
type Version[T any] struct {
	Value T
	// Revision is that of the change that made the value what it is; zero when there is
	// none, and Value is the zero value.
	Revision client.Revision
}

// NewValue returns the value with the name. It does nothing yet. Without a codec it is
// JSON.
func NewValue[T any](c *client.Client, name string, codec ...client.Codec[T]) *Value[T] {
	v := &Value[T]{client: c, name: name, codec: client.JSON[T]()}
	if len(codec) > 0 {
		v.codec = codec[0]
	}
	return v
}

// Name returns the value's name, which is its key.
func (v *Value[T]) Name() string { return v.name }

// Get returns the value and the revision of its last change, or [client.ErrNotFound]. A
// [*client.DecodeError] when the bytes are no T.
func (v *Value[T]) Get(ctx context.Context) (T, client.Revision, error) {
	var zero T
	kv, err := v.client.GetOne(ctx, v.name)
	if err != nil {
		return zero, 0, fmt.Errorf("get value %q: %w", v.name, err)
	}
	got, err := v.decode(kv)
	return got.Value, got.Revision, err
}

// Set sets the value, once, whatever it was, and returns the revision.
//
// Errors: [client.ErrUncertain] when it is not known whether the value was set, as ctx
// has ended or the session was lost before it could be found out.
func (v *Value[T]) Set(ctx context.Context, value T) (client.Revision, error) {
	return v.set(ctx, value, func(*client.Tx) error { return nil })
}

// TrySet sets the value if its last change is still that of rev, and returns the
// revision. A rev of zero means that there is no value. Otherwise it returns
// [client.ErrConflict], and nothing has changed. Other errors are those of Set.
func (v *Value[T]) TrySet(ctx context.Context, value T, rev client.Revision) (client.Revision, error) {
	first := true
	set, err := v.set(ctx, value, func(tx *client.Tx) error {
		tx.If(client.ModRevision(v.name).Equal(rev))
		if first {
			first = false
			return nil
		}
		kv, err := tx.Get(v.name)
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return err
		}
		if kv.ModRevision != rev {
			return errUnchanged
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		return 0, fmt.Errorf("set value %q: %w", v.name, client.ErrConflict)
	}
	return set, err
}

func (v *Value[T]) set(ctx context.Context, value T, check func(*client.Tx) error) (client.Revision, error) {
	if v.name == "" {
		return 0, ErrName
	}
	b, err := v.codec.Encode(value)
	if err != nil {
		return 0, fmt.Errorf("encode value %q: %w", v.name, err)
	}
	var out client.Revision
	err = once(ctx, v.client, func(tx *client.Tx) error {
		if err := check(tx); err != nil {
			return err
		}
		tx.Put(v.name, b)
		tx.AfterCommit(func(rev client.Revision) { out = rev })
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("set value %q: %w", v.name, err)
	}
	return out, nil
}

// Watch yields the value now and after each change, also that there is none; see
// "Guarantees" in the package's documentation. Bytes that are no T are yielded as a
// [*client.DecodeError], and the watch goes on if the loop does. It ends with an error:
// that of ctx, or one that waiting does not cure.
func (v *Value[T]) Watch(ctx context.Context) iter.Seq2[Version[T], error] {
	return func(yield func(Version[T], error) bool) {
		for kv, err := range follow(ctx, v.client, v.name) {
			var got Version[T]
			if err == nil && kv.ModRevision > 0 {
				got, err = v.decode(kv)
			}
			if !yield(got, err) {
				return
			}
		}
	}
}

func (v *Value[T]) decode(kv client.KV) (Version[T], error) {
	value, err := v.codec.Decode(kv.Value)
	if err != nil {
		return Version[T]{Revision: kv.ModRevision}, &client.DecodeError{Key: v.name, Err: err}
	}
	return Version[T]{Value: value, Revision: kv.ModRevision}, nil
}
