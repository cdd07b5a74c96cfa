package queue

import (
	"context"
	"errors"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

const (
	// The pause before a request is sent again.
	resendMin = 2 * time.Millisecond
	resendMax = 500 * time.Millisecond
)

func compareOf(c shard.Compare) client.Compare {
	var over []client.RangeOption
	if c.End != "" {
		over = []client.RangeOption{client.Range(c.End)}
	}
	if c.Field == shard.Value {
		f := client.Value(c.Key, over...)
		if c.Less {
			return f.Less(c.Value)
		}
		return f.Equal(c.Value)
	}
	f := client.CreateRevision(c.Key, over...)
	if c.Field == shard.Mod {
		f = client.ModRevision(c.Key, over...)
	}
	if c.Less {
		return f.Less(client.Revision(c.Rev))
	}
	return f.Equal(client.Revision(c.Rev))
}

func comparesOf(cs []shard.Compare) []client.Compare {
	out := make([]client.Compare, len(cs))
	for i, c := range cs {
		out[i] = compareOf(c)
	}
	return out
}

func opOf(op shard.Op) client.Op {
	switch op.Kind {
	case shard.Put:
		if op.Lease != 0 {
			return client.OpPut(op.Key, op.Value, client.WithLease(client.LeaseID(op.Lease)))
		}
		return client.OpPut(op.Key, op.Value)
	case shard.Delete:
		if op.End != "" {
			return client.OpDelete(op.Key, client.Range(op.End))
		}
		return client.OpDelete(op.Key)
	case shard.Nest:
		return client.OpTxn(comparesOf(op.Txn.If), opsOf(op.Txn.Then), opsOf(op.Txn.Else))
	}
	var opts []client.GetOption
	if op.End != "" {
		opts = append(opts, client.Range(op.End))
	}
	if op.Limit > 0 {
		opts = append(opts, client.Limit(op.Limit))
	}
	if op.Rev > 0 {
		opts = append(opts, client.AtRevision(client.Revision(op.Rev)))
	}
	return client.OpGet(op.Key, opts...)
}

func opsOf(ops []shard.Op) []client.Op {
	out := make([]client.Op, len(ops))
	for i, op := range ops {
		out[i] = opOf(op)
	}
	return out
}

func kvOf(kv client.KV) shard.KV {
	return shard.KV{Key: kv.Key, Value: kv.Value, Create: int64(kv.CreateRevision), Mod: int64(kv.ModRevision)}
}

func kvsOf(kvs []client.KV) []shard.KV {
	out := make([]shard.KV, len(kvs))
	for i, kv := range kvs {
		out[i] = kvOf(kv)
	}
	return out
}

func answerOf(res *client.TxnResult, rev client.Revision) *shard.Answer {
	a := &shard.Answer{Revision: int64(rev), Succeeded: res.Succeeded}
	for _, r := range res.Results {
		var out shard.Result
		switch {
		case r.Get != nil:
			out.KVs = kvsOf(r.Get.KVs)
		case r.Txn != nil:
			out.Txn = answerOf(r.Txn, rev)
		}
		a.Results = append(a.Results, out)
	}
	return a
}

// do executes a transaction once.
func (q *core) do(ctx context.Context, t shard.Txn) (*shard.Answer, error) {
	res, err := q.client.Txn().If(comparesOf(t.If)...).Then(opsOf(t.Then)...).Else(opsOf(t.Else)...).Commit(ctx)
	if err != nil {
		return nil, err
	}
	return answerOf(res, res.Revision), nil
}

// settle executes a transaction until its outcome is known, ctx ends, or it is
// refused. again says that it may have been executed before the last attempt; if
// the error is set, whether it may have been executed at all.
func (q *core) settle(ctx context.Context, t shard.Txn) (a *shard.Answer, again bool, err error) {
	for n := 0; ; n++ {
		a, err = q.do(ctx, t)
		if err == nil {
			return a, again, nil
		}
		if errors.Is(err, client.ErrUncertain) {
			again = true
		} else if !retry.Temporary(err) {
			return nil, again, err
		}
		if ctx.Err() != nil || !pause(ctx, n) {
			return nil, again, err
		}
	}
}

// pause waits before attempt n+1. It returns false when ctx ends first.
func pause(ctx context.Context, n int) bool { return retry.BackoffWithin(ctx, n, resendMin, resendMax) }

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
