package server_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// secured is a cluster that needs users, with the user root, and the user u whose role r is below.
type secured struct {
	*testing.T
	ctx     context.Context
	cluster *servertest.Cluster
	members []api
	auths   []pb.AuthClient
	root    context.Context
	user    context.Context
}

const (
	rootPassword = "root's planted password"
	userPassword = "u's planted password"
)

// cheap makes passwords quick to hash.
func cheap(c *server.Config) { c.Auth.BcryptCost = 4 }

// secure turns the need of users on. The user u may read and write [a, b), and read [c, d).
func secure(t *testing.T, c *servertest.Cluster) *secured {
	s := &secured{T: t, ctx: testContext(t), cluster: c}
	for _, endpoint := range c.Endpoints() {
		conn, err := grpc.NewClient("passthrough:///"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		s.members = append(s.members, dial(t, endpoint))
		s.auths = append(s.auths, pb.NewAuthClient(conn))
	}
	a := s.auths[0]
	_, err := a.UserAdd(s.ctx, &pb.AuthUserAddRequest{Name: "root", Password: rootPassword})
	require.NoError(t, err)
	_, err = a.AuthEnable(s.ctx, &pb.AuthEnableRequest{})
	require.ErrorIs(t, err, rpctypes.ErrGRPCRootRoleNotExist)
	_, err = a.UserGrantRole(s.ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	require.NoError(t, err)
	_, err = a.UserAdd(s.ctx, &pb.AuthUserAddRequest{Name: "u", Password: userPassword})
	require.NoError(t, err)
	_, err = a.RoleAdd(s.ctx, &pb.AuthRoleAddRequest{Name: "r"})
	require.NoError(t, err)
	_, err = a.UserGrantRole(s.ctx, &pb.AuthUserGrantRoleRequest{User: "u", Role: "r"})
	require.NoError(t, err)
	_, err = a.Authenticate(s.ctx, &pb.AuthenticateRequest{Name: "root", Password: rootPassword})
	require.ErrorIs(t, err, rpctypes.ErrGRPCAuthNotEnabled)
	s.grant(s.ctx, authpb.Permission_READWRITE, "a", "b")
	s.grant(s.ctx, authpb.Permission_READ, "c", "d")
	_, err = a.AuthEnable(s.ctx, &pb.AuthEnableRequest{})
	require.NoError(t, err)
	s.root, s.user = s.as(0, "root", rootPassword), s.as(0, "u", userPassword)
	return s
}

// as returns a context with a token that member i gave.
func (s *secured) as(i int, name, password string) context.Context {
	s.Helper()
	resp, err := s.auths[i].Authenticate(s.ctx, &pb.AuthenticateRequest{Name: name, Password: password})
	require.NoError(s, err)
	return metadata.AppendToOutgoingContext(s.ctx, "token", resp.Token)
}

func (s *secured) grant(ctx context.Context, kind authpb.Permission_Type, key, end string) {
	s.Helper()
	_, err := s.auths[0].RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{
		PermType: kind, Key: []byte(key), RangeEnd: []byte(end)}})
	require.NoError(s, err)
}

func (s *secured) revoke(ctx context.Context, key, end string) {
	s.Helper()
	_, err := s.auths[0].RoleRevokePermission(ctx, &pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte(key), RangeEnd: []byte(end)})
	require.NoError(s, err)
}

// A token works on every member as soon as it is given, by either name of its metadata, and keys need what etcd says
// that they need.
func TestUsersOnThreeMembers(t *testing.T) {
	s := secure(t, servertest.Three(t, servertest.WithConfig(cheap)))
	for i, m := range s.members {
		_, err := m.Put(s.user, put("a", "1"))
		require.NoError(t, err)
		_, err = m.Put(s.root, put("c", "2"))
		require.NoError(t, err)
		_, err = m.Put(s.root, put("z", "2"))
		require.NoError(t, err)
		got, err := m.Range(s.user, get("c"))
		require.NoError(t, err)
		require.Len(t, got.Kvs, 1)
		fresh := s.as(i, "u", userPassword)
		_, err = s.members[(i+1)%len(s.members)].Put(fresh, put("aa", "1"))
		require.NoError(t, err, "a token that another member has given just now")

		_, err = m.Put(s.user, put("c", "2"))
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
		_, err = m.Range(s.user, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("d")})
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied, "b is in between")
		_, err = m.Range(s.user, &pb.RangeRequest{Key: []byte("z"), Serializable: true})
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
		_, err = m.Range(s.ctx, get("a"))
		require.ErrorIs(t, err, rpctypes.ErrGRPCUserEmpty)
		_, err = m.Put(s.ctx, put("a", ""))
		require.ErrorIs(t, err, rpctypes.ErrGRPCUserEmpty)
		_, err = m.Put(s.ctx, put("", ""))
		require.ErrorIs(t, err, rpctypes.ErrGRPCEmptyKey, "which comes first")
		for _, token := range []string{"wrong", "wrong.1", "wrong.999999999", "local.guess"} {
			_, err = m.Put(metadata.AppendToOutgoingContext(s.ctx, "token", token), put("a", ""))
			require.ErrorIs(t, err, rpctypes.ErrGRPCInvalidAuthToken, "%q", token)
		}
		md, _ := metadata.FromOutgoingContext(s.user)
		_, err = m.Put(metadata.AppendToOutgoingContext(s.ctx, "authorization", md["token"][0]), put("a", "3"))
		require.NoError(t, err)
		// The member's own client is root.
		require.NoError(t, putWith(s.ctx, s.cluster.Member(i).Client(), "z", "own"))
	}
}

