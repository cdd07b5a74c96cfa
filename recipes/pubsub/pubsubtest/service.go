package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

// testService has several servers share the requests of several clients.
func testService(t *testing.T, h *harness) {
	const servers, clients, each = 3, 4, 25
	s := pubsub.NewService[int, string](h.c, "add/one")
	_, err := pubsub.Request(h.ctx, s, 1)
	require.ErrorIs(t, err, pubsub.ErrNoServer)
	_, err = pubsub.Request(h.ctx, pubsub.NewService[int, int](h.c, "a:b"), 1)
	require.ErrorIs(t, err, pubsub.ErrName)
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	var mu sync.Mutex
	handled := make(map[int]int)
	done := make(chan error, servers)
	for i := range servers {
		srv := pubsub.NewService[int, string](h.client(client.Config{}), "add/one")
		go func() {
			done <- srv.Serve(ctx, func(_ context.Context, n int) (string, error) {
				mu.Lock()
				handled[i]++
				mu.Unlock()
				switch n {
				case -1:
					return "", errors.New("negative")
				case -2:
					panic("far too negative")
				}
				return fmt.Sprint(n + 1), nil
			})
		}()
	}
	h.await("service/add/one:server/", func(kvs []client.KV) bool { return len(kvs) == servers })
	errs := make(chan error, clients)
	for range clients {
		c := pubsub.NewService[int, string](h.client(client.Config{}), "add/one")
		go func() {
			for i := range each {
				res, err := pubsub.Request(h.ctx, c, i)
				if err == nil && res != fmt.Sprint(i+1) {
					err = fmt.Errorf("%d and one is %s", i, res)
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range clients {
		require.NoError(t, h.wait(errs))
	}
	_, err = pubsub.Request(h.ctx, s, -1)
	require.ErrorIs(t, err, pubsub.ErrRemote)
	var remote *pubsub.RemoteError
	require.ErrorAs(t, err, &remote)
	require.Equal(t, "negative", remote.Message)
	_, err = pubsub.Request(h.ctx, s, -2)
	require.ErrorIs(t, err, pubsub.ErrRemote)
	cancel()
	for range servers {
		require.ErrorIs(t, h.wait(done), context.Canceled)
	}
	require.Len(t, handled, servers, "all have had some")
	res, err := h.c.Get(h.ctx, "service/", client.Prefix())
	require.NoError(t, err)
	for _, kv := range res.KVs {
		require.NotZero(t, kv.Lease, "what is left ends with its client: %s", kv.Key)
	}
}

// testServerLeaves: a request whose server leaves goes to another, and one that is
// given up leaves nothing.
func testServerLeaves(t *testing.T, h *harness) {
	begun := make(chan struct{}, 10)
	serve := func(ctx context.Context, answer string) <-chan error {
		s := pubsub.NewService[int, string](h.client(client.Config{}), "s")
		return background(func() error {
			return s.Serve(ctx, func(ctx context.Context, n int) (string, error) {
				if answer != "" {
					return answer, nil
				}
				begun <- struct{}{}
				<-ctx.Done()
				return "", ctx.Err()
			})
		})
	}
	stuck, leave := context.WithCancel(h.ctx)
	first := serve(stuck, "")
	h.await("service/s:server/", func(kvs []client.KV) bool { return len(kvs) == 1 })
	s := pubsub.NewService[int, string](h.c, "s")
	var res string
	asked := background(func() (err error) { res, err = pubsub.Request(h.ctx, s, 1); return err })
	<-begun
	ctx, cancel := context.WithCancel(h.ctx)
	given := background(func() error { _, err := pubsub.Request(ctx, s, 2); return err })
	<-begun
	cancel()
	require.ErrorIs(t, h.wait(given), context.Canceled)
	h.await("service/s:call/", func(kvs []client.KV) bool { return len(kvs) == 1 })
	other, end := context.WithCancel(h.ctx)
	second := serve(other, "second")
	h.await("service/s:server/", func(kvs []client.KV) bool { return len(kvs) == 2 })
	leave()
	require.ErrorIs(t, h.wait(first), context.Canceled)
	require.NoError(t, h.wait(asked))
	require.Equal(t, "second", res)
	end()
	require.ErrorIs(t, h.wait(second), context.Canceled)
}
