package state

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The commands about users and roles, each with the type of its Request. Passwords come hashed: a password in plain text
// never enters the log.
const (
	KindAuthEnable           Kind = 32 // *etcdserverpb.AuthEnableRequest
	KindAuthDisable          Kind = 33 // *etcdserverpb.AuthDisableRequest
	KindAuthenticate         Kind = 34 // *etcdserverpb.InternalAuthenticateRequest
	KindUserAdd              Kind = 35 // *etcdserverpb.AuthUserAddRequest
	KindUserDelete           Kind = 36 // *etcdserverpb.AuthUserDeleteRequest
	KindUserChangePassword   Kind = 37 // *etcdserverpb.AuthUserChangePasswordRequest
	KindUserGrantRole        Kind = 38 // *etcdserverpb.AuthUserGrantRoleRequest
	KindUserRevokeRole       Kind = 39 // *etcdserverpb.AuthUserRevokeRoleRequest
	KindRoleAdd              Kind = 40 // *etcdserverpb.AuthRoleAddRequest
	KindRoleDelete           Kind = 41 // *etcdserverpb.AuthRoleDeleteRequest
	KindRoleGrantPermission  Kind = 42 // *etcdserverpb.AuthRoleGrantPermissionRequest
	KindRoleRevokePermission Kind = 43 // *etcdserverpb.AuthRoleRevokePermissionRequest

	// kindCalled is in front of a command that has a Caller: its user and auth revision, then the command itself.
	kindCalled Kind = 50
)

// forRoot reports whether only root may have a command of the kind, while users are needed. What else needs root, such
// as a compaction, is refused before it enters the log and not here, as in etcd: members propose it as well.
func (k Kind) forRoot() bool {
	return k >= KindAuthEnable && k <= KindRoleRevokePermission && k != KindAuthenticate
}

// newAuthRequest is newRequest for the commands of this file.
func newAuthRequest(k Kind) proto.Message {
	switch k {
	case KindAuthEnable:
		return new(pb.AuthEnableRequest)
	case KindAuthDisable:
		return new(pb.AuthDisableRequest)
	case KindAuthenticate:
		return new(pb.InternalAuthenticateRequest)
	case KindUserAdd:
		return new(pb.AuthUserAddRequest)
	case KindUserDelete:
		return new(pb.AuthUserDeleteRequest)
	case KindUserChangePassword:
		return new(pb.AuthUserChangePasswordRequest)
	case KindUserGrantRole:
		return new(pb.AuthUserGrantRoleRequest)
	case KindUserRevokeRole:
		return new(pb.AuthUserRevokeRoleRequest)
	case KindRoleAdd:
		return new(pb.AuthRoleAddRequest)
	case KindRoleDelete:
		return new(pb.AuthRoleDeleteRequest)
	case KindRoleGrantPermission:
		return new(pb.AuthRoleGrantPermissionRequest)
	case KindRoleRevokePermission:
		return new(pb.AuthRoleRevokePermissionRequest)
	default:
		return nil
	}
}

// appendTo appends nothing for the zero Caller, so that a log of a cluster without users has none.
func (c Caller) appendTo(b []byte) []byte {
	if c == (Caller{}) {
		return b
	}
	b = append(b, byte(kindCalled))
	b = protowire.AppendVarint(b, c.AuthRevision)
	return protowire.AppendString(b, c.User)
}

// cutCaller takes the Caller off a command's encoding.
func cutCaller(b []byte) (c Caller, rest []byte, err error) {
	if len(b) == 0 || Kind(b[0]) != kindCalled {
		return c, b, nil
	}
	revision, n := protowire.ConsumeVarint(b[1:])
	if n < 0 {
		return c, nil, fmt.Errorf("decode auth revision: %w", ErrCommand)
	}
	b = b[1+n:]
	user, n := protowire.ConsumeString(b)
	if n < 0 {
		return c, nil, fmt.Errorf("decode user: %w", ErrCommand)
	}
	if b = b[n:]; len(b) > 0 && Kind(b[0]) == kindCalled {
		return c, nil, fmt.Errorf("decode command with two callers: %w", ErrCommand)
	}
	return Caller{User: user, AuthRevision: revision}, b, nil
}