// What is not about keys needs a user or root.
func TestUsersAndTheirAdministration(t *testing.T) {
	s := secure(t, servertest.One(t, servertest.WithConfig(cheap)))
	m, a := s.members[0], s.auths[0]
	_, err := m.Status(s.ctx, &pb.StatusRequest{})
	require.ErrorIs(t, err, rpctypes.ErrGRPCUserEmpty)
	_, err = m.Status(s.user, &pb.StatusRequest{})
	require.NoError(t, err)
	_, err = m.Compact(s.user, &pb.CompactionRequest{Revision: 2})
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	_, err = m.MemberList(s.ctx, &pb.MemberListRequest{})
	require.ErrorIs(t, err, rpctypes.ErrGRPCUserEmpty)
	_, err = m.LeaseGrant(s.ctx, &pb.LeaseGrantRequest{TTL: 60})
	require.ErrorIs(t, err, rpctypes.ErrGRPCUserEmpty)
	_, err = a.UserGet(s.user, &pb.AuthUserGetRequest{Name: "u"})
	require.NoError(t, err)
	_, err = a.UserGet(s.user, &pb.AuthUserGetRequest{Name: "root"})
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	_, err = a.RoleGet(s.user, &pb.AuthRoleGetRequest{Role: "r"})
	require.NoError(t, err)
	_, err = a.RoleGet(s.user, &pb.AuthRoleGetRequest{Role: "root"})
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	_, err = a.UserList(s.user, &pb.AuthUserListRequest{})
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	status, err := a.AuthStatus(s.ctx, &pb.AuthStatusRequest{})
	require.NoError(t, err)
	require.True(t, status.Enabled)
	for _, bad := range []*pb.AuthenticateRequest{{Name: "u", Password: "x"}, {Name: "nobody", Password: "x"}, {Name: "u"}} {
		_, err = a.Authenticate(s.ctx, bad)
		require.ErrorIs(t, err, rpctypes.ErrGRPCAuthFailed)
	}
	_, err = a.UserAdd(s.root, &pb.AuthUserAddRequest{Name: "tls", Options: &authpb.UserAddOptions{NoPassword: true}})
	require.NoError(t, err)
	_, err = a.Authenticate(s.ctx, &pb.AuthenticateRequest{Name: "tls", Password: "x"})
	require.EqualError(t, err, "rpc error: code = Unknown desc = auth: authentication failed, password was given for no password user")
	_, err = a.UserDelete(s.root, &pb.AuthUserDeleteRequest{Name: "root"})
	require.ErrorIs(t, err, rpctypes.ErrGRPCInvalidAuthMgmt)
}

// A lease's keys decide who may end, renew or list it.
func TestUsersAndLeases(t *testing.T) {
	s := secure(t, servertest.One(t, servertest.WithConfig(cheap)))
	m := s.members[0]
	for _, id := range []int64{1, 2} {
		_, err := m.LeaseGrant(s.user, &pb.LeaseGrantRequest{ID: id, TTL: 600})
		require.NoError(t, err)
	}
	_, err := m.Put(s.root, &pb.PutRequest{Key: []byte("z"), Lease: 2})
	require.NoError(t, err)
	renew := func(ctx context.Context, id int64) error {
		stream, err := m.LeaseKeepAlive(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: id}))
		_, err = stream.Recv()
		return err
	}
	require.NoError(t, renew(s.user, 1))
	require.ErrorIs(t, renew(s.user, 2), rpctypes.ErrGRPCPermissionDenied)
	require.ErrorIs(t, renew(s.ctx, 1), rpctypes.ErrGRPCUserEmpty)
	_, err = m.Put(s.user, &pb.PutRequest{Key: []byte("a"), Lease: 2})
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied, "its end would delete a key that he can not")
	_, err = m.LeaseTimeToLive(s.user, &pb.LeaseTimeToLiveRequest{ID: 2})
	require.NoError(t, err)
	_, err = m.LeaseTimeToLive(s.user, &pb.LeaseTimeToLiveRequest{ID: 2, Keys: true})
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	_, err = m.LeaseLeases(s.user, &pb.LeaseLeasesRequest{})
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	_, err = m.LeaseRevoke(s.user, &pb.LeaseRevokeRequest{ID: 2})
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	_, err = m.LeaseRevoke(s.user, &pb.LeaseRevokeRequest{ID: 1})
	require.NoError(t, err)
}

