package queue_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestBasics(t *testing.T) {
	c := servertest.One(t).Client()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	q, err := queue.Open[string](ctx, c, "mail", queue.WithShards(4), queue.WithBackoff(func(int) time.Duration { return time.Millisecond }))
	require.NoError(t, err)
	const jobs = 200
	var mu sync.Mutex
	seen := make(map[string]int)
	work, stop := context.WithCancel(ctx)
	for i := range jobs {
		_, err := q.Enqueue(ctx, fmt.Sprint(i))
		require.NoError(t, err)
	}
	done := make(chan error, 1)
	ended := 0
	go func() {
		done <- q.Run(work, func(ctx context.Context, j *queue.Job[string]) error {
			mu.Lock()
			defer mu.Unlock()
			seen[j.Value]++
			if j.Value == "7" && j.Attempt < 3 {
				return errors.New("not yet")
			}
			if j.Value == "8" {
				tx := j.Tx()
				tx.Put("account", []byte("1"))
			}
			if ended++; ended == jobs {
				stop()
			}
			return nil
		})
	}()
	require.NoError(t, <-done)
	require.Len(t, seen, jobs)
	require.Equal(t, 3, seen["7"])
	st, err := q.Stats(ctx)
	require.NoError(t, err)
	require.Equal(t, queue.Stats{Shards: 4, Priorities: 1}, st)
	kv, err := c.GetOne(ctx, "account")
	require.NoError(t, err)
	require.Equal(t, client.Revision(kv.CreateRevision), kv.ModRevision)
	left, err := c.Get(ctx, "q/mail/", client.Prefix(), client.KeysOnly())
	require.NoError(t, err)
	for _, kv := range left.KVs {
		t.Log(kv.Key)
	}
}
