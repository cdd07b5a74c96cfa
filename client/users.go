package client

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Conditions of the calls about users and roles, to test for with errors.Is.
var (
	// ErrUserExists: a user of that name exists.
	ErrUserExists = errors.New("user exists already")
	// ErrUserNotFound: there is no user of that name.
	ErrUserNotFound = errors.New("user does not exist")
	// ErrRoleExists: a role of that name exists.
	ErrRoleExists = errors.New("role exists already")
	// ErrRoleNotFound: there is no role of that name.
	ErrRoleNotFound = errors.New("role does not exist")
	// ErrRoleNotGranted: the user does not have the role that is to be taken from him.
	ErrRoleNotGranted = errors.New("user does not have the role")
	// ErrPermissionNotGranted: the role does not have the permission that is to be taken from it.
	ErrPermissionNotGranted = errors.New("role does not have the permission")
	// ErrAuthNotEnabled: there is nothing to authenticate for, as the server lets everybody do everything.
	ErrAuthNotEnabled = errors.New("authentication is not enabled")
	// ErrNoRoot: authentication needs a user root with the role root.
	ErrNoRoot = errors.New("there is no user root with the role root")
	// ErrRootNeeded: root is needed as long as authentication is enabled.
	ErrRootNeeded = errors.New("root is needed while authentication is enabled")
)

// userAnswers are the server's texts for these conditions. It gives them before anything changes.
var userAnswers = []answer{
	{"etcdserver: user name already exists", refused, ErrUserExists},
	{"etcdserver: user name not found", refused, ErrUserNotFound},
	{"etcdserver: role name already exists", refused, ErrRoleExists},
	{"etcdserver: role name not found", refused, ErrRoleNotFound},
	{"etcdserver: role is not granted to the user", refused, ErrRoleNotGranted},
	{"etcdserver: permission is not granted to the role", refused, ErrPermissionNotGranted},
	{"etcdserver: authentication is not enabled", refused, ErrAuthNotEnabled},
	{"etcdserver: root user does not exist", refused, ErrNoRoot},
	{"etcdserver: root user does not have root role", refused, ErrNoRoot},
	{"etcdserver: invalid auth management", refused, ErrRootNeeded},
}

// The calls about users and roles. All but the questions are repeatable: asking twice leaves the same.
var (
	methodAuthEnable       = method{full: pb.Auth_AuthEnable_FullMethodName, name: "enable authentication"}
	methodAuthDisable      = method{full: pb.Auth_AuthDisable_FullMethodName, name: "disable authentication"}
	methodAuthStatus       = method{full: pb.Auth_AuthStatus_FullMethodName, name: "authentication status", read: true}
	methodUserAdd          = method{full: pb.Auth_UserAdd_FullMethodName, name: "add user"}
	methodUserDelete       = method{full: pb.Auth_UserDelete_FullMethodName, name: "delete user"}
	methodUserGet          = method{full: pb.Auth_UserGet_FullMethodName, name: "roles of user", read: true}
	methodUserList         = method{full: pb.Auth_UserList_FullMethodName, name: "list users", read: true}
	methodUserPassword     = method{full: pb.Auth_UserChangePassword_FullMethodName, name: "change password"}
	methodUserGrant        = method{full: pb.Auth_UserGrantRole_FullMethodName, name: "grant role"}
	methodUserRevoke       = method{full: pb.Auth_UserRevokeRole_FullMethodName, name: "revoke role"}
	methodRoleAdd          = method{full: pb.Auth_RoleAdd_FullMethodName, name: "add role"}
	methodRoleDelete       = method{full: pb.Auth_RoleDelete_FullMethodName, name: "delete role"}
	methodRoleGet          = method{full: pb.Auth_RoleGet_FullMethodName, name: "permissions of role", read: true}
	methodRoleList         = method{full: pb.Auth_RoleList_FullMethodName, name: "list roles", read: true}
	methodPermissionGrant  = method{full: pb.Auth_RoleGrantPermission_FullMethodName, name: "grant permission"}
	methodPermissionRevoke = method{full: pb.Auth_RoleRevokePermission_FullMethodName, name: "revoke permission"}
)

