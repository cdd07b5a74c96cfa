package interop_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
)

// Our client's user works on etcd as on our server: before users are needed,
// after, and when his token has ended.
func TestClientWithPassword(t *testing.T) {
	ctx := testContext(t)
	reference, subject := startBoth(t, 1, "--bcrypt-cost=4", "--auth-token-ttl=1")
	for _, s := range []*side{reference, subject} {
		c, err := client.New(client.Config{
			Endpoints: []string{s.cluster.Members[0].ClientURL}, Username: "root", Password: "secret",
		})
		require.NoError(t, err)
		put := func() error {
			_, err := c.Put(ctx, "k", []byte("v"))
			return err
		}
		require.NoError(t, put())
		auth := pb.NewAuthClient(s.conn)
		_, err = auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "secret"})
		require.NoError(t, err)
		_, err = auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "root"})
		require.NoError(t, err)
		_, err = auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
		require.NoError(t, err)
		_, err = auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
		require.NoError(t, err)
		require.NoError(t, put())
		<-time.After(3 * time.Second) // etcd looks for tokens that have ended once a second
		require.NoError(t, put())
		require.NoError(t, c.Close())

		wrong, err := client.New(client.Config{
			Endpoints: []string{s.cluster.Members[0].ClientURL}, Username: "root", Password: "other",
		})
		require.NoError(t, err)
		_, err = wrong.Get(ctx, "k")
		require.ErrorIs(t, err, client.ErrUnauthenticated)
		require.NoError(t, wrong.Close())
	}
}
