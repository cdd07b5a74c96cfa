package queue

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

// oldMax bounds the reshardings whose old shards are not empty yet.
const oldMax = 4

// Reshard cuts the queue into another number of shards. Producers put what comes
// from then on into new ones; workers empty the old ones beside them, and begin
// with groups in newer ones when all older ones are empty, so their order is kept.
// Workers forget old shards once they are empty.
//
// Errors: [ErrOption]; [ErrMismatch] when too many old shards are not empty; client.ErrConflict
// when somebody else changed the configuration; and those of the client.
func (q *core) Reshard(ctx context.Context, shards int) error {
	if shards < 1 || shards > shardsMax {
		return fmt.Errorf("reshard queue %q: %w: %d shards", q.name, ErrOption, shards)
	}
	if err := q.forgetShards(ctx); err != nil {
		return q.wrap("reshard", err)
	}
	conf, err := q.load(ctx)
	if err != nil {
		return q.wrap("reshard", err)
	}
	next := *conf
	next.Old = append(append([]span(nil), conf.Old...), span{First: conf.First, Shards: conf.Shards})
	next.First, next.Shards = conf.First+conf.Shards, shards
	if next.First+shards > 1<<16 {
		next.First = 0 // numbers are used again
	}
	for _, s := range next.Old {
		if next.First < s.First+s.Shards && s.First < next.First+shards || len(next.Old) > oldMax {
			return fmt.Errorf("reshard queue %q: %w: old shards are not empty", q.name, ErrMismatch)
		}
	}
	if err := q.makeMarks(ctx, next.First, shards, next.Lanes); err != nil {
		return q.wrap("reshard", err)
	}
	return q.wrap("reshard", q.reconfigure(ctx, conf, &next, nil))
}

// forgetShards forgets old shards that are empty. No producer adds to them, so they
// stay so.
func (q *core) forgetShards(ctx context.Context) error {
	conf, err := q.load(ctx)
	if err != nil {
		return err
	}
	next := *conf
	next.Old = nil
	var guard []client.Compare
	var gone []client.Op
	for _, s := range conf.Old {
		empty := true
		for n := s.First; n < s.First+s.Shards && empty; n++ {
			res, err := q.client.Get(ctx, shard.ItemsOf(n), client.Prefix(), client.Limit(1), client.KeysOnly())
			if err != nil {
				return err
			}
			empty = len(res.KVs) == 0
		}
		if !empty {
			next.Old = append(next.Old, s)
			continue
		}
		last := s.First + s.Shards - 1
		guard = append(guard, client.Missing(shard.ItemsOf(s.First), client.Range(shard.PrefixEnd(shard.ItemsOf(last)))))
		marks := client.OpDelete(shard.MarkKey(s.First, 0), client.Range(shard.MarkKey(last, lanesMax)))
		gone = append(gone, marks)
	}
	if len(next.Old) == len(conf.Old) {
		return nil
	}
	return q.reconfigure(ctx, conf, &next, gone, guard...)
}

func (q *core) reconfigure(ctx context.Context, old, next *config, also []client.Op, guard ...client.Compare) error {
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	guard = append(guard, client.ModRevision(shard.ConfigKey).Equal(client.Revision(old.mod)))
	res, err := q.client.Txn().If(guard...).Then(append(also, client.OpPut(shard.ConfigKey, value))...).Commit(ctx)
	if err != nil {
		return err
	}
	if !res.Succeeded {
		return client.ErrConflict
	}
	_, err = q.load(ctx)
	return err
}
