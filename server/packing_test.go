package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// Memory is packed once after a load that was large enough, and not while it lasts.
func TestPackingWaitsForTheEndOfTheLoad(t *testing.T) {
	var p packing
	small := packSize{live: 1 << 20, keys: 1000}
	require.False(t, p.due(packLeastBytes/2, true, small), "busy")
	require.False(t, p.due(0, true, small), "little was written")
	require.False(t, p.due(packLeastBytes/2, true, small), "busy")
	require.False(t, p.due(0, false, small), "no regular interval")
	require.True(t, p.due(packQuietBytes, true, small))
	require.False(t, p.due(0, true, small), "it was done")

	p.written = packLeastBytes
	large := packSize{live: 2 * packLeastBytes, keys: 1000}
	require.False(t, p.due(0, true, large), "less was written than lives")
	p.written = packLiveMax + 1
	require.False(t, p.due(0, true, packSize{live: packLiveMax + 1}), "too many bytes")
	require.False(t, p.due(0, true, packSize{keys: packKeysMax + 1}), "too many keys")
	require.True(t, p.due(0, true, packSize{live: packLiveMax, keys: packKeysMax}))
}

// A pass over a store leaves it as it was, whoever reads meanwhile.
func TestStorePack(t *testing.T) {
	const keys = 3*packKeys + 1
	m := state.New(state.Config{HistoryBytes: 1, Archive: emptyArchive{}})
	for i := range keys {
		m.Apply(uint64(i+1), 1, []state.Command{{Request: &pb.PutRequest{
			Key: fmt.Appendf(nil, "key %04d", i), Value: []byte(strings.Repeat("v", 100)),
		}}})
		m.TakeChanges()
		m.Archived(m.Revision())
	}
	s := newStore(m)
	require.Equal(t, keys, s.packSize().keys)
	before, digest := s.view(), m.Digest()
	steps, from := 0, ""
	for more := true; more; more = from != "" {
		from = s.pack(from)
		steps++
		require.Equal(t, before.Get("key 0000"), s.view().Get("key 0000"))
	}
	require.Equal(t, 4, steps)
	require.Equal(t, digest, m.Digest())
	require.NoError(t, m.Check())
	require.NotSame(t, before.Get("key 0000"), s.view().Get("key 0000"), "it is not where it was")
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	want, err := before.Range(all)
	require.NoError(t, err)
	got, err := s.view().Range(all)
	require.NoError(t, err)
	require.Len(t, got.GetKvs(), keys)
	require.Equal(t, want.GetKvs(), got.GetKvs())
}

// emptyArchive takes what leaves memory and never gives it back.
type emptyArchive struct{}

func (emptyArchive) Version(state.Revision) (*state.Version, error)     { return nil, nil }
func (emptyArchive) Scan(int64, int64, func(*state.Version) bool) error { return nil }
