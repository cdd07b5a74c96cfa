package client

import (
	"context"
	"encoding/json"
	"iter"
)

// Codec turns values into bytes and back. It must be safe for concurrent use.
type Codec[T any] interface {
	Encode(v T) ([]byte, error)
	Decode(b []byte) (T, error)
}

// JSON returns the codec of encoding/json: the default of typed values.
func JSON[T any]() Codec[T] { return jsonCodec[T]{} }

type jsonCodec[T any] struct{}

func (jsonCodec[T]) Encode(v T) ([]byte, error) { return json.Marshal(v) }

func (jsonCodec[T]) Decode(b []byte) (v T, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}

// Typed is a set of keys under a prefix whose values are of type T. It is safe for concurrent use, immutable, and holds
// nothing open.
type Typed[T any] struct {
	client *Client
	codec  Codec[T]
}

// Item is one typed value as it was at one revision.
type Item[T any] struct {
	Key   string // without the prefix
	Value T
	// Revision is the revision of the last change: what CompareAndSwap wants.
	Revision Revision
	// CreateRevision is the revision at which the key came into being.
	CreateRevision Revision
	// Lease is the lease that the key ends with, or zero.
	Lease LeaseID
}

// TypedEvent is one change of one typed value.
type TypedEvent[T any] struct {
	Type EventType
	// Item is the value after the change. Of a deleted key, only Key and Revision (of the deletion) are set.
	Item Item[T]
}

// NewTyped returns the typed values under the prefix, which by convention ends in "/". Without a codec they are JSON.
func NewTyped[T any](c *Client, prefix string, codec ...Codec[T]) *Typed[T] { panic("not yet") }

// Get reads one value, or returns [ErrNotFound]. [*DecodeError] when the bytes are no T.
func (t *Typed[T]) Get(ctx context.Context, key string, opts ...ReadOption) (Item[T], error) {
	panic("not yet")
}

// List reads all values, in order of their keys, all of one revision, which it returns: a watch from the revision after
// it misses nothing.
func (t *Typed[T]) List(ctx context.Context, opts ...ReadOption) ([]Item[T], Revision, error) {
	panic("not yet")
}

// Put writes a value, whatever was there, and returns the revision. The last writer wins.
func (t *Typed[T]) Put(ctx context.Context, key string, v T, opts ...PutOption) (Revision, error) {
	panic("not yet")
}

// Create writes a value where there is none, or returns [ErrExists].
func (t *Typed[T]) Create(ctx context.Context, key string, v T, opts ...PutOption) (Revision, error) {
	panic("not yet")
}

// CompareAndSwap writes a value if the key's last change is still that of rev, or returns [ErrConflict]. A rev of zero
// means that the key must not exist.
func (t *Typed[T]) CompareAndSwap(ctx context.Context, key string, rev Revision, v T, opts ...PutOption) (Revision, error) {
	panic("not yet")
}

// Update replaces a value by what f makes of it, in a loop until nobody else changed it in between. f is told whether
// the key exists; without, old is the zero value. An error of f ends the Update and is returned as it is.
func (t *Typed[T]) Update(ctx context.Context, key string, f func(old T, exists bool) (T, error), opts ...UpdateOption) (Item[T], error) {
	panic("not yet")
}

// Delete deletes a value and says whether there was one.
func (t *Typed[T]) Delete(ctx context.Context, key string) (bool, error) { panic("not yet") }

// CompareAndDelete deletes a value if the key's last change is still that of rev, or returns [ErrConflict].
func (t *Typed[T]) CompareAndDelete(ctx context.Context, key string, rev Revision) error {
	panic("not yet")
}

// Watch yields every change of one value, or of all with [Prefix] and an empty key. It is [Client.Watch]; in addition, a
// value that is no T is yielded as an event together with a [*DecodeError], and the watch goes on if the loop does.
func (t *Typed[T]) Watch(ctx context.Context, key string, opts ...WatchOption) iter.Seq2[TypedEvent[T], error] {
	panic("not yet")
}

// GetTx is Get in a transaction.
func (t *Typed[T]) GetTx(tx *Tx, key string) (T, error) { panic("not yet") }

// ListTx is List in a transaction, with the bounds of [Tx.List].
func (t *Typed[T]) ListTx(tx *Tx) ([]Item[T], error) { panic("not yet") }

// PutTx is Put in a transaction. A value that can not be encoded fails the transaction too.
func (t *Typed[T]) PutTx(tx *Tx, key string, v T, opts ...PutOption) error { panic("not yet") }

// DeleteTx is Delete in a transaction.
func (t *Typed[T]) DeleteTx(tx *Tx, key string) { panic("not yet") }
