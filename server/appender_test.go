package server

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/replica"
)

// Who brought work to a leader may write it himself if it is little and the disk
// is quick; a follower's reader if the disk is.
func TestWhoWrites(t *testing.T) {
	entry := func(bytes int) *replica.Append {
		return &replica.Append{Entries: []*raftpb.Entry{{Data: make([]byte, bytes)}}}
	}
	for name, test := range map[string]struct {
		work       []*replica.Append
		sync       time.Duration
		light, all bool
	}{
		"nothing":       {all: true},
		"a small entry": {work: []*replica.Append{entry(100)}, light: true, all: true},
		"a large entry": {work: []*replica.Append{entry(lightBytes + 1)}, all: true},
		"several":       {work: []*replica.Append{entry(1), entry(1)}, all: true},
		"a checkpoint":  {work: []*replica.Append{{Snapshot: &raftpb.Snapshot{}}}, all: true},
		"a slow disk":   {work: []*replica.Append{entry(100)}, sync: quickSync},
	} {
		t.Run(name, func(t *testing.T) {
			a := &appender{inbox: newMailbox[*replica.Append]()}
			for _, w := range test.work {
				a.inbox.add(w)
			}
			a.disk.last.Store(int64(test.sync))
			require.False(t, a.eager(writesNot))
			require.Equal(t, test.light, a.eager(writesLight))
			require.Equal(t, test.all, a.eager(writesAll))
		})
	}
}

// A nudge wakes the appender's goroutine unless somebody writes, who looks again.
func TestNudge(t *testing.T) {
	a := &appender{inbox: newMailbox[*replica.Append]()}
	a.inbox.add(&replica.Append{})
	a.busy.Lock()
	a.nudge()
	require.Empty(t, a.inbox.wake)
	a.busy.Unlock()
	a.nudge()
	require.Len(t, a.inbox.wake, 1)
}
