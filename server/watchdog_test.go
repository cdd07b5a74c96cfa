package server

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

// slowFiles is the operating system's file system until stall is set: then a
// sync waits until resume is closed.
type slowFiles struct {
	syncFiles
	stall  *atomic.Bool
	resume chan struct{}
}

func newSlowFiles() slowFiles {
	f := slowFiles{stall: new(atomic.Bool), resume: make(chan struct{})}
	f.syncFiles = syncFiles{disk.OS(), func() error {
		if f.stall.Load() {
			<-f.resume
		}
		return nil
	}}
	return f
}

// A leader whose disk does not answer hands over, so that others decide; it ends
// when the disk does not answer for long, and says so. What was acknowledged is
// with the others.
func TestStalledDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	files := []slowFiles{newSlowFiles(), newSlowFiles(), newSlowFiles()}
	members := threeMembers(t, func(i int, cfg *Config) {
		cfg.files = files[i]
		cfg.Checks.StallTimeout, cfg.Checks.slowDisk = 3*time.Second, 300*time.Millisecond
	})
	bad := leaderOf(t, members)
	good := members[(bad+1)%3]
	require.NoError(t, putOn(ctx, good, "before", "v"))
	files[bad].stall.Store(true)
	defer close(files[bad].resume) // so that the end of what waits can be waited for

	for i := 0; good.leader.Load() == members[bad].ID() || !good.HasLeader(); i++ {
		putCtx, cancel := context.WithTimeout(ctx, time.Second)
		_ = putOn(putCtx, good, "during", fmt.Sprint(i)) // so that there is something to write
		cancel()
		require.NoError(t, ctx.Err(), "the leader does not hand over")
	}
	require.NoError(t, putOn(ctx, good, "after", "v"))
	require.Positive(t, members[bad].meters.care.slowSyncs.Load())
	select {
	case <-members[bad].Done():
		require.ErrorIs(t, members[bad].Err(), ErrStalled)
	case <-ctx.Done():
		t.Fatal("the member neither works nor ends")
	}
	require.NoError(t, putOn(ctx, good, "later", "v"))
}