// Access is what a permission allows to do with keys.
type Access int32

// The kinds of access.
const (
	Read Access = iota
	Write
	ReadWrite
)

// String returns "read", "write" or "readwrite".
func (a Access) String() string {
	switch a {
	case Read:
		return "read"
	case Write:
		return "write"
	default:
		return "readwrite"
	}
}

// Permission is one thing that a role allows.
type Permission struct {
	Access Access
	// Key is the first key that it is about, and End the one behind the last. Without End it is about Key alone; an End
	// of "\x00" means that there is none.
	Key, End string
}

// AuthStatus tells whether the cluster knows its users.
type AuthStatus struct {
	Enabled  bool
	Revision uint64 // counts the changes of users, roles and permissions
}

// EnableAuth makes the cluster ask who its users are. It needs a user root with the role root: [ErrNoRoot].
func (c *Client) EnableAuth(ctx context.Context) error {
	return c.change(ctx, methodAuthEnable, &pb.AuthEnableRequest{}, &pb.AuthEnableResponse{}, nil)
}

// DisableAuth lets everybody do everything again.
func (c *Client) DisableAuth(ctx context.Context) error {
	return c.change(ctx, methodAuthDisable, &pb.AuthDisableRequest{}, &pb.AuthDisableResponse{}, nil)
}

// AuthStatus tells whether authentication is enabled.
func (c *Client) AuthStatus(ctx context.Context) (AuthStatus, error) {
	var resp pb.AuthStatusResponse
	err := c.core.call(ctx, methodAuthStatus, &pb.AuthStatusRequest{}, &resp)
	return AuthStatus{Enabled: resp.Enabled, Revision: resp.AuthRevision}, err
}

// AddUser makes a user with a password, who has no role yet. [ErrUserExists] when there is one of that name.
func (c *Client) AddUser(ctx context.Context, name, password string) error {
	req := &pb.AuthUserAddRequest{Name: name, Password: password, Options: &authpb.UserAddOptions{}}
	return c.change(ctx, methodUserAdd, req, &pb.AuthUserAddResponse{}, ErrUserExists)
}

// AddUserWithoutPassword makes a user who can not log in with a password, only by a certificate with his name.
func (c *Client) AddUserWithoutPassword(ctx context.Context, name string) error {
	req := &pb.AuthUserAddRequest{Name: name, Options: &authpb.UserAddOptions{NoPassword: true}}
	return c.change(ctx, methodUserAdd, req, &pb.AuthUserAddResponse{}, ErrUserExists)
}

// DeleteUser deletes a user, and ends what he may do at once. [ErrUserNotFound] when there is none of that name.
func (c *Client) DeleteUser(ctx context.Context, name string) error {
	req := &pb.AuthUserDeleteRequest{Name: name}
	return c.change(ctx, methodUserDelete, req, &pb.AuthUserDeleteResponse{}, ErrUserNotFound)
}

// ChangePassword gives a user another password. [ErrUserNotFound] when there is none of that name.
func (c *Client) ChangePassword(ctx context.Context, name, password string) error {
	req := &pb.AuthUserChangePasswordRequest{Name: name, Password: password}
	return c.change(ctx, methodUserPassword, req, &pb.AuthUserChangePasswordResponse{}, nil)
}

// Users lists the names of all users.
func (c *Client) Users(ctx context.Context) ([]string, error) {
	var resp pb.AuthUserListResponse
	err := c.core.call(ctx, methodUserList, &pb.AuthUserListRequest{}, &resp)
	return resp.Users, err
}

// UserRoles lists the roles of a user. [ErrUserNotFound] when there is none of that name.
func (c *Client) UserRoles(ctx context.Context, name string) ([]string, error) {
	var resp pb.AuthUserGetResponse
	err := c.core.call(ctx, methodUserGet, &pb.AuthUserGetRequest{Name: name}, &resp)
	return resp.Roles, err
}

