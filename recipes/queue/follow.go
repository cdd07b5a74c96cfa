package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

// watchShard keeps the watches that a shard needs: of its items while it is ours,
// and of others' journals while there are any.
func (w *worker) watchShard(s *shard.Shard) {
	if _, on := w.follows[s.N]; on != s.Owned() {
		if on {
			w.unfollow(s.N)
		} else {
			ctx, cancel := context.WithCancel(w.life)
			w.follows[s.N] = cancel
			rev := client.Revision(s.Watched())
			w.task(func() { w.follow(ctx, s, rev) })
		}
	}
	if _, on := w.peeks[s.N]; on != s.Foreign() {
		if on {
			w.peeks[s.N]()
			delete(w.peeks, s.N)
		} else {
			ctx, cancel := context.WithCancel(w.life)
			w.peeks[s.N] = cancel
			w.task(func() { w.peek(ctx, s) })
		}
	}
}

func (w *worker) unfollow(n int) {
	if cancel := w.follows[n]; cancel != nil {
		cancel()
		delete(w.follows, n)
	}
}

// follow hands the items that come to the shard.
func (w *worker) follow(ctx context.Context, s *shard.Shard, rev client.Revision) {
	for ctx.Err() == nil {
		err := w.stream(ctx, shard.ItemsOf(s.N), rev, func(b client.WatchBatch) {
			kvs := make([]shard.KV, len(b.Events))
			for i, ev := range b.Events {
				kvs[i] = kvOf(ev.KV)
			}
			s.See(kvs, int64(b.Revision))
		}, client.WithoutDeletes())
		if !errors.Is(err, client.ErrCompacted) {
			w.failed(ctx, err)
			return
		}
		// What was missed is read again.
		res, err := w.q.client.Get(ctx, shard.ConfigKey)
		if err != nil {
			w.failed(ctx, err)
			return
		}
		rev = res.Revision
		if !w.post(func() {
			if ctx.Err() == nil {
				s.Restart(int64(rev))
			}
		}) {
			return
		}
	}
}

// peek hands changes of others' journals to the shard.
func (w *worker) peek(ctx context.Context, s *shard.Shard) {
	prefix := shard.JournalsOf(s.N)
	for ctx.Err() == nil {
		res, err := w.q.client.Get(ctx, prefix, client.Prefix())
		if err != nil {
			w.failed(ctx, err)
			return
		}
		if !w.post(func() { s.Journals(kvsOf(res.KVs)) }) {
			return
		}
		err = w.stream(ctx, prefix, res.Revision, func(b client.WatchBatch) {
			for _, ev := range b.Events {
				kv := kvOf(ev.KV)
				if ev.Type == client.EventDelete {
					kv.Create = 0
				}
				s.Journal(kv)
			}
		})
		if !errors.Is(err, client.ErrCompacted) {
			w.failed(ctx, err)
			return
		}
	}
}

// stream posts what a watch says, until it ends.
func (w *worker) stream(ctx context.Context, prefix string, rev client.Revision, take func(client.WatchBatch), opts ...client.WatchOption) error {
	opts = append(opts, client.Prefix(), client.FromRevision(rev+1))
	for b, err := range w.q.client.WatchBatches(ctx, prefix, opts...) {
		if err != nil {
			return err
		}
		if len(b.Events) == 0 {
			continue
		}
		if !w.post(func() {
			if ctx.Err() == nil {
				take(b)
				w.assign()
			}
		}) {
			return errAnew
		}
	}
	return ctx.Err()
}

// failed ends the worker if a watch could not go on.
func (w *worker) failed(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		w.post(func() { w.kill(fmt.Errorf("watch: %w", err)) })
	}
}
