package checkpoint

import (
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// Alarms and a downgrade survive a restart, and etcd reads them where it looks for its own.
func TestNotices(t *testing.T) {
	s := create(t, 1)
	m := reload(t, s, 0)
	index := uint64(0)
	apply := func(kind state.Kind, request any) {
		t.Helper()
		index++
		require.NoError(t, m.Apply(index, 1, []state.Command{{Kind: kind, Request: request}})[0].Err)
		require.NoError(t, s.Save(m.TakeChanges(), nil))
		require.NoError(t, s.Close())
		s = open(t, s.path)
		again := reload(t, s, 0)
		require.Equal(t, m.Alarms(), again.Alarms())
		require.Equal(t, m.Downgrade(), again.Downgrade())
		require.NoError(t, again.Check())
		m = again
	}
	const on, off = pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE
	corrupt := &pb.AlarmRequest{Action: on, MemberID: 1 << 63, Alarm: pb.AlarmType_CORRUPT}
	apply(state.KindRaise, corrupt)
	apply(state.KindAlarm, &pb.AlarmRequest{Action: on, Alarm: pb.AlarmType_NOSPACE})
	apply(state.KindDowngrade, &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: "3.6.0"})
	require.Equal(t, []state.Alarm{
		{Type: pb.AlarmType_NOSPACE}, {Type: pb.AlarmType_CORRUPT, Member: 1 << 63, Raised: true},
	}, m.Alarms())
	require.NoError(t, s.view(func(tx *bolt.Tx) error {
		want, err := proto.Marshal(&pb.AlarmMember{MemberID: 1 << 63, Alarm: pb.AlarmType_CORRUPT})
		require.NoError(t, err)
		require.NotNil(t, tx.Bucket(alarmBucket).Get(want))
		require.JSONEq(t, `{"target-version":"3.6.0","enabled":true}`, string(tx.Bucket(clusterBucket).Get(downgradeKey)))
		return nil
	}))
	corrupt.Action = off
	apply(state.KindRaise, corrupt)
	apply(state.KindDowngrade, &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL})
	require.Len(t, m.Alarms(), 1)
	require.Empty(t, m.Downgrade())
}
