package cache_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/cache"
	"github.com/latchkey-go/latchkey/recipes/cache/cachetest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestCache(t *testing.T) {
	cachetest.Run(t, servertest.One(t).Endpoints())
}

// Each member in turn is killed and started again, its log and all: the cache goes on
// with another, without a gap, and never goes back, also where the member that it
// moves to is still catching up.
func TestCacheOutlivesMembers(t *testing.T) {
	cluster := servertest.Three(t)
	c := cluster.Client()
	ca, err := cache.New[int](c, "n/")
	require.NoError(t, err)
	defer func() { require.NoError(t, ca.Close()) }()
	require.NoError(t, ca.WaitSynced(t.Context()))
	listening, events := make(chan struct{}), make(chan error, 1)
	go func() {
		last, want := client.Revision(0), 0
		for ev, err := range ca.Events(t.Context()) {
			switch {
			case err != nil:
				events <- err
				return
			case ev.Rev < last || ev.Type == cache.Resynced && last > 0 || ev.Type != cache.Resynced && ev.New.Value != want:
				events <- fmt.Errorf("after revision %d, before value %d: %+v", last, want, ev)
				return
			}
			if last = ev.Rev; ev.Type == cache.Resynced {
				close(listening)
				continue
			}
			want++
			if ev.Key == "end" {
				events <- nil
				return
			}
		}
	}()
	n := 0
	write := func(key string) {
		// A put that has no answer may be executed: then it is not repeated, as the next value tells.
		err := c.Update(t.Context(), func(tx *client.Tx) error {
			tx.Put("n/"+key, []byte(fmt.Sprint(n)))
			return nil
		}, client.ExactlyOnce())
		require.NoError(t, err)
		n++
	}
	<-listening
	for i := range 3 {
		cluster.Kill(i)
		for range 20 {
			write("k")
		}
		require.NoError(t, ca.Sync(t.Context()))
		got, _ := ca.Get("k")
		require.Equal(t, n-1, got.Value)
		cluster.Restart(i)
		for range 20 {
			write("k")
		}
	}
	write("end")
	require.NoError(t, <-events)
	require.NoError(t, ca.Err())
}
