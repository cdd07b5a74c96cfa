package checkpoint

import (
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// TestRemovedMembers saves changes of members, reads them back, and looks at the rows that etcd's tools read.
func TestRemovedMembers(t *testing.T) {
	s := create(t, 1)
	m := reload(t, s, 0)
	index := uint64(1)
	apply := func(kind state.Kind, id uint64) {
		index++
		r := m.Apply(index, 1, []state.Command{{Kind: kind, Request: &state.MemberChange{ID: id, Learner: true, MaxLearners: 3}}})
		require.NoError(t, r[0].Err)
	}
	for _, step := range []func(){
		func() { apply(state.KindMemberAdd, 0xb0b) },
		func() { apply(state.KindMemberPromote, 0xb0b) },
		func() { apply(state.KindMemberRemove, 0xb0b); apply(state.KindMemberRemove, testMembers[1].ID) },
		func() { apply(state.KindMemberAdd, 0xde); apply(state.KindMemberRemove, 0xde) },
	} {
		step()
		require.NoError(t, s.Save(m.TakeChanges(), nil))
		require.NoError(t, s.Close())
		s = open(t, s.path)
		m2 := reload(t, s, 0)
		require.Equal(t, m.Digest(), m2.Digest())
		m = m2
	}
	require.Contains(t, m.RemovedMembers(), uint64(0xb0b))
	require.NoError(t, s.view(func(tx *bolt.Tx) error {
		require.Equal(t, []byte("removed"), tx.Bucket(removedBucket).Get([]byte("b0b")))
		require.Nil(t, tx.Bucket(membersBucket).Get([]byte("b0b")))
		return nil
	}))
	_, err := decodeRemoved([]byte("0b0b"))
	require.ErrorIs(t, err, errRow)
}
