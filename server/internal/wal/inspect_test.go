package wal_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// lookOnly fails the test when anything is changed.
type lookOnly struct {
	disk.FS
	t *testing.T
}

func (l lookOnly) Create(name string) (disk.File, error) {
	l.t.Errorf("creates %s", name)
	return l.FS.Create(name)
}
func (l lookOnly) Rename(from, to string) error { l.t.Errorf("renames %s", from); return nil }
func (l lookOnly) Remove(name string) error     { l.t.Errorf("removes %s", name); return nil }
func (l lookOnly) SyncDir(dir string) error     { l.t.Errorf("syncs %s", dir); return nil }

// Inspect finds what Open finds, after a clean stop, after a crash and with a torn end, and changes nothing.
func TestInspectFindsWhatOpenFinds(t *testing.T) {
	for _, how := range []string{"closed", "crashed", "torn", "damaged", "empty"} {
		t.Run(how, func(t *testing.T) {
			m := disk.NewMem(1)
			c := config(m, 4096)
			l, err := wal.Create(c, wal.Base{})
			require.NoError(t, err)
			for i := range uint64(20) {
				b := wal.Batch{Entries: []*raftpb.Entry{entry(i+1, 1, make([]byte, 40*i))}, HardState: hard(1, 1, i)}
				require.NoError(t, l.Append(b, true))
			}
			require.NoError(t, l.Close())
			names := m.Names()
			newest := ""
			for _, name := range names {
				if strings.HasSuffix(name, ".wal") {
					newest = name
				}
			}
			if how != "closed" {
				require.NoError(t, m.Remove(c.Dir+"/closed"))
			}
			b, err := m.ReadFile(newest)
			require.NoError(t, err)
			switch how {
			case "torn":
				end := len(bytes.TrimRight(b, "\x00")) // in the last sector of the last batch
				clear(b[(end-1)/512*512 : end])
			case "damaged":
				b[520] ^= 0xff
			}
			require.NoError(t, m.WriteFile(newest, b))
			if how == "empty" {
				for _, name := range m.Names() {
					require.NoError(t, m.Remove(name))
				}
			}
			looking := c
			looking.FS = lookOnly{m, t}
			got, gotErr := wal.Inspect(looking)
			looking.Identity = wal.Identity{}
			again, againErr := wal.Inspect(looking)
			require.Equal(t, got, again)
			require.Equal(t, gotErr, againErr)
			l, want, wantErr := wal.Open(c)
			require.Equal(t, wantErr, gotErr)
			if wantErr != nil {
				return
			}
			require.NoError(t, l.Close())
			require.Equal(t, how == "torn", want.Torn != nil)
			if want.Torn != nil {
				want.Torn.Copy = ""
			}
			require.Equal(t, want, got.Recovery)
			require.Equal(t, how == "closed", got.Clean)
			require.Greater(t, got.Segments, 1)
			require.Equal(t, c.Identity, got.Identity)
		})
	}
}
