package interop_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// rescueEvery is how many requests of the differential test of users may pass
// before root is set right and users are needed again.
const rescueEvery = 60

// permissionsMax bounds the permissions of a role. etcd sorts them by key with
// an algorithm that keeps those of one key in their order only while they are
// few; ours always does, as all members must agree.
const permissionsMax = 11

var (
	someUsers     = []string{"root", "alice", "bob", "carol"}
	someRoles     = []string{"root", "r1", "r2", "r3"}
	somePasswords = []string{"one", "two"}
)

// authMethods are the methods that take a request of each type.
var authMethods = map[string]string{
	"AuthEnableRequest": pb.Auth_AuthEnable_FullMethodName, "AuthDisableRequest": pb.Auth_AuthDisable_FullMethodName,
	"AuthStatusRequest": pb.Auth_AuthStatus_FullMethodName, "AuthenticateRequest": pb.Auth_Authenticate_FullMethodName,
	"AuthUserAddRequest": pb.Auth_UserAdd_FullMethodName, "AuthUserGetRequest": pb.Auth_UserGet_FullMethodName,
	"AuthUserListRequest": pb.Auth_UserList_FullMethodName, "AuthUserDeleteRequest": pb.Auth_UserDelete_FullMethodName,
	"AuthUserChangePasswordRequest": pb.Auth_UserChangePassword_FullMethodName,
	"AuthUserGrantRoleRequest":      pb.Auth_UserGrantRole_FullMethodName,
	"AuthUserRevokeRoleRequest":     pb.Auth_UserRevokeRole_FullMethodName,
	"AuthRoleAddRequest":            pb.Auth_RoleAdd_FullMethodName, "AuthRoleGetRequest": pb.Auth_RoleGet_FullMethodName,
	"AuthRoleListRequest": pb.Auth_RoleList_FullMethodName, "AuthRoleDeleteRequest": pb.Auth_RoleDelete_FullMethodName,
	"AuthRoleGrantPermissionRequest":  pb.Auth_RoleGrantPermission_FullMethodName,
	"AuthRoleRevokePermissionRequest": pb.Auth_RoleRevokePermission_FullMethodName,
	"StatusRequest":                   pb.Maintenance_Status_FullMethodName, "AlarmRequest": pb.Maintenance_Alarm_FullMethodName,
	"HashKVRequest": pb.Maintenance_HashKV_FullMethodName, "HashRequest": pb.Maintenance_Hash_FullMethodName,
	"MemberListRequest": pb.Cluster_MemberList_FullMethodName,
}

// authDifference puts requests of several users to both servers.
type authDifference struct {
	*generator
	sides  [2]*diffSide
	tokens map[string][2]string // of each user who has ever had one, on each side
	met    map[string]int       // answers by request and error
	denied int
	grants map[string]int // of each role, asked for since it was to be deleted
}

// TestAuthDifferential puts generated changes of users and roles, and requests
// of these users, to a fresh etcd and a fresh Latchkey. Every answer must be
// equal: contents, revisions, errors.
func TestAuthDifferential(t *testing.T) {
	t.Logf("go test -run %s -diff.seed %d -diff.requests %d", t.Name(), *diffSeed, *diffRequests)
	reference, subject := startBoth(t, 1, "--bcrypt-cost=4")
	d := &authDifference{
		generator: newGenerator(*diffSeed), tokens: make(map[string][2]string), met: make(map[string]int), grants: make(map[string]int),
	}
	d.sides = [2]*diffSide{{side: reference}, {side: subject}}
	for n := range *diffRequests {
		if n%rescueEvery == 0 {
			d.rescue(t)
		}
		d.step(t, d.user(), d.authRequest())
	}
	t.Logf("%d kinds of answers, %d requests refused to their user", len(d.met), d.denied)
	require.Greater(t, d.denied, *diffRequests/40, "requests that were refused to their user")
	require.Greater(t, len(d.met), 60, "kinds of answers")
}

// rescue makes users needed again, whatever became of root.
func (d *authDifference) rescue(t *testing.T) {
	for _, r := range []proto.Message{
		&pb.AuthUserAddRequest{Name: "root", Password: somePasswords[0]}, &pb.AuthRoleAddRequest{Name: "root"},
		&pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}, &pb.AuthEnableRequest{},
		&pb.AuthenticateRequest{Name: "root", Password: somePasswords[0]},
		&pb.AuthenticateRequest{Name: "root", Password: somePasswords[1]},
	} {
		d.step(t, "root", r)
	}
}

// user is who asks next: "" is nobody, "?" somebody with a token of his own
// making.
func (d *authDifference) user() string {
	switch p := d.rng.IntN(100); {
	case p < 4:
		return ""
	case p < 6:
		return "?"
	case p < 45:
		return "root"
	default:
		return someUsers[d.rng.IntN(len(someUsers))]
	}
}

func (d *authDifference) one(of []string) string { return of[d.rng.IntN(len(of))] }

func (d *authDifference) authRequest() proto.Message {
	switch p := d.rng.IntN(100); {
	case p < 12:
		return &pb.AuthenticateRequest{Name: d.one(someUsers), Password: d.one(append(somePasswords, "wrong"))}
	case p < 46:
		return d.administration()
	case p < 50:
		return d.one2(&pb.StatusRequest{}, &pb.AlarmRequest{}, &pb.HashKVRequest{}, &pb.HashRequest{}, &pb.MemberListRequest{},
			&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE})
	}
	for {
		switch r := d.request().(type) {
		case *pb.WatchCreateRequest, *pb.WatchCancelRequest:
		case *pb.CompactionRequest:
			r.Physical = false
			return r
		default:
			return r
		}
	}
}

