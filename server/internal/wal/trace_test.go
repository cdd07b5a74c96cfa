package wal_test

import (
	"flag"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// TestTrace holds the order of the file operations, on which all that is promised rests, against testdata/trace.txt.
// After a change that is meant: go test ./server/internal/wal -run Trace -rewrite, and read the difference.
func TestTrace(t *testing.T) {
	var out strings.Builder
	m := disk.NewMem(1)
	m.SetFault(func(op disk.Op) error {
		fmt.Fprintf(&out, "%s %s", op.Kind, path.Base(op.Name))
		switch op.Kind {
		case disk.OpRename:
			fmt.Fprintf(&out, " -> %s", path.Base(op.To))
		case disk.OpRead, disk.OpWrite:
			fmt.Fprintf(&out, " %d+%d", op.Offset, op.Length)
		}
		fmt.Fprintln(&out)
		return nil
	})
	say := func(what string) { fmt.Fprintf(&out, "\n# %s\n", what) }
	put := func(l *wal.Log, index uint64, sync bool) {
		require.NoError(t, l.Append(wal.Batch{Entries: []*raftpb.Entry{entry(index, 1, make([]byte, 300))}}, sync))
	}
	c := config(m, 4096)

	say("create")
	l := mustCreate(t, c, wal.Base{})
	say("append 1, synced")
	put(l, 1, true)
	say("append 2, not synced")
	put(l, 2, false)
	say("append an empty batch, synced")
	require.NoError(t, l.Append(wal.Batch{}, true))
	say("append 3, and a spare for the next segment")
	put(l, 3, true)
	put(l, 4, false)
	say("append 5 to 11: the second one begins a segment, after a sync of the first")
	for i := uint64(5); i <= 11; i++ {
		put(l, i, i > 5)
	}
	say("append 12 to 17: another segment")
	for i := uint64(12); i <= 17; i++ {
		put(l, i, true)
	}
	say("release 10: there is a spare, so the segment is removed")
	require.NoError(t, l.Release(10))
	say("append 18: another segment")
	put(l, 18, true)
	say("release 17: the oldest segment becomes the spare")
	require.NoError(t, l.Release(17))
	say("append a reset")
	require.NoError(t, l.Append(wal.Batch{Reset: &wal.Base{Index: 30, Term: 2}, HardState: hard(2, 0, 30)}, true))
	say("close")
	require.NoError(t, l.Close())
	say("open after a clean stop")
	l, _ = mustOpen(t, c)
	say("append 31, then lose power and open: the newest segment has more than one batch")
	put(l, 31, true)
	mark := out.String()
	m.Crash()
	require.Equal(t, mark, out.String())
	_, rec := mustOpen(t, c)
	require.Nil(t, rec.Torn)
	say("open with a torn end")
	name := "/wal/0000000000000005.wal"
	b, err := m.ReadFile(name)
	require.NoError(t, err)
	b[3*sector+5*sector-1] = 1
	require.NoError(t, m.WriteFile(name, b))
	_, rec = mustOpen(t, c)
	require.NotNil(t, rec.Torn)

	requireGolden(t, path.Join("testdata", "trace.txt"), out.String())
}

func requireGolden(t *testing.T, golden, got string) {
	if *rewrite {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}
