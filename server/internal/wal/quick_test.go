package wal

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

func TestQuick(t *testing.T) {
	m := disk.NewMem(1)
	n := uint64(0)
	c := Config{FS: m, Dir: "/w", Identity: Identity{1, 2}, SegmentBytes: 8192, Inline: true, Salt: func() uint64 { n++; return n }}
	l, err := Create(c, Base{})
	require.NoError(t, err)
	for i := uint64(1); i <= 40; i++ {
		term := i/10 + 1
		require.NoError(t, l.Append(Batch{Entries: []*raftpb.Entry{{Term: &term, Index: &i, Data: make([]byte, 300+i)}}}, true))
	}
	require.NoError(t, l.Release(30))
	t.Log(m.Names(), l.Stats())
	m.Crash()
	l, r, err := Open(c)
	require.NoError(t, err)
	t.Log(r.Base, len(r.Entries), r.HardState)
	require.NoError(t, l.Close())
	t.Log(m.Names())
	l, r, err = Open(c)
	require.NoError(t, err)
	t.Log(r.Base, len(r.Entries), r.HardState)
}
