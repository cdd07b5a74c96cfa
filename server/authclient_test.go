package server_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// A client that has a name and a password works while users are not needed, when they are, when its token ends in the
// middle, and when users change. So do its session and its watch.
func TestClientWithPassword(t *testing.T) {
	c := servertest.Three(t, servertest.WithConfig(func(c *server.Config) {
		cheap(c)
		c.Auth.TokenTTL = 300 * time.Millisecond
	}))
	ctx := testContext(t)
	as := func(name, password string) *client.Client {
		cl, err := client.New(client.Config{Endpoints: c.Endpoints(), Username: name, Password: password, SessionTTL: 2 * time.Second})
		require.NoError(t, err)
		t.Cleanup(func() { _ = cl.Close() })
		return cl
	}
	u := as("u", userPassword)
	require.NoError(t, putWith(ctx, u, "a/1", "before"))
	events := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		for e, err := range u.Watch(ctx, "a/", client.Prefix(), client.FromRevision(1)) {
			if err != nil {
				done <- err
				return
			}
			events <- e.KV.Key
		}
	}()
	require.Equal(t, "a/1", <-events)
	session, err := u.NewSession(ctx)
	require.NoError(t, err)

	s := secure(t, c)
	require.NoError(t, putWith(ctx, u, "a/2", "after"))
	require.Equal(t, "a/2", <-events)
	require.ErrorIs(t, putWith(ctx, u, "z", ""), client.ErrPermissionDenied)
	require.ErrorIs(t, putWith(ctx, as("u", "wrong"), "a", ""), client.ErrUnauthenticated)
	require.ErrorIs(t, putWith(ctx, as("tls", "x"), "a", ""), client.ErrUnauthenticated)
	require.ErrorIs(t, putWith(ctx, as("", ""), "a", ""), client.ErrUnauthenticated)

	root := as("root", rootPassword)
	for _, key := range []string{"a/3", "a/4"} {
		// Longer than a token lives, and renewals may use another than calls do.
		timer := time.NewTimer(700 * time.Millisecond)
		<-timer.C
		s.grant(s.as(1, "root", rootPassword), authpb.Permission_READ, key, "")
		require.NoError(t, putWith(ctx, u, key, ""))
		require.Equal(t, key, <-events)
		require.NoError(t, putWith(ctx, root, "z", ""))
	}
	require.NoError(t, session.Context().Err(), "the session is renewed with every token")
	_, err = s.auths[0].RoleRevokePermission(s.as(0, "root", rootPassword),
		&pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("a"), RangeEnd: []byte("b")})
	require.NoError(t, err)
	require.ErrorIs(t, <-done, client.ErrPermissionDenied)
}
