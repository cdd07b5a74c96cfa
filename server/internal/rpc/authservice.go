package rpc

import (
	"context"
	"encoding/base64"
	"errors"
	"net/netip"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/peer"

	"github.com/latchkey-go/latchkey/server/internal/auth"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// Auth serves users, roles and tokens. The guard has decided who may call it.
type Auth struct {
	store  Store
	guard  *Guard
	hasher *auth.Hasher
	wrong  *auth.Attempts
	// loopback says that those on this machine are counted like others: in tests.
	loopback bool
	pb.UnsafeAuthServer
}

// NewAuth returns the Auth service. Wrong passwords are counted for each address but
// those of this machine, unless loopback is true.
func NewAuth(store Store, guard *Guard, hasher *auth.Hasher, loopback bool) *Auth {
	return &Auth{store: store, guard: guard, hasher: hasher, wrong: auth.NewAttempts(), loopback: loopback}
}

var _ pb.AuthServer = (*Auth)(nil)

// AuthEnable has every call need a user from now on.
func (s *Auth) AuthEnable(ctx context.Context, r *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	return propose[*pb.AuthEnableResponse](ctx, s.store, state.Command{Kind: state.KindAuthEnable, Request: r})
}

// AuthDisable ends that, and all tokens.
func (s *Auth) AuthDisable(ctx context.Context, r *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	return propose[*pb.AuthDisableResponse](ctx, s.store, state.Command{Kind: state.KindAuthDisable, Request: r})
}

// AuthStatus tells whether users are needed. It may be asked without being one.
func (s *Auth) AuthStatus(ctx context.Context, r *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	if err := s.guard.Confirmed(ctx, pb.Auth_AuthStatus_FullMethodName, r); err != nil {
		return nil, wireError(err)
	}
	a := s.guard.backend.Auth()
	resp := &pb.AuthStatusResponse{Header: &pb.ResponseHeader{}, Enabled: a.Enabled(), AuthRevision: a.Revision()}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// Authenticate gives a token for a password. The password is compared here, and what enters the log is that it was
// right at this revision of users: if they have changed by the time that it is applied, it is compared again.
func (s *Auth) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	password := r.Password
	r.Password = "" // whatever is made of the request from here on
	if err := s.guard.backend.Confirm(ctx); err != nil {
		return nil, wireError(err)
	}
	for {
		revision, err := s.comparePassword(ctx, r.Name, password)
		if err != nil {
			return nil, wireError(err)
		}
		resp, err := s.token(ctx, auth.Identity{User: r.Name, Revision: revision})
		if !errors.Is(err, state.ErrAuthOldRevision) {
			return resp, wireError(err)
		}
	}
}

// comparePassword returns the revision of users at which the password was right. An empty password never is.
func (s *Auth) comparePassword(ctx context.Context, name, password string) (revision uint64, err error) {
	a := s.guard.backend.Auth()
	if !a.Enabled() {
		return 0, state.ErrAuthNotEnabled
	}
	u := a.User(name)
	if u.GetOptions().GetNoPassword() {
		return 0, state.ErrNoPasswordUser
	}
	from, counts := s.callerAddress(ctx)
	if counts && !s.wrong.Allow(from, time.Now()) {
		return 0, ErrTooManyRequests
	}
	ok, err := s.hasher.Matches(ctx, u.GetPassword(), password)
	switch {
	case err != nil:
		return 0, err
	case !ok || u == nil || password == "":
		if counts {
			s.wrong.Wrong(from, time.Now())
		}
		return 0, state.ErrAuthFailed
	}
	return a.Revision(), nil
}

// callerAddress returns where a call comes from, if that is a machine whose wrong
// passwords are counted.
func (s *Auth) callerAddress(ctx context.Context) (from netip.Addr, counts bool) {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return from, false
	}
	at, err := netip.ParseAddrPort(p.Addr.String())
	return at.Addr(), err == nil && (s.loopback || !at.Addr().Unmap().IsLoopback())
}

