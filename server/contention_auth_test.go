package server_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/api/v3electionpb"
	"github.com/latchkey-go/latchkey/api/v3lockpb"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// The lock and election services do nothing for a user that he could not do
// himself, and nothing more once he may not any more.
func TestContentionRights(t *testing.T) {
	s := secure(t, servertest.One(t, servertest.WithConfig(cheap)))
	conn, err := grpc.NewClient("passthrough:///"+s.cluster.Endpoints()[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	locks, elections := v3lockpb.NewLockClient(conn), v3electionpb.NewElectionClient(conn)
	denied := func(err error) {
		t.Helper()
		require.Equal(t, "etcdserver: permission denied", status.Convert(err).Message())
	}

	held, err := locks.Lock(s.user, &v3lockpb.LockRequest{Name: []byte("a-lock")})
	require.NoError(t, err)
	_, err = locks.Unlock(s.user, &v3lockpb.UnlockRequest{Key: held.Key})
	require.NoError(t, err)
	_, err = locks.Lock(s.user, &v3lockpb.LockRequest{Name: []byte("c-lock")})
	denied(err)
	_, err = locks.Unlock(s.user, &v3lockpb.UnlockRequest{Key: []byte("c-lock/1")})
	denied(err)
	_, err = locks.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("a-lock")})
	require.Error(t, err, "nobody in particular")

	led, err := elections.Campaign(s.user, &v3electionpb.CampaignRequest{Name: []byte("a-leader"), Value: []byte("u")})
	require.NoError(t, err)
	_, err = elections.Campaign(s.user, &v3electionpb.CampaignRequest{Name: []byte("c-leader")})
	denied(err)
	_, err = elections.Leader(s.user, &v3electionpb.LeaderRequest{Name: []byte("e-leader")})
	denied(err)
	_, err = elections.Proclaim(s.user, &v3electionpb.ProclaimRequest{Leader: &v3electionpb.LeaderKey{Key: []byte("c-leader/1"), Rev: 1}})
	denied(err)

	observed, err := elections.Observe(s.user, &v3electionpb.LeaderRequest{Name: []byte("a-leader")})
	require.NoError(t, err)
	got, err := observed.Recv()
	require.NoError(t, err)
	require.Equal(t, "u", string(got.Kv.Value))
	s.revoke(s.root, "a", "b")
	_, err = elections.Proclaim(s.root, &v3electionpb.ProclaimRequest{Leader: led.Leader, Value: []byte("secret")})
	require.NoError(t, err)
	_, err = observed.Recv()
	denied(err)
	s.grant(s.root, authpb.Permission_READ, "a", "b")
	_, err = elections.Leader(s.user, &v3electionpb.LeaderRequest{Name: []byte("a-leader")})
	require.NoError(t, err)
}
