// Package view follows the keys under a prefix: what they are now, and what they
// are after each change, always all of one revision and never an older one than
// before.
//
// It is what recipes watch others with. It survives what a watch does not: where
// history was compacted away, all keys are read again, and the difference shows.
package view

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// Source is what is followed: a [*client.Client].
type Source interface {
	Get(ctx context.Context, key string, opts ...client.GetOption) (*client.GetResult, error)
	WatchBatches(ctx context.Context, key string, opts ...client.WatchOption) iter.Seq2[client.WatchBatch, error]
}

// View is what the keys were at one revision.
type View struct {
	Revision client.Revision
	KVs      []client.KV // in the order of their keys, which have lost the prefix
	// Gone are the keys that were in the view before and no longer are, as they were
	// last, be it in between.
	Gone []client.KV
	// Resynced says that events were missed: the keys were read anew.
	Resynced bool
}

// Follow yields the view of the keys under the prefix at this moment, and then
// after each change. The events of one transaction are in one view; those that
// come together may be.
//
// While the cluster can not be reached, nothing is yielded: what was yielded last
// is the best that is known. trouble, which may be nil, is told each time the
// keys could not be read. The loop ends with an error, when ctx is done or when
// trying again does not help, or by a break.
func Follow(ctx context.Context, src Source, prefix string, trouble func(error)) iter.Seq2[View, error] {
	if trouble == nil {
		trouble = func(error) {}
	}
	return func(yield func(View, error) bool) {
		f := &follower{src: src, prefix: prefix, trouble: trouble, gone: make(map[string]client.KV)}
		if err := f.run(ctx, func(v View) bool { return yield(v, nil) }); err != nil {
			yield(View{}, err)
		}
	}
}

// follower is one loop of Follow.
type follower struct {
	src     Source
	prefix  string
	trouble func(error)

	revision client.Revision      // that kvs are of
	kvs      map[string]client.KV // by key without the prefix
	shown    map[string]bool      // keys of the last view
	gone     map[string]client.KV // as they were last
}

// run returns why the loop ends, or nil when yield wants no more.
func (f *follower) run(ctx context.Context, yield func(View) bool) error {
	for resynced := false; ; resynced = true {
		if err := f.read(ctx); err != nil {
			return err
		}
		if !yield(f.view(resynced)) {
			return nil
		}
		if again, err := f.watch(ctx, yield); !again {
			return err
		}
	}
}

// read reads all keys, again and again until it succeeds. An answer of an older
// revision than what was seen already does not count.
func (f *follower) read(ctx context.Context) error {
	for n := 0; ; n++ {
		res, err := f.src.Get(ctx, f.prefix, client.Prefix())
		switch {
		case ctx.Err() != nil:
			return retry.Why(ctx)
		case err == nil && res.Revision >= f.revision:
			maps.Copy(f.gone, f.kvs)
			f.revision, f.kvs = res.Revision, make(map[string]client.KV, len(res.KVs))
			for _, kv := range res.KVs {
				f.set(kv)
			}
			return nil
		case err != nil && !retry.Temporary(err):
			return err
		case err != nil:
			f.trouble(err)
		}
		if !retry.Pause(ctx, n) {
			return retry.Why(ctx)
		}
	}
}

// watch yields a view for each batch of events. again says that the keys have to
// be read anew.
func (f *follower) watch(ctx context.Context, yield func(View) bool) (again bool, err error) {
	for batch, err := range f.src.WatchBatches(ctx, f.prefix, client.Prefix(), client.FromRevision(f.revision+1)) {
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return false, retry.Why(ctx)
		case errors.Is(err, client.ErrCompacted):
			return true, nil
		case retry.Temporary(err):
			f.trouble(err)
			return retry.Pause(ctx, 0), retry.Why(ctx)
		default:
			return false, err
		}
		if f.apply(batch) && !yield(f.view(false)) {
			return false, nil
		}
	}
	return false, nil
}

// apply takes over the events that are new and says whether there were any.
func (f *follower) apply(batch client.WatchBatch) bool {
	changed := false
	for _, ev := range batch.Events {
		if ev.KV.ModRevision <= f.revision {
			continue
		}
		changed = true
		if ev.Type == client.EventPut {
			f.set(ev.KV)
			continue
		}
		key := strings.TrimPrefix(ev.KV.Key, f.prefix)
		f.gone[key] = f.kvs[key]
		delete(f.kvs, key)
	}
	f.revision = max(f.revision, batch.Revision)
	return changed
}

func (f *follower) set(kv client.KV) {
	kv.Key = strings.TrimPrefix(kv.Key, f.prefix)
	f.kvs[kv.Key] = kv
}

func (f *follower) view(resynced bool) View {
	v := View{Revision: f.revision, KVs: make([]client.KV, 0, len(f.kvs)), Resynced: resynced}
	shown := make(map[string]bool, len(f.kvs))
	for _, key := range slices.Sorted(maps.Keys(f.kvs)) {
		v.KVs = append(v.KVs, f.kvs[key])
		shown[key] = true
	}
	for _, key := range slices.Sorted(maps.Keys(f.gone)) {
		if f.shown[key] && !shown[key] {
			v.Gone = append(v.Gone, f.gone[key])
		}
	}
	f.shown = shown
	clear(f.gone)
	return v
}
