package cache

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/latchkey-go/latchkey/client"
)

// Option is an option of New.
type Option[T any] interface{ applyCache(*schema[T]) }

// PersistentOption is an option of NewPersistent.
type PersistentOption[T any] interface{ applyPersistent(*Persistent[T]) }

// schema is what a cache was told about its items. It is immutable after New.
type schema[T any] struct {
	codec   client.Codec[T]
	filters []func(client.Item[T]) bool
	indexes []index[T]
	log     *slog.Logger
}

type index[T any] struct {
	name  string
	terms func(T) []string
}

type option[T any] func(*schema[T])

func (o option[T]) applyCache(s *schema[T]) { o(s) }

// WithIndex lets [Cache.ByIndex] find items by what terms returns for their
// values: any number of strings, of which the same one counts once. terms is
// called once for each value that the cache takes in, and must not change it.
func WithIndex[T any](name string, terms func(T) []string) Option[T] {
	return option[T](func(s *schema[T]) { s.indexes = append(s.indexes, index[T]{name, terms}) })
}

// WithFilter leaves out all items that keep does not return true for: they are not
// in the cache, and a change that brings an item past the filter is an Added event,
// or a Deleted one. Of several filters, all have to keep it.
func WithFilter[T any](keep func(client.Item[T]) bool) Option[T] {
	return option[T](func(s *schema[T]) { s.filters = append(s.filters, keep) })
}

// WithLogger is told what keeps the cache from following its prefix, and of values
// that can not be decoded. Default: nothing is logged.
func WithLogger[T any](log *slog.Logger) Option[T] {
	return option[T](func(s *schema[T]) { s.log = log })
}

// WithCodec is how values are stored. Default: JSON.
func WithCodec[T any](c client.Codec[T]) interface {
	Option[T]
	PersistentOption[T]
} {
	return codecOption[T]{c}
}

type codecOption[T any] struct{ codec client.Codec[T] }

func (o codecOption[T]) applyCache(s *schema[T])          { s.codec = o.codec }
func (o codecOption[T]) applyPersistent(p *Persistent[T]) { p.codec = o.codec }

func newSchema[T any](opts []Option[T]) (*schema[T], error) {
	s := &schema[T]{codec: client.JSON[T](), log: slog.New(slog.DiscardHandler)}
	for _, o := range opts {
		o.applyCache(s)
	}
	if s.codec == nil || s.log == nil {
		return nil, fmt.Errorf("cache: an option is nil")
	}
	for i, x := range s.indexes {
		if x.terms == nil || slices.ContainsFunc(s.indexes[:i], func(y index[T]) bool { return x.name == y.name }) {
			return nil, fmt.Errorf("cache: index %q has no function, or is given twice", x.name)
		}
	}
	if slices.ContainsFunc(s.filters, func(f func(client.Item[T]) bool) bool { return f == nil }) {
		return nil, fmt.Errorf("cache: a filter is nil")
	}
	return s, nil
}

// entry makes what the cache keeps of a key, or nil when a filter leaves it out.
func (s *schema[T]) entry(kv client.KV) *entry[T] {
	e := &entry[T]{item: client.Item[T]{
		Key: kv.Key, Revision: kv.ModRevision, CreateRevision: kv.CreateRevision, Lease: kv.Lease,
	}}
	v, err := s.codec.Decode(kv.Value)
	if err != nil {
		e.err = &client.DecodeError{Key: kv.Key, Err: err}
		s.log.Warn("value can not be decoded; its key is left out", "key", kv.Key, "revision", kv.ModRevision, "error", err)
		return e
	}
	e.item.Value = v
	for _, keep := range s.filters {
		if !keep(e.item) {
			return nil
		}
	}
	if len(s.indexes) > 0 {
		e.terms = make([][]string, len(s.indexes))
	}
	for i, x := range s.indexes {
		terms := slices.Clone(x.terms(v))
		slices.Sort(terms)
		e.terms[i] = slices.Compact(terms)
	}
	return e
}