// What is changed through one member counts on all of them at once.
func TestUsersChange(t *testing.T) {
	s := secure(t, servertest.Three(t, servertest.WithConfig(cheap)))
	for _, m := range s.members {
		s.grant(s.root, authpb.Permission_WRITE, "new", "")
		_, err := m.Put(s.user, put("new", ""))
		require.NoError(t, err)
		s.revoke(s.root, "new", "")
		_, err = m.Put(s.user, put("new", ""))
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	}
	_, err := s.auths[1].UserChangePassword(s.root, &pb.AuthUserChangePasswordRequest{Name: "u", Password: "other"})
	require.NoError(t, err)
	for _, m := range s.members {
		_, err = m.Range(s.user, get("a"))
		require.ErrorIs(t, err, rpctypes.ErrGRPCInvalidAuthToken, "the password was changed")
		_, err = m.Put(s.user, put("a", ""))
		require.ErrorIs(t, err, rpctypes.ErrGRPCInvalidAuthToken)
	}
	_, err = s.auths[2].AuthDisable(s.root, &pb.AuthDisableRequest{})
	require.NoError(t, err)
	for _, m := range s.members {
		_, err = m.Range(s.ctx, get("z"))
		require.NoError(t, err)
	}
}

// A watch is refused, and ended, by an answer that says why.
func TestUsersAndWatches(t *testing.T) {
	s := secure(t, servertest.Three(t, servertest.WithConfig(cheap)))
	m := s.members[1]
	create := func(w pb.Watch_WatchClient, key string) *pb.WatchResponse {
		require.NoError(t, w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
			CreateRequest: &pb.WatchCreateRequest{Key: []byte(key)}}}))
		r, err := w.Recv()
		require.NoError(t, err)
		require.True(t, r.Created)
		return r
	}
	nobody, err := m.Watch(s.ctx)
	require.NoError(t, err)
	r := create(nobody, "c")
	require.True(t, r.Canceled)
	require.Equal(t, rpctypes.ErrGRPCUserEmpty.Error(), r.CancelReason)

	w, err := m.Watch(s.user)
	require.NoError(t, err)
	r = create(w, "z")
	require.True(t, r.Canceled)
	require.Equal(t, rpctypes.ErrGRPCPermissionDenied.Error(), r.CancelReason)
	a, c := create(w, "a"), create(w, "c")
	require.False(t, a.Canceled)

	s.revoke(s.root, "c", "d")
	_, err = s.members[0].Put(s.root, put("c", "secret"))
	require.NoError(t, err)
	r, err = w.Recv()
	require.NoError(t, err)
	require.True(t, r.Canceled, "%v", r)
	require.Equal(t, c.WatchId, r.WatchId)
	require.Equal(t, rpctypes.ErrGRPCPermissionDenied.Error(), r.CancelReason)

	_, err = s.members[0].Put(s.root, put("a", "seen"))
	require.NoError(t, err)
	r, err = w.Recv()
	require.NoError(t, err)
	require.Equal(t, a.WatchId, r.WatchId, "the other watch goes on")
	require.Len(t, r.Events, 1)
}

// Users are there after a restart, and on a member that was given a checkpoint.
func TestUsersOutliveAMember(t *testing.T) {
	s := secure(t, servertest.Three(t, servertest.WithConfig(cheap)))
	c := s.cluster
	behind := (c.Leader() + 1) % 3
	c.Kill(behind)
	other := s.members[(behind+1)%3]
	// More than the log keeps behind a checkpoint, and checkpoints.
	for i := range 4 {
		for range 64 {
			_, err := other.Put(s.root, put("big", string(make([]byte, 64<<10))))
			require.NoError(t, err)
		}
		_, err := s.members[c.Leader()].Compact(s.root, &pb.CompactionRequest{Revision: int64(10 + i), Physical: true})
		require.NoError(t, err)
	}
	c.Restart(behind)
	require.NotZero(t, c.Member(behind).InstalledCheckpoints(), "it caught up from the log: nothing was tested")
	for range 2 {
		m := s.members[behind]
		_, err := m.Range(s.ctx, get("a"))
		require.ErrorIs(t, err, rpctypes.ErrGRPCUserEmpty)
		u := s.as(behind, "u", userPassword)
		_, err = m.Put(u, put("a", "1"))
		require.NoError(t, err)
		_, err = m.Put(u, put("z", "1"))
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
		c.Kill(behind)
		c.Restart(behind)
	}
}

func putWith(ctx context.Context, c *client.Client, key, value string) error {
	_, err := c.Put(ctx, key, []byte(value))
	return err
}
