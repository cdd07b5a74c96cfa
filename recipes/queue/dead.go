package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

// DeadLetters are the jobs that have failed too often, were discarded, or have
// killed too many workers. They stay until somebody redrives or purges them.
type DeadLetters struct{ core *core }

// Dead returns the queue's dead letters.
func (q *core) Dead() *DeadLetters { return &DeadLetters{core: q} }

// Items yields the dead letters, in order of their shards and names, page by page
// at one revision.
func (d *DeadLetters) Items(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		var rev client.Revision
		for kv, err := range d.core.pages(ctx, shard.DeadPrefix, &rev) {
			if err != nil {
				yield(Info{}, fmt.Errorf("dead letters of %q: %w", d.core.name, err))
				return
			}
			in := infoOf(kv, nil, 0)
			in.State = Dead
			if !yield(in, nil) {
				return
			}
		}
	}
}

// Redrive puts dead letters back into the queue, with all their attempts before
// them and the same names; all of them if none is named. It returns how many. One
// that is not among the dead letters is passed by.
func (d *DeadLetters) Redrive(ctx context.Context, ids ...ID) (int, error) {
	n := 0
	err := d.each(ctx, ids, func(kv client.KV) error {
		moved, err := d.core.redrive(ctx, kv)
		if moved {
			n++
		}
		return err
	})
	if err != nil {
		return n, fmt.Errorf("redrive in %q: %w", d.core.name, err)
	}
	return n, nil
}

// redrive moves one dead letter, if it is still there.
func (q *core) redrive(ctx context.Context, kv client.KV) (bool, error) {
	for {
		conf, err := q.load(ctx)
		if err != nil {
			return false, err
		}
		t, err := shard.Redrive(kvOf(kv), time.Now().UnixMilli(), conf.keep, conf.mod)
		if err != nil {
			return false, err
		}
		a, again, err := q.settle(ctx, t)
		if err != nil {
			return false, certain(err, again)
		}
		there := a.Succeeded || len(a.Results[0].KVs) > 0 && a.Results[0].KVs[0].Create == int64(kv.CreateRevision)
		if a.Succeeded || !there {
			return a.Succeeded || again, nil
		}
		// The configuration has changed.
	}
}

// Purge deletes dead letters; all of them if none is named. It returns how many.
func (d *DeadLetters) Purge(ctx context.Context, ids ...ID) (int, error) {
	n := 0
	err := d.each(ctx, ids, func(kv client.KV) error {
		res, err := d.core.client.Delete(ctx, kv.Key)
		if err == nil {
			n += int(res.Deleted)
		}
		return err
	})
	if err != nil {
		return n, fmt.Errorf("purge dead letters of %q: %w", d.core.name, err)
	}
	return n, nil
}

func (d *DeadLetters) each(ctx context.Context, ids []ID, f func(client.KV) error) error {
	if len(ids) == 0 {
		var rev client.Revision
		for kv, err := range d.core.pages(ctx, shard.DeadPrefix, &rev) {
			if err == nil {
				err = f(kv)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, id := range ids {
		kv, err := d.core.client.GetOne(ctx, shard.DeadKey(string(id)))
		if errors.Is(err, client.ErrNotFound) {
			continue
		}
		if err == nil {
			err = f(kv)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
