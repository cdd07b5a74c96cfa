package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	root   *Client // that of NewTyped
	client *Client // with the prefix as its namespace
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
func NewTyped[T any](c *Client, prefix string, codec ...Codec[T]) *Typed[T] {
	t := &Typed[T]{root: c, client: c.Namespace(prefix), codec: JSON[T]()}
	if len(codec) > 0 {
		t.codec = codec[0]
	}
	return t
}

// Get reads one value, or returns [ErrNotFound]. [*DecodeError] when the bytes are no T.
func (t *Typed[T]) Get(ctx context.Context, key string, opts ...ReadOption) (Item[T], error) {
	kv, err := t.client.GetOne(ctx, key, opts...)
	if err != nil {
		return Item[T]{}, err
	}
	return t.item(kv)
}

// List reads all values, in order of their keys, all of one revision, which it returns: a watch from the revision after
// it misses nothing. [*DecodeError] when one of them is no T.
func (t *Typed[T]) List(ctx context.Context, opts ...ReadOption) ([]Item[T], Revision, error) {
	all := []GetOption{Prefix()}
	for _, o := range opts {
		all = append(all, o)
	}
	res, err := t.client.Get(ctx, "", all...)
	if err != nil {
		return nil, 0, err
	}
	items, err := t.items(res.KVs)
	return items, res.Revision, err
}

// Put writes a value, whatever was there, and returns the revision. The last writer wins.
func (t *Typed[T]) Put(ctx context.Context, key string, v T, opts ...PutOption) (Revision, error) {
	b, err := t.encode(key, v)
	if err != nil {
		return 0, err
	}
	res, err := t.client.Put(ctx, key, b, opts...)
	if err != nil {
		return 0, err
	}
	return res.Revision, nil
}

// Create writes a value where there is none, or returns [ErrExists].
func (t *Typed[T]) Create(ctx context.Context, key string, v T, opts ...PutOption) (Revision, error) {
	return t.swap(ctx, key, 0, v, opts, ErrExists)
}

// CompareAndSwap writes a value if the key's last change is still that of rev, or returns [ErrConflict]. A rev of zero
// means that the key must not exist.
func (t *Typed[T]) CompareAndSwap(ctx context.Context, key string, rev Revision, v T, opts ...PutOption) (Revision, error) {
	return t.swap(ctx, key, rev, v, opts, ErrConflict)
}

func (t *Typed[T]) swap(ctx context.Context, key string, rev Revision, v T, opts []PutOption, failed error) (Revision, error) {
	b, err := t.encode(key, v)
	if err != nil {
		return 0, err
	}
	return t.commitIf(ctx, key, rev, OpPut(key, b, opts...), failed)
}

// Update replaces a value by what f makes of it, in a loop until nobody else changed it in between. f is told whether
// the key exists; without, old is the zero value. An error of f ends the Update and is returned as it is. The lease of
// the key stays as it is. See [Client.Update] for the bounds and for what can be uncertain.
func (t *Typed[T]) Update(ctx context.Context, key string, f func(old T, exists bool) (T, error), opts ...UpdateOption) (Item[T], error) {
	var item Item[T]
	// Not from the client with the prefix: a marker of ExactlyOnce must not stand among the values.
	err := t.root.Update(ctx, func(outer *Tx) error {
		tx := outer.In(t.client)
		kv, err := tx.Get(key)
		exists := err == nil
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		item = Item[T]{Key: key}
		if exists {
			if item, err = t.item(kv); err != nil {
				return err
			}
		}
		if item.Value, err = f(item.Value, exists); err != nil {
			return err
		}
		b, err := t.encode(key, item.Value)
		if err != nil {
			return err
		}
		if exists {
			tx.Put(key, b, KeepLease())
		} else {
			tx.Put(key, b)
		}
		tx.AfterCommit(func(rev Revision) {
			item.Revision = rev
			if !exists {
				item.CreateRevision = rev
			}
		})
		return nil
	}, opts...)
	if err != nil {
		return Item[T]{}, err
	}
	return item, nil
}

