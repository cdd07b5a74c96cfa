package server_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// An idle watcher that asked for it is told how far it is, as often as the
// configuration says and not every ten minutes.
func TestWatchProgressInterval(t *testing.T) {
	ctx := testContext(t)
	c := servertest.One(t, servertest.WithConfig(func(cfg *server.Config) {
		cfg.WatchProgressInterval = 100 * time.Millisecond
	}))
	stream, err := dial(t, c.Endpoints()[0]).Watch(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true},
	}}))
	created, err := stream.Recv()
	require.NoError(t, err)
	require.True(t, created.Created)
	progress, err := stream.Recv()
	require.NoError(t, err)
	require.Empty(t, progress.Events)
	require.EqualValues(t, 1, progress.Header.Revision)

	err = server.Config{WatchProgressInterval: -1}.Validate()
	require.ErrorContains(t, err, "watch-progress-notify-interval")
}
