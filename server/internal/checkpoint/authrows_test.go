package checkpoint

import (
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Users and roles are stored in the rows that etcd 3.7 writes, and a machine loaded from them is the one that was saved,
// also when some of them are gone again.
func TestUsersAndRolesAreEtcds(t *testing.T) {
	s := create(t, 1)
	m := reload(t, s, 0)
	require.EqualValues(t, 1, m.Auth().Revision(), "rows that are missing")
	index, term := m.Applied()
	apply := func(kind state.Kind, request any, user string) {
		t.Helper()
		index++
		c := state.Command{Kind: kind, Request: request, Caller: state.Caller{User: user, AuthRevision: m.Auth().Revision()}}
		require.NoError(t, m.Apply(index, term, []state.Command{c})[0].Err)
	}
	apply(state.KindUserAdd, &pb.AuthUserAddRequest{Name: "root", HashedPassword: "aGFzaA=="}, "")
	apply(state.KindUserAdd, &pb.AuthUserAddRequest{Name: "tls", Options: &authpb.UserAddOptions{NoPassword: true}}, "")
	apply(state.KindUserAdd, &pb.AuthUserAddRequest{Name: "gone", HashedPassword: "aGFzaA=="}, "")
	apply(state.KindUserGrantRole, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}, "")
	apply(state.KindRoleAdd, &pb.AuthRoleAddRequest{Name: "r"}, "")
	apply(state.KindRoleAdd, &pb.AuthRoleAddRequest{Name: "gone"}, "")
	apply(state.KindRoleGrantPermission, &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{
		PermType: authpb.Permission_READWRITE, Key: []byte("k"), RangeEnd: []byte{0}}}, "")
	apply(state.KindAuthEnable, &pb.AuthEnableRequest{}, "")
	first := m.TakeChanges()
	require.NoError(t, s.Save(first, nil))
	apply(state.KindUserDelete, &pb.AuthUserDeleteRequest{Name: "gone"}, "root")
	apply(state.KindRoleDelete, &pb.AuthRoleDeleteRequest{Role: "gone"}, "root")
	second := m.TakeChanges()
	require.Equal(t, []string{"gone"}, second.Auth.DeletedUsers)
	require.NoError(t, s.Save(second, nil))

	got := rows(t, s)
	require.Equal(t, map[string]string{
		"authEnabled": "\x01", "authRevision": "\x00\x00\x00\x00\x00\x00\x00\x0a",
	}, got["auth"])
	require.Equal(t, map[string]string{
		"root": "\x0a\x04root" + "\x12\x04hash" + "\x1a\x04root" + "\x22\x00",
		"tls":  "\x0a\x03tls" + "\x22\x02\x08\x01",
	}, got["authUsers"])
	require.Equal(t, map[string]string{"r": "\x0a\x01r" + "\x12\x08\x08\x02\x12\x01k\x1a\x01\x00"}, got["authRoles"])

	again := reload(t, s, 0)
	require.NoError(t, again.Check())
	require.Equal(t, m.Digest(), again.Digest())
	require.True(t, again.Auth().Enabled())

	// The two saves in one come to the same.
	first.Merge(second)
	other := create(t, 1)
	require.NoError(t, other.Save(first, nil))
	require.Equal(t, got["authUsers"], rows(t, other)["authUsers"])
	require.Equal(t, got["authRoles"], rows(t, other)["authRoles"])
}
