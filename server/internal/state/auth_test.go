package state

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// auth carries out a command about users, written as words, as the user root once users are needed.
func (f *fixture) auth(words string) error {
	f.Helper()
	w := strings.Fields(words)
	for len(w) < 5 {
		w = append(w, "")
	}
	kinds := map[string]authpb.Permission_Type{
		"read": authpb.Permission_READ, "write": authpb.Permission_WRITE, "readwrite": authpb.Permission_READWRITE}
	bytesOf := func(s string) []byte {
		if s == "0" {
			return []byte{0}
		}
		return []byte(s)
	}
	c, ok := map[string]Command{
		"enable":   {Kind: KindAuthEnable, Request: &pb.AuthEnableRequest{}},
		"disable":  {Kind: KindAuthDisable, Request: &pb.AuthDisableRequest{}},
		"user":     {Kind: KindUserAdd, Request: &pb.AuthUserAddRequest{Name: w[1], HashedPassword: "aGFzaA=="}},
		"tls":      {Kind: KindUserAdd, Request: &pb.AuthUserAddRequest{Name: w[1], Options: &authpb.UserAddOptions{NoPassword: true}}},
		"malform":  {Kind: KindUserAdd, Request: &pb.AuthUserAddRequest{Name: w[1], HashedPassword: "?"}},
		"leave":    {Kind: KindUserDelete, Request: &pb.AuthUserDeleteRequest{Name: w[1]}},
		"password": {Kind: KindUserChangePassword, Request: &pb.AuthUserChangePasswordRequest{Name: w[1], HashedPassword: "b3RoZXI="}},
		"give":     {Kind: KindUserGrantRole, Request: &pb.AuthUserGrantRoleRequest{User: w[1], Role: w[2]}},
		"take":     {Kind: KindUserRevokeRole, Request: &pb.AuthUserRevokeRoleRequest{Name: w[1], Role: w[2]}},
		"role":     {Kind: KindRoleAdd, Request: &pb.AuthRoleAddRequest{Name: w[1]}},
		"unrole":   {Kind: KindRoleDelete, Request: &pb.AuthRoleDeleteRequest{Role: w[1]}},
		"nothing":  {Kind: KindRoleGrantPermission, Request: &pb.AuthRoleGrantPermissionRequest{Name: w[1]}},
		"permit": {Kind: KindRoleGrantPermission, Request: &pb.AuthRoleGrantPermissionRequest{Name: w[1], Perm: &authpb.Permission{
			PermType: kinds[w[2]], Key: bytesOf(w[3]), RangeEnd: bytesOf(w[4])}}},
		"forbid": {Kind: KindRoleRevokePermission, Request: &pb.AuthRoleRevokePermissionRequest{
			Role: w[1], Key: bytesOf(w[2]), RangeEnd: bytesOf(w[3])}},
	}[w[0]]
	require.True(f, ok, words)
	if f.m.Auth().Enabled() {
		c.Caller = Caller{User: "root", AuthRevision: f.m.Auth().Revision()}
	}
	return f.apply(c)[0].Err
}

