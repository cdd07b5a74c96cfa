package interop_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/interop/harness"
)

type registerOp int

const (
	readOp registerOp = iota
	writeOp
	swapOp
)

type registerInput struct {
	op         registerOp
	key        string
	old, value string
}

type registerOutput struct {
	value   string // of a get; empty when there is none
	swapped bool   // of a compare-and-swap
	unknown bool
}

func (in registerInput) run(ctx context.Context, c *client.Client) (out registerOutput, rev client.Revision, err error) {
	switch in.op {
	case readOp:
		kv, err := c.GetOne(ctx, in.key)
		if errors.Is(err, client.ErrNotFound) {
			err = nil
		}
		return registerOutput{value: string(kv.Value)}, 0, err
	case writeOp:
		res, err := c.Put(ctx, in.key, []byte(in.value))
		if err != nil {
			return out, 0, err
		}
		return out, res.Revision, nil
	default:
		res, err := c.Txn().If(client.Value(in.key).Equal([]byte(in.old))).Then(client.OpPut(in.key, []byte(in.value))).Commit(ctx)
		if err != nil {
			return out, 0, err
		}
		return registerOutput{swapped: res.Succeeded}, res.Revision, nil
	}
}

// registerModel is one key. An operation of unknown outcome may take effect at
// any time up to the end of the history, where it shows to nobody.
var registerModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := make(map[string][]porcupine.Operation)
		for _, op := range history {
			key := op.Input.(registerInput).key
			byKey[key] = append(byKey[key], op)
		}
		var out [][]porcupine.Operation
		for _, ops := range byKey {
			out = append(out, ops)
		}
		return out
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in, out := input.(registerInput), output.(registerOutput)
		switch {
		case in.op == readOp:
			return out.value == state, state
		case in.op == writeOp:
			return true, in.value
		case out.unknown:
			if state == in.old {
				return true, in.value
			}
			return true, state
		default:
			if out.swapped != (state == in.old) {
				return false, state
			}
			if out.swapped {
				return true, in.value
			}
			return true, state
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

func (l *load) checkLinearizable(t *testing.T) {
	t.Helper()
	result := porcupine.CheckOperationsTimeout(registerModel, l.history, checkTimeout)
	require.Equal(t, porcupine.Ok, result, "linearizability of %d operations", len(l.history))
}

// A model that accepts everything would prove nothing.
func TestRegisterModelRefuses(t *testing.T) {
	const key = "k"
	put := func(v string, call, ret int64) porcupine.Operation {
		return porcupine.Operation{ClientId: 1, Input: registerInput{op: writeOp, key: key, value: v}, Output: registerOutput{}, Call: call, Return: ret}
	}
	get := func(v string, call, ret int64) porcupine.Operation {
		return porcupine.Operation{ClientId: 2, Input: registerInput{op: readOp, key: key}, Output: registerOutput{value: v}, Call: call, Return: ret}
	}
	require.True(t, porcupine.CheckOperations(registerModel, []porcupine.Operation{put("a", 0, 10), get("", 1, 2), get("a", 3, 4)}))
	require.False(t, porcupine.CheckOperations(registerModel, []porcupine.Operation{put("a", 0, 1), get("", 2, 3)}), "a lost write")
	require.False(t, porcupine.CheckOperations(registerModel, []porcupine.Operation{put("a", 0, 10), get("a", 1, 2), get("", 3, 4)}), "a stale read")
}

// watches are loops over all changes, one through each member and one through
// all of them.
type watches struct {
	wg     sync.WaitGroup
	cancel context.CancelFunc
	seen   [][]client.Event
	errs   []error
}

func startWatches(t *testing.T, ctx context.Context, c *harness.Cluster) *watches {
	t.Helper()
	w := &watches{}
	ctx, w.cancel = context.WithCancel(ctx)
	t.Cleanup(func() { w.cancel(); w.wg.Wait() })
	clients := []*client.Client{newOurClient(t, c)}
	for _, url := range c.Endpoints() {
		clients = append(clients, newOurClient(t, c, url))
	}
	w.seen, w.errs = make([][]client.Event, len(clients)), make([]error, len(clients))
	for i, cli := range clients {
		w.wg.Go(func() {
			for ev, err := range cli.Watch(ctx, crashPrefix, client.Prefix(), client.FromRevision(1)) {
				if err != nil {
					w.errs[i] = err
					return
				}
				w.seen[i] = append(w.seen[i], ev)
				if ev.KV.Key == crashPrefix+"end" {
					return
				}
			}
		})
	}
	return w
}

// finish writes a last key, waits until every watch has seen it and compares
// what they have seen: the same, in order, each change once.
func (w *watches) finish(t *testing.T, ctx context.Context, c *harness.Cluster) []client.Event {
	t.Helper()
	_, err := newOurClient(t, c).Put(ctx, crashPrefix+"end", nil)
	require.NoError(t, err)
	w.wg.Wait()
	require.NoError(t, errors.Join(w.errs...))
	for i, events := range w.seen {
		require.NotEmpty(t, events)
		for j := 1; j < len(events); j++ {
			require.Greater(t, events[j].KV.ModRevision, events[j-1].KV.ModRevision, "watch %d", i)
		}
		require.Equal(t, len(w.seen[0]), len(events), "watch %d", i)
		for j := range events {
			require.Equal(t, w.seen[0][j], events[j], "watch %d", i)
		}
	}
	t.Logf("%d watches saw %d events each", len(w.seen), len(w.seen[0]))
	return w.seen[0]
}

// checkAcknowledged holds the watch and the store against the writes that were
// acknowledged: each must be an event with its value at its revision, and the
// last event of a key must be what every member reads.
func (l *load) checkAcknowledged(t *testing.T, ctx context.Context, c *harness.Cluster, events []client.Event) {
	t.Helper()
	require.NotEmpty(t, l.acked)
	last := make(map[string]client.KV)
	for _, ev := range events {
		last[ev.KV.Key] = ev.KV
	}
	for _, w := range l.acked {
		i, found := slices.BinarySearchFunc(events, w.revision, func(ev client.Event, rev client.Revision) int {
			return int(ev.KV.ModRevision - rev)
		})
		require.True(t, found, "the acknowledged write of %s at revision %d is gone", w.key, w.revision)
		require.Equal(t, w.key, events[i].KV.Key)
		require.Equal(t, w.value, string(events[i].KV.Value))
	}
	for _, url := range c.Endpoints() {
		res, err := newOurClient(t, c, url).Get(ctx, crashPrefix, client.Prefix())
		require.NoError(t, err)
		require.Len(t, res.KVs, len(last))
		for _, kv := range res.KVs {
			require.Equal(t, last[kv.Key], kv, "through %s", url)
		}
	}
}
