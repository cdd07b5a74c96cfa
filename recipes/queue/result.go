package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

// Result is what became of a job that was enqueued with KeepResult.
type Result struct {
	// Value is what the handler gave to SetResult, as JSON; nil for nothing.
	Value json.RawMessage `json:"value,omitempty"`
	Dead  bool            `json:"dead,omitempty"`
	Error string          `json:"error,omitempty"` // of a dead job
	Ended time.Time       `json:"ended"`
}

// Wait waits until a job that was enqueued with KeepResult has ended, and returns
// what became of it; with [ErrDead] if it is among the dead letters.
//
// Of a job without KeepResult, or whose result is no longer kept, it can not know:
// [ErrNotFound] if such a job is not in the queue; else it waits until ctx ends.
func (q *core) Wait(ctx context.Context, id ID) (Result, error) {
	key := shard.ResultKey(string(id))
	first := true
	for {
		res, err := q.client.Get(ctx, key)
		if err != nil {
			return Result{}, fmt.Errorf("wait for job %s: %w", id, err)
		}
		if len(res.KVs) > 0 {
			return readResult(id, res.KVs[0].Value)
		}
		if first {
			if _, err := q.find(ctx, id); err != nil {
				// It may have ended between the two reads.
				if res, again := q.client.GetOne(ctx, key); again == nil {
					return readResult(id, res.Value)
				}
				return Result{}, fmt.Errorf("wait for job %s: %w", id, err)
			}
			first = false
		}
		for ev, err := range q.client.Watch(ctx, key, client.FromRevision(res.Revision+1), client.WithoutDeletes()) {
			if errors.Is(err, client.ErrCompacted) {
				break
			}
			if err != nil {
				return Result{}, fmt.Errorf("wait for job %s: %w", id, err)
			}
			return readResult(id, ev.KV.Value)
		}
	}
}

func readResult(id ID, value []byte) (Result, error) {
	var r Result
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("result of job %s: %w", id, err)
	}
	if r.Dead {
		return r, fmt.Errorf("job %s: %w: %s", id, ErrDead, r.Error)
	}
	return r, nil
}
