package interop_test

import (
	"bytes"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// permissionsMax bounds the permissions of a role. etcd sorts them by key with
// an algorithm that keeps those of one key in their order only while they are
// few, and which of them a grant changes depends on the order; ours always
// keeps it, as all members must agree.
const permissionsMax = 11

// forger is who shows a token that no server made.
const forger = "?"

var (
	someUsers     = []string{"root", "alice", "bob", "carol"}
	someRoles     = []string{"root", "r1", "r2", "r3"}
	somePasswords = []string{"one", "two"}
)

func one[T any](g *generator, of ...T) T { return of[g.rng.IntN(len(of))] }

// user is who asks next; "" is nobody.
func (g *generator) user() string {
	switch p := g.rng.IntN(100); {
	case p < 4:
		return ""
	case p < 6:
		return forger
	case p < 55:
		return "root"
	default:
		return one(g, someUsers...)
	}
}

// rescue makes users needed again, whatever became of root.
func rescue() []proto.Message {
	return []proto.Message{
		&pb.AuthUserAddRequest{Name: "root", Password: somePasswords[0]}, &pb.AuthRoleAddRequest{Name: "root"},
		&pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}, &pb.AuthEnableRequest{},
		&pb.AuthenticateRequest{Name: "root", Password: somePasswords[0]},
		&pb.AuthenticateRequest{Name: "root", Password: somePasswords[1]},
	}
}

// upkeep is what a member is asked about itself.
func (g *generator) upkeep() proto.Message {
	return one[proto.Message](g, &pb.StatusRequest{}, &pb.AlarmRequest{}, &pb.HashRequest{}, &pb.MemberListRequest{},
		&pb.HashKVRequest{Revision: g.readRevision()}, &pb.HashKVRequest{Revision: g.compact},
		&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE})
}

func (g *generator) login() proto.Message {
	return &pb.AuthenticateRequest{Name: one(g, someUsers...), Password: one(g, "one", "two", "wrong")}
}

// administration is a request about users and roles.
func (g *generator) administration() proto.Message {
	user, role := one(g, someUsers...), one(g, someRoles...)
	if g.percent(2) {
		user, role = "", ""
	}
	key := g.key()
	end := g.rangeEnd(key)
	switch g.rng.IntN(32) {
	case 0, 1, 2:
		return &pb.AuthUserAddRequest{Name: user, Password: one(g, somePasswords...),
			Options: &authpb.UserAddOptions{NoPassword: user != "root" && g.percent(20)}}
	case 3:
		return &pb.AuthUserDeleteRequest{Name: user}
	case 4:
		return &pb.AuthUserChangePasswordRequest{Name: user, Password: one(g, somePasswords...)}
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
		return one[proto.Message](g, &pb.AuthDisableRequest{}, &pb.AuthRoleGrantPermissionRequest{Name: role})
	case 16, 17:
		return &pb.AuthUserGetRequest{Name: user}
	case 18, 19:
		return &pb.AuthRoleGetRequest{Role: role}
	case 20:
		return one[proto.Message](g, &pb.AuthUserListRequest{}, &pb.AuthRoleListRequest{})
	case 21:
		return &pb.AuthStatusRequest{}
	default:
		if g.grants[role] >= permissionsMax {
			return &pb.AuthRoleDeleteRequest{Role: role}
		}
		return &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: &authpb.Permission{
			PermType: authpb.Permission_Type(g.rng.IntN(3)), Key: key, RangeEnd: end}}
	}
}

// changesRights tells whether watchers may be forbidden by the request.
func changesRights(req proto.Message) bool {
	switch req.(type) {
	case *pb.AuthEnableRequest, *pb.AuthUserAddRequest, *pb.AuthUserDeleteRequest, *pb.AuthUserChangePasswordRequest,
		*pb.AuthUserGrantRoleRequest, *pb.AuthUserRevokeRoleRequest, *pb.AuthRoleAddRequest, *pb.AuthRoleDeleteRequest,
		*pb.AuthRoleGrantPermissionRequest, *pb.AuthRoleRevokePermissionRequest:
		return true
	}
	return false
}

// inverted tells whether a range ends before it begins.
func inverted(key, end []byte) bool {
	return len(end) > 0 && !bytes.Equal(end, []byte{0}) && bytes.Compare(end, key) < 0
}

// upright turns ranges round that end before they begin. Whether a user with
// some rights has the right to one of these depends for etcd on the shape of a
// tree; only for a plain read the differential test allows that.
func upright(req proto.Message) {
	turn := func(key, end *[]byte) {
		if inverted(*key, *end) {
			*key, *end = *end, *key
		}
	}
	switch r := req.(type) {
	case *pb.DeleteRangeRequest:
		turn(&r.Key, &r.RangeEnd)
	case streamRange:
		turn(&r.Key, &r.RangeEnd)
	case *pb.WatchCreateRequest:
		if inverted(r.Key, r.RangeEnd) { // turned round, it would have no key in it
			r.Key, r.RangeEnd = []byte(universeKey(0)), nil
		}
	case *pb.TxnRequest:
		for _, c := range r.Compare {
			turn(&c.Key, &c.RangeEnd)
		}
		for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
			for _, op := range ops {
				switch o := op.Request.(type) {
				case *pb.RequestOp_RequestRange:
					turn(&o.RequestRange.Key, &o.RequestRange.RangeEnd)
				case *pb.RequestOp_RequestDeleteRange:
					upright(o.RequestDeleteRange)
				case *pb.RequestOp_RequestTxn:
					upright(o.RequestTxn)
				}
			}
		}
	}
}
