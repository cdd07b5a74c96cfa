package server_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server/servertest"
)

// A follower that was away while more was written than the leader keeps in its
// log gets a checkpoint, while writes go on, and then has everything.
func TestFollowerBehindTheLogGetsACheckpoint(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	leader := c.Leader()
	behind := (leader + 1) % 3
	m := dial(t, c.Endpoints()[leader])
	before := c.Member(behind).InstalledCheckpoints()
	require.Zero(t, before)
	c.Kill(behind)

	// 64 MiB in values of 64 KiB, twice what the log keeps in memory at most.
	const writers, each = 8, 128
	value := string(make([]byte, 64<<10))
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := m.Put(ctx, put(fmt.Sprintf("big/%d/%d", w, i%16), value)); err != nil {
					t.Errorf("put: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.False(t, t.Failed())

	w := startWriter(t, c, "during", leader)
	c.Restart(behind)
	w.await(t, 100)
	w.finish()
	require.NotZero(t, c.Member(behind).InstalledCheckpoints(), "the follower caught up from the log: nothing was tested")
	w.requireAll(t, c, "during", behind)

	f := dial(t, c.Endpoints()[behind])
	got, err := f.Range(ctx, &pb.RangeRequest{Key: []byte("big/"), RangeEnd: []byte("big0"), CountOnly: true})
	require.NoError(t, err)
	require.EqualValues(t, writers*16, got.Count)

	// The state that it got is a member's own: it restarts on it.
	c.Kill(behind)
	c.Restart(behind)
	got, err = f.Range(ctx, &pb.RangeRequest{Key: []byte("big/"), RangeEnd: []byte("big0"), CountOnly: true, Serializable: true})
	require.NoError(t, err)
	require.EqualValues(t, writers*16, got.Count)
}