// token makes the token of a user whose password was right.
func (s *Auth) token(ctx context.Context, id auth.Identity) (*pb.AuthenticateResponse, error) {
	tokens := s.guard.tokens
	if !tokens.Simple() {
		resp := &pb.AuthenticateResponse{Header: &pb.ResponseHeader{}}
		s.store.FillHeader(resp.Header)
		var err error
		if resp.Token, err = tokens.Sign(id); err != nil {
			return nil, err
		}
		if s.guard.backend.Auth().Revision() != id.Revision {
			return nil, state.ErrAuthOldRevision
		}
		return resp, nil
	}
	secret, name := tokens.Secret()
	msg, err := s.store.Propose(ctx, state.Command{
		Kind: state.KindAuthenticate, Request: &pb.InternalAuthenticateRequest{Name: id.User, SimpleToken: name},
		Caller: state.Caller{AuthRevision: id.Revision},
	})
	if err != nil {
		return nil, err
	}
	resp, ok := msg.(*pb.AuthenticateResponse)
	if !ok {
		return nil, errResponseType
	}
	resp.Token = auth.Join(secret, resp.Token)
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// UserAdd adds a user. Only the hash of his password goes on from here.
func (s *Auth) UserAdd(ctx context.Context, r *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	add := &pb.AuthUserAddRequest{Name: r.Name, Options: r.Options}
	if !r.GetOptions().GetNoPassword() {
		var err error
		if add.HashedPassword, err = s.hash(ctx, r.Password); err != nil {
			return nil, wireError(err)
		}
	}
	r.Password = ""
	return propose[*pb.AuthUserAddResponse](ctx, s.store, state.Command{Kind: state.KindUserAdd, Request: add})
}

// UserChangePassword gives a user another password, or, as in etcd, the hash of one.
func (s *Auth) UserChangePassword(ctx context.Context, r *pb.AuthUserChangePasswordRequest) (*pb.AuthUserChangePasswordResponse, error) {
	change := &pb.AuthUserChangePasswordRequest{Name: r.Name, HashedPassword: r.HashedPassword}
	if r.Password != "" {
		var err error
		if change.HashedPassword, err = s.hash(ctx, r.Password); err != nil {
			return nil, wireError(err)
		}
	}
	r.Password = ""
	return propose[*pb.AuthUserChangePasswordResponse](ctx, s.store, state.Command{Kind: state.KindUserChangePassword, Request: change})
}

func (s *Auth) hash(ctx context.Context, password string) (string, error) {
	hash, err := s.hasher.Hash(ctx, password)
	return base64.StdEncoding.EncodeToString(hash), err
}

// UserGet tells the roles of a user.
func (s *Auth) UserGet(ctx context.Context, r *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	if err := s.guard.Confirmed(ctx, pb.Auth_UserGet_FullMethodName, r); err != nil {
		return nil, wireError(err)
	}
	u := s.guard.backend.Auth().User(r.Name)
	if u == nil {
		return nil, wireError(state.ErrUserNotFound)
	}
	resp := &pb.AuthUserGetResponse{Header: &pb.ResponseHeader{}, Roles: u.GetRoles()}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// UserList lists the users.
func (s *Auth) UserList(ctx context.Context, r *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	if err := s.guard.Confirmed(ctx, pb.Auth_UserList_FullMethodName, r); err != nil {
		return nil, wireError(err)
	}
	resp := &pb.AuthUserListResponse{Header: &pb.ResponseHeader{}, Users: s.guard.backend.Auth().Users()}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// UserDelete deletes a user and ends his tokens.
func (s *Auth) UserDelete(ctx context.Context, r *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	return propose[*pb.AuthUserDeleteResponse](ctx, s.store, state.Command{Kind: state.KindUserDelete, Request: r})
}

// UserGrantRole gives a user a role.
func (s *Auth) UserGrantRole(ctx context.Context, r *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	return propose[*pb.AuthUserGrantRoleResponse](ctx, s.store, state.Command{Kind: state.KindUserGrantRole, Request: r})
}

// UserRevokeRole takes a role from a user.
func (s *Auth) UserRevokeRole(ctx context.Context, r *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	return propose[*pb.AuthUserRevokeRoleResponse](ctx, s.store, state.Command{Kind: state.KindUserRevokeRole, Request: r})
}

// RoleAdd adds a role without permissions.
func (s *Auth) RoleAdd(ctx context.Context, r *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	return propose[*pb.AuthRoleAddResponse](ctx, s.store, state.Command{Kind: state.KindRoleAdd, Request: r})
}

// RoleGet tells the permissions of a role. Those of the role root are what they mean, whatever it was given.
func (s *Auth) RoleGet(ctx context.Context, r *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	if err := s.guard.Confirmed(ctx, pb.Auth_RoleGet_FullMethodName, r); err != nil {
		return nil, wireError(err)
	}
	role := s.guard.backend.Auth().Role(r.Role)
	if role == nil {
		return nil, wireError(state.ErrRoleNotFound)
	}
	resp := &pb.AuthRoleGetResponse{Header: &pb.ResponseHeader{}, Perm: role.GetKeyPermission()}
	if r.Role == rootRole {
		resp.Perm = []*authpb.Permission{{PermType: authpb.Permission_READWRITE, RangeEnd: []byte{0}}}
	}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// rootRole is the role that may do everything.
const rootRole = "root"

// RoleList lists the roles.
func (s *Auth) RoleList(ctx context.Context, r *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	if err := s.guard.Confirmed(ctx, pb.Auth_RoleList_FullMethodName, r); err != nil {
		return nil, wireError(err)
	}
	resp := &pb.AuthRoleListResponse{Header: &pb.ResponseHeader{}, Roles: s.guard.backend.Auth().Roles()}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// RoleDelete deletes a role, and takes it from the users who have it.
func (s *Auth) RoleDelete(ctx context.Context, r *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	return propose[*pb.AuthRoleDeleteResponse](ctx, s.store, state.Command{Kind: state.KindRoleDelete, Request: r})
}

// RoleGrantPermission gives a role a permission.
func (s *Auth) RoleGrantPermission(ctx context.Context, r *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	return propose[*pb.AuthRoleGrantPermissionResponse](ctx, s.store, state.Command{Kind: state.KindRoleGrantPermission, Request: r})
}

// RoleRevokePermission takes a permission from a role.
func (s *Auth) RoleRevokePermission(ctx context.Context, r *pb.AuthRoleRevokePermissionRequest) (*pb.AuthRoleRevokePermissionResponse, error) {
	return propose[*pb.AuthRoleRevokePermissionResponse](ctx, s.store, state.Command{Kind: state.KindRoleRevokePermission, Request: r})
}