// Delete deletes a value and says whether there was one.
func (t *Typed[T]) Delete(ctx context.Context, key string) (bool, error) {
	res, err := t.client.Delete(ctx, key)
	return err == nil && res.Deleted > 0, err
}

// CompareAndDelete deletes a value if the key's last change is still that of rev, or returns [ErrConflict].
func (t *Typed[T]) CompareAndDelete(ctx context.Context, key string, rev Revision) error {
	_, err := t.commitIf(ctx, key, rev, OpDelete(key), ErrConflict)
	return err
}

// commitIf executes op if the key's last change is that of rev, or returns failed.
func (t *Typed[T]) commitIf(ctx context.Context, key string, rev Revision, op Op, failed error) (Revision, error) {
	res, err := t.client.Txn().If(ModRevision(key).Equal(rev)).Then(op).Commit(ctx)
	if err != nil {
		return 0, err
	}
	if !res.Succeeded {
		return 0, fmt.Errorf("key %q: %w", key, failed)
	}
	return res.Revision, nil
}

// Watch yields every change of one value, or of all with [Prefix] and an empty key. It is [Client.Watch]; in addition, a
// value that is no T is yielded as an event together with a [*DecodeError], and the watch goes on if the loop does.
func (t *Typed[T]) Watch(ctx context.Context, key string, opts ...WatchOption) iter.Seq2[TypedEvent[T], error] {
	return func(yield func(TypedEvent[T], error) bool) {
		for ev, err := range t.client.Watch(ctx, key, opts...) {
			if err != nil {
				yield(TypedEvent[T]{}, err)
				return
			}
			out := TypedEvent[T]{Type: ev.Type, Item: bareItem[T](ev.KV)}
			if ev.Type == EventPut {
				out.Item, err = t.item(ev.KV)
			}
			if !yield(out, err) {
				return
			}
		}
	}
}

// GetTx is Get in a transaction.
func (t *Typed[T]) GetTx(tx *Tx, key string) (T, error) {
	var zero T
	kv, err := tx.In(t.client).Get(key)
	if err != nil {
		return zero, err
	}
	item, err := t.item(kv)
	return item.Value, err
}

// ListTx is List in a transaction, with the bounds of [Tx.List]; [Limit] may be given.
func (t *Typed[T]) ListTx(tx *Tx, opts ...ListOption) ([]Item[T], error) {
	kvs, err := tx.In(t.client).List("", append([]ListOption{Prefix()}, opts...)...)
	if err != nil {
		return nil, err
	}
	return t.items(kvs)
}

// PutTx is Put in a transaction. A value that can not be encoded fails the transaction too.
func (t *Typed[T]) PutTx(tx *Tx, key string, v T, opts ...PutOption) error {
	b, err := t.encode(key, v)
	if err != nil {
		tx.run.fail(err)
		return err
	}
	tx.In(t.client).Put(key, b, opts...)
	return nil
}

// DeleteTx is Delete in a transaction.
func (t *Typed[T]) DeleteTx(tx *Tx, key string) { tx.In(t.client).Delete(key) }

func (t *Typed[T]) encode(key string, v T) ([]byte, error) {
	b, err := t.codec.Encode(v)
	if err != nil {
		return nil, fmt.Errorf("encode value of key %q: %w", key, err)
	}
	return b, nil
}

// bareItem returns an item without its value.
func bareItem[T any](kv KV) Item[T] {
	return Item[T]{Key: kv.Key, Revision: kv.ModRevision, CreateRevision: kv.CreateRevision, Lease: kv.Lease}
}

func (t *Typed[T]) item(kv KV) (Item[T], error) {
	item := bareItem[T](kv)
	v, err := t.codec.Decode(kv.Value)
	if err != nil {
		return item, &DecodeError{Key: kv.Key, Err: err}
	}
	item.Value = v
	return item, nil
}

func (t *Typed[T]) items(kvs []KV) ([]Item[T], error) {
	out := make([]Item[T], len(kvs))
	for i, kv := range kvs {
		var err error
		if out[i], err = t.item(kv); err != nil {
			return nil, err
		}
	}
	return out, nil
}