// GrantRole gives a user a role. [ErrUserNotFound], [ErrRoleNotFound].
func (c *Client) GrantRole(ctx context.Context, user, role string) error {
	req := &pb.AuthUserGrantRoleRequest{User: user, Role: role}
	return c.change(ctx, methodUserGrant, req, &pb.AuthUserGrantRoleResponse{}, nil)
}

// RevokeRole takes a role from a user. [ErrUserNotFound], [ErrRoleNotGranted].
func (c *Client) RevokeRole(ctx context.Context, user, role string) error {
	req := &pb.AuthUserRevokeRoleRequest{Name: user, Role: role}
	return c.change(ctx, methodUserRevoke, req, &pb.AuthUserRevokeRoleResponse{}, ErrRoleNotGranted)
}

// AddRole makes a role without permissions. [ErrRoleExists] when there is one of that name.
func (c *Client) AddRole(ctx context.Context, name string) error {
	return c.change(ctx, methodRoleAdd, &pb.AuthRoleAddRequest{Name: name}, &pb.AuthRoleAddResponse{}, ErrRoleExists)
}

// DeleteRole deletes a role, and takes it from all users. [ErrRoleNotFound] when there is none of that name.
func (c *Client) DeleteRole(ctx context.Context, name string) error {
	req := &pb.AuthRoleDeleteRequest{Role: name}
	return c.change(ctx, methodRoleDelete, req, &pb.AuthRoleDeleteResponse{}, ErrRoleNotFound)
}

// Roles lists the names of all roles.
func (c *Client) Roles(ctx context.Context) ([]string, error) {
	var resp pb.AuthRoleListResponse
	err := c.core.call(ctx, methodRoleList, &pb.AuthRoleListRequest{}, &resp)
	return resp.Roles, err
}

// Permissions lists what a role allows. The keys are those of the server, whatever the namespace. [ErrRoleNotFound] when
// there is none of that name.
func (c *Client) Permissions(ctx context.Context, role string) ([]Permission, error) {
	var resp pb.AuthRoleGetResponse
	if err := c.core.call(ctx, methodRoleGet, &pb.AuthRoleGetRequest{Role: role}, &resp); err != nil {
		return nil, err
	}
	out := make([]Permission, len(resp.Perm))
	for i, p := range resp.Perm {
		out[i] = Permission{Access: Access(p.PermType), Key: string(p.Key), End: string(p.RangeEnd)}
	}
	return out, nil
}

// GrantPermission lets a role have access to a key, or to a range of keys when an option gives one. It replaces another
// access that the role has to exactly these keys. The keys have the client's namespace in front. [ErrRoleNotFound].
func (c *Client) GrantPermission(ctx context.Context, role string, access Access, key string, over ...RangeOption) error {
	keys := keysOf(key, over).in(c.ns)
	req := &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: &authpb.Permission{
		PermType: authpb.Permission_Type(access), Key: []byte(keys.key), RangeEnd: []byte(keys.end),
	}}
	return c.change(ctx, methodPermissionGrant, req, &pb.AuthRoleGrantPermissionResponse{}, nil)
}

// RevokePermission takes from a role what it may do with exactly these keys. [ErrRoleNotFound],
// [ErrPermissionNotGranted].
func (c *Client) RevokePermission(ctx context.Context, role, key string, over ...RangeOption) error {
	keys := keysOf(key, over).in(c.ns)
	req := &pb.AuthRoleRevokePermissionRequest{Role: role, Key: []byte(keys.key), RangeEnd: []byte(keys.end)}
	return c.change(ctx, methodPermissionRevoke, req, &pb.AuthRoleRevokePermissionResponse{}, ErrPermissionNotGranted)
}

// change is callRepeatable. done is what a second attempt is told when the first one did it; nil for nothing special.
func (c *Client) change(ctx context.Context, m method, req, resp proto.Message, done error) error {
	return c.core.callRepeatable(ctx, m, req, resp, done)
}

func keysOf(key string, over []RangeOption) keyRange {
	keys := keyRange{key: key}
	for _, o := range over {
		keys = o.rangeFrom(keys.key)
	}
	return keys
}