func (d *authDifference) one2(of ...proto.Message) proto.Message { return of[d.rng.IntN(len(of))] }

func (d *authDifference) administration() proto.Message {
	user, role := d.one(someUsers), d.one(someRoles)
	if d.percent(2) {
		user, role = "", ""
	}
	key := d.key()
	end := d.rangeEnd(key)
	switch d.rng.IntN(32) {
	case 0, 1, 2:
		return &pb.AuthUserAddRequest{Name: user, Password: d.one(somePasswords), Options: &authpb.UserAddOptions{NoPassword: d.percent(20)}}
	case 3:
		return &pb.AuthUserDeleteRequest{Name: user}
	case 4:
		return &pb.AuthUserChangePasswordRequest{Name: user, Password: d.one(somePasswords)}
	case 5, 6, 7, 8:
		return &pb.AuthUserGrantRoleRequest{User: user, Role: role}
	case 9:
		return &pb.AuthUserRevokeRoleRequest{Name: user, Role: role}
	case 10, 11:
		return &pb.AuthRoleAddRequest{Name: role}
	case 12:
		return &pb.AuthRoleDeleteRequest{Role: role}
	case 13:
		return &pb.AuthRoleRevokePermissionRequest{Role: role, Key: key, RangeEnd: end}
	case 14:
		return &pb.AuthEnableRequest{}
	case 15:
		return d.one2(&pb.AuthDisableRequest{}, &pb.AuthRoleGrantPermissionRequest{Name: role})
	case 16, 17:
		return &pb.AuthUserGetRequest{Name: user}
	case 18, 19:
		return &pb.AuthRoleGetRequest{Role: role}
	case 20:
		return d.one2(&pb.AuthUserListRequest{}, &pb.AuthRoleListRequest{})
	case 21:
		return &pb.AuthStatusRequest{}
	default:
		if d.grants[role]++; d.grants[role] > permissionsMax {
			d.grants[role] = 0
			return &pb.AuthRoleDeleteRequest{Role: role}
		}
		return &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: &authpb.Permission{
			PermType: authpb.Permission_Type(d.rng.IntN(3)), Key: key, RangeEnd: end}}
	}
}

func (d *authDifference) step(t *testing.T, user string, req proto.Message) {
	t.Helper()
	var got [2]answer
	for i, s := range d.sides {
		ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
		if user == "?" {
			ctx = metadata.AppendToOutgoingContext(ctx, "token", "abcdefghijklmnop.1")
		} else if token := d.tokens[user][i]; token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "token", token)
		}
		got[i] = newAnswer(s.ask(ctx, req))
		cancel()
	}
	d.learnToken(t, req, got)
	if diff := sameAnswer(req, shorten(got[0]), shorten(got[1])); diff != "" {
		require.Fail(t, "the servers differ", "user %q\n%s", user, diff)
	}
	d.met[fmt.Sprintf("%T %s", req, got[0].text)]++
	if strings.Contains(got[0].text, "denied") {
		d.denied++
	}
	if h, ok := got[0].message.(headed); ok {
		if c, ok := req.(*pb.CompactionRequest); ok {
			d.compact = c.Revision
		}
		d.revision = max(d.revision, h.GetHeader().GetRevision())
	}
}

// ask sends one request, the renewals on a stream of their own.
func (s *diffSide) ask(ctx context.Context, req proto.Message) (proto.Message, error) {
	if method := authMethods[string(req.ProtoReflect().Descriptor().Name())]; method != "" {
		out := responseOf(method)
		return out, s.conn.Invoke(ctx, method, req, out)
	}
	if r, ok := req.(*pb.LeaseKeepAliveRequest); ok {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := s.lease.LeaseKeepAlive(ctx)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(r); err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	return s.do(ctx, req, nil)
}

// responseOf returns an empty response of a method.
func responseOf(method string) proto.Message {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/etcdserverpb."), "/")
	methods := pb.File_rpc_proto.Services().ByName(protoreflect.Name(service)).Methods()
	out, err := protoregistry.GlobalTypes.FindMessageByName(methods.ByName(protoreflect.Name(name)).Output().FullName())
	if err != nil {
		panic(err) // the messages are linked in
	}
	return out.New().Interface()
}

// learnToken takes tokens out of the answers and keeps them.
func (d *authDifference) learnToken(t *testing.T, req proto.Message, got [2]answer) {
	t.Helper()
	var tokens [2]string
	for i := range got {
		if m, ok := got[i].message.(*pb.AuthenticateResponse); ok {
			require.Regexp(t, `^[a-zA-Z]{16}\.[0-9]+$`, m.Token)
			tokens[i], m.Token = m.Token, ""
		}
	}
	if tokens[0] != "" && tokens[1] != "" {
		d.tokens[req.(*pb.AuthenticateRequest).Name] = tokens
	}
}

// shorten leaves of answers about a server itself only that there was one.
func shorten(a answer) answer {
	switch a.message.(type) {
	case *pb.StatusResponse, *pb.HashResponse, *pb.HashKVResponse, *pb.MemberListResponse:
		return answer{text: "answered"}
	}
	return a
}