// Each command is refused as etcd refuses it, and moves the revision of users and roles exactly when it changes any.
func TestUsersAndRoles(t *testing.T) {
	f := newFixture(t)
	revision := uint64(1)
	for _, step := range []struct {
		command string
		err     error
		changes bool
	}{
		{"enable", ErrRootUserNotExist, false},
		{"disable", nil, false},
		{"user root", nil, true},
		{"user root", ErrUserAlreadyExist, false},
		{"user", ErrUserEmpty, false},
		{"malform m", ErrNoPasswordUser, false},
		{"enable", ErrRootRoleNotExist, false},
		{"give root none", ErrRoleNotFound, false},
		{"give nobody root", ErrUserNotFound, false},
		{"give root root", nil, true},
		{"give root root", nil, false},
		{"take root root", nil, true},
		{"take root root", ErrRoleNotGranted, false},
		{"give root root", nil, true},
		{"role r", nil, true},
		{"role r", ErrRoleAlreadyExist, false},
		{"role", ErrRoleEmpty, false},
		{"permit none read a b", ErrRoleNotFound, false},
		{"nothing r", ErrPermissionNotGiven, false},
		{"nothing none", ErrPermissionNotGiven, false},
		{"permit r read b a", ErrInvalidAuthMgmt, false},
		{"permit none read b a", ErrInvalidAuthMgmt, false},
		{"permit r read b 0", nil, true},
		{"permit r write b 0", nil, true},
		{"forbid r b c", ErrPermissionNotGranted, false},
		{"forbid none b c", ErrRoleNotFound, false},
		{"forbid r b 0", nil, true},
		{"tls t", nil, true},
		{"password t", nil, true},
		{"password nobody", ErrUserNotFound, false},
		{"give t r", nil, true},
		{"enable", nil, false},
		{"enable", nil, false},
		{"leave root", ErrInvalidAuthMgmt, false},
		{"unrole root", ErrInvalidAuthMgmt, false},
		{"take root root", ErrInvalidAuthMgmt, false},
		{"unrole none", ErrRoleNotFound, false},
		{"unrole r", nil, true},
		{"leave nobody", ErrUserNotFound, false},
		{"leave t", nil, true},
		{"disable", nil, true},
		{"leave root", nil, true},
	} {
		require.ErrorIs(t, f.auth(step.command), step.err, step.command)
		if step.changes {
			revision++
		}
		require.Equal(t, revision, f.m.Auth().Revision(), step.command)
	}
}

// A role that is deleted is nobody's any more, and permissions of one key keep etcd's order.
func TestRolesOfUsers(t *testing.T) {
	f := newFixture(t)
	for _, c := range []string{
		"user u", "role b", "role a", "give u b", "give u a", "permit a read k", "permit a write k z", "permit a read k y",
		"permit a readwrite k", "permit a read k y", "permit a write c", "unrole b",
	} {
		require.NoError(t, f.auth(c), c)
	}
	require.Equal(t, []string{"a"}, f.m.Auth().User("u").GetRoles())
	var got []string
	for _, p := range f.m.Auth().Role("a").GetKeyPermission() {
		got = append(got, fmt.Sprintf("%s-%s %v", p.Key, p.RangeEnd, p.PermType))
	}
	require.Equal(t, []string{"c- WRITE", "k- READWRITE", "k-z WRITE", "k-y READ", "k-y READ"}, got, "k-y stands there twice in etcd, too")
}

// The permissions of all roles together must cover what is asked for.
func TestPermissionsCover(t *testing.T) {
	f := newFixture(t)
	for _, c := range []string{
		"user root", "give root root", "user u", "role x", "role y", "give u x", "give u y",
		"permit x read b d", "permit y read c f", "permit x read f", "permit y read f\x00 h", "permit y write b", "permit x read p 0",
		"enable",
	} {
		require.NoError(t, f.auth(c), c)
	}
	a := f.m.Auth()
	u := Caller{User: "u", AuthRevision: a.Revision()}
	for _, q := range []struct {
		right    Right
		key, end string
		ok       bool
	}{
		{RightRead, "b", "", true}, {RightRead, "a", "", false}, {RightRead, "bzz", "", true}, {RightRead, "h", "", false},
		{RightRead, "b", "f", true}, {RightRead, "b", "h", true}, {RightRead, "b", "h\x00", false}, {RightRead, "a", "c", false},
		{RightRead, "b", "\x00", false}, {RightRead, "p", "\x00", true}, {RightRead, "z", "\x00", true}, {RightRead, "p", "q", true},
		{RightRead, "g", "q", false}, {RightWrite, "b", "", true}, {RightWrite, "b", "c", false}, {RightWrite, "b", "b\x00", true},
		{RightRead, "c", "a", true}, {RightRead, "a", "a", false}, {RightRead, "", "\x00", false},
	} {
		err := a.Check(u, Need{Right: q.right, Key: []byte(q.key), End: []byte(q.end)}, f.m)
		if q.ok {
			require.NoError(t, err, "%v", q)
		} else {
			require.ErrorIs(t, err, ErrPermissionDenied, "%v", q)
		}
		require.NoError(t, a.Check(Caller{User: "root", AuthRevision: a.Revision()}, Need{Right: q.right, Key: []byte(q.key)}, f.m))
	}
	key := Need{Right: RightRead, Key: []byte("b")}
	require.ErrorIs(t, a.Check(Caller{}, key, f.m), ErrUserEmpty)
	require.ErrorIs(t, a.Check(Caller{User: "u", AuthRevision: 2}, key, f.m), ErrAuthOldRevision)
	require.ErrorIs(t, a.Check(Caller{User: "gone", AuthRevision: a.Revision()}, key, f.m), ErrPermissionDenied)
	require.ErrorIs(t, a.Check(Caller{User: "gone"}, Need{Right: RightRoot}, f.m), ErrUserNotFound)
	require.ErrorIs(t, a.Check(u, Need{Right: RightRoot}, f.m), ErrPermissionDenied)
	require.ErrorIs(t, a.Check(u, Need{}, f.m), ErrPermissionDenied, "what nobody knows")
}

// Tokens are given to whom the password was compared at this very revision, and end with it, with the user, with all.
func TestTokensFollowTheLog(t *testing.T) {
	f := newFixture(t)
	give := func(name string, revision uint64) error {
		return f.apply(Command{Kind: KindAuthenticate, Request: &pb.InternalAuthenticateRequest{Name: name, SimpleToken: "hash"},
			Caller: Caller{AuthRevision: revision}})[0].Err
	}
	for _, c := range []string{"user root", "give root root", "user u", "tls t"} {
		require.NoError(t, f.auth(c))
	}
	require.ErrorIs(t, give("root", 5), ErrAuthNotEnabled)
	require.NoError(t, f.auth("enable"))
	require.ErrorIs(t, give("nobody", 5), ErrAuthFailed)
	require.ErrorIs(t, give("t", 5), ErrAuthFailed)
	require.ErrorIs(t, give("u", 4), ErrAuthOldRevision)
	require.NoError(t, give("u", 5))
	at := f.index
	require.NoError(t, f.auth("password u"))
	require.NoError(t, f.auth("leave u"))
	require.NoError(t, f.auth("disable"))
	require.Equal(t, []AuthEvent{{"u", fmt.Sprintf("hash.%d", at)}, {User: "u"}, {User: "u"}, {}}, f.m.TakeAuthEvents())
	require.Empty(t, f.m.TakeAuthEvents())
}

// A snapshot of users and roles stays as it was.
func TestAuthIsShared(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, f.auth("user u"))
	view := f.m.View()
	before := f.m.Auth()
	require.NoError(t, f.auth("leave u"))
	require.NotNil(t, before.User("u"))
	require.NotNil(t, view.Auth().User("u"))
	require.Nil(t, f.m.Auth().User("u"))
	require.Same(t, f.m.Auth(), f.m.Auth())
}

// Commands that need root are refused to all others, and to nobody.
func TestAdministrationNeedsRoot(t *testing.T) {
	f := newFixture(t)
	for _, c := range []string{"user root", "give root root", "user u", "enable"} {
		require.NoError(t, f.auth(c))
	}
	digest := f.m.Auth().Revision()
	for k := KindAuthEnable; k <= KindRoleRevokePermission; k++ {
		if k == KindAuthenticate {
			continue
		}
		r := newRequest(k)
		require.NotNil(t, r)
		for caller, want := range map[Caller]error{
			{}: ErrUserEmpty, {User: "u", AuthRevision: digest}: ErrPermissionDenied, {User: "gone", AuthRevision: digest}: ErrUserNotFound,
		} {
			require.ErrorIs(t, f.apply(Command{Kind: k, Request: proto.Clone(r), Caller: caller})[0].Err, want, "kind %d", k)
		}
	}
	require.Equal(t, digest, f.m.Auth().Revision())
}
