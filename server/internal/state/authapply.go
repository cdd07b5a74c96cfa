package state

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strconv"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// authority is the machine's users and roles, and what changed of them.
type authority struct {
	state   *Auth
	shared  *Auth // a copy of state, nil when that was written to since
	pending authPending
}

// authPending is what TakeChanges and TakeAuthEvents will return.
type authPending struct {
	touched      bool
	users, roles map[string]struct{} // their names
	events       []AuthEvent
}

// AuthEvent tells what happened to tokens, which no member keeps on disk: Token was given to User, or, without a Token,
// all tokens of User have ended, or, without both, all tokens.
type AuthEvent struct{ User, Token string }

// Auth returns users and roles as they are now.
func (m *Machine) Auth() *Auth {
	if m.auth.shared == nil {
		m.auth.shared = m.auth.state.copy()
	}
	return m.auth.shared
}

// Auth returns users and roles as they were at the view.
func (v *View) Auth() *Auth { return v.auth }

// TakeAuthEvents returns what happened to tokens since the last call, in order. It waits in memory until it is taken.
func (m *Machine) TakeAuthEvents() []AuthEvent {
	events := m.auth.pending.events
	m.auth.pending.events = nil
	return events
}

// writing returns the state to write to.
func (m *Machine) writing() *Auth {
	m.auth.shared, m.auth.pending.touched = nil, true
	return m.auth.state
}

func (m *Machine) noteTokens(e AuthEvent) {
	m.auth.pending.events = append(m.auth.pending.events, e)
}

func (m *Machine) setUser(u *authpb.User) {
	m.writing().users.Set(string(u.GetName()), u)
	m.auth.pending.noteUser(string(u.GetName()))
}

func (p *authPending) noteUser(name string) {
	if p.users == nil {
		p.users = make(map[string]struct{})
	}
	p.users[name] = struct{}{}
}

func (p *authPending) noteRole(name string) {
	if p.roles == nil {
		p.roles = make(map[string]struct{})
	}
	p.roles[name] = struct{}{}
}

func (m *Machine) setRole(r *authpb.Role) {
	m.writing().setRole(r)
	m.auth.pending.noteRole(string(r.GetName()))
}

// applyAuth carries out a command about users and roles. ok is false when the request is none.
func (m *Machine) applyAuth(c *Command) (response proto.Message, ok bool, err error) {
	switch r := c.Request.(type) {
	case *pb.AuthEnableRequest:
		response, err = &pb.AuthEnableResponse{Header: m.header()}, m.authEnable()
	case *pb.AuthDisableRequest:
		m.authDisable()
		response = &pb.AuthDisableResponse{Header: m.header()}
	case *pb.InternalAuthenticateRequest:
		var token string
		token, err = m.authenticate(r, c.AuthRevision)
		response = &pb.AuthenticateResponse{Header: m.header(), Token: token}
	case *pb.AuthUserAddRequest:
		response, err = &pb.AuthUserAddResponse{Header: m.header()}, m.userAdd(r)
	case *pb.AuthUserDeleteRequest:
		response, err = &pb.AuthUserDeleteResponse{Header: m.header()}, m.userDelete(r.GetName())
	case *pb.AuthUserChangePasswordRequest:
		response, err = &pb.AuthUserChangePasswordResponse{Header: m.header()}, m.userChangePassword(r)
	case *pb.AuthUserGrantRoleRequest:
		response, err = &pb.AuthUserGrantRoleResponse{Header: m.header()}, m.userGrantRole(r.GetUser(), r.GetRole())
	case *pb.AuthUserRevokeRoleRequest:
		response, err = &pb.AuthUserRevokeRoleResponse{Header: m.header()}, m.userRevokeRole(r.GetName(), r.GetRole())
	case *pb.AuthRoleAddRequest:
		response, err = &pb.AuthRoleAddResponse{Header: m.header()}, m.roleAdd(r.GetName())
	case *pb.AuthRoleDeleteRequest:
		response, err = &pb.AuthRoleDeleteResponse{Header: m.header()}, m.roleDelete(r.GetRole())
	case *pb.AuthRoleGrantPermissionRequest:
		response, err = &pb.AuthRoleGrantPermissionResponse{Header: m.header()}, m.roleGrant(r)
	case *pb.AuthRoleRevokePermissionRequest:
		response, err = &pb.AuthRoleRevokePermissionResponse{Header: m.header()}, m.roleRevoke(r)
	default:
		return nil, false, nil
	}
	if err != nil {
		return nil, true, err
	}
	return response, true, nil
}

func (m *Machine) authEnable() error {
	a := m.auth.state
	root := a.User(rootName)
	switch {
	case a.enabled:
		return nil
	case root == nil:
		return ErrRootUserNotExist
	case !hasRole(root, rootName):
		return ErrRootRoleNotExist
	}
	m.writing().enabled = true
	return nil
}

func (m *Machine) authDisable() {
	if !m.auth.state.enabled {
		return
	}
	a := m.writing()
	a.enabled = false
	a.revision++
	m.noteTokens(AuthEvent{})
}

// authenticate gives a token to a user whose password was found right at the revision given. The password is not in the
// log; that the user and his password are still the same is what the revision tells.
func (m *Machine) authenticate(r *pb.InternalAuthenticateRequest, revision uint64) (string, error) {
	a := m.auth.state
	if !a.enabled {
		return "", ErrAuthNotEnabled
	}
	u := a.User(r.GetName())
	switch {
	case u == nil, u.GetOptions().GetNoPassword():
		return "", ErrAuthFailed
	case revision != a.revision:
		return "", ErrAuthOldRevision
	}
	token := r.GetSimpleToken() + "." + strconv.FormatUint(m.index, 10)
	m.noteTokens(AuthEvent{User: r.GetName(), Token: token})
	return token, nil
}

func (m *Machine) userAdd(r *pb.AuthUserAddRequest) error {
	switch {
	case r.GetName() == "":
		return ErrUserEmpty
	case m.auth.state.User(r.GetName()) != nil:
		return ErrUserAlreadyExist
	}
	u := &authpb.User{
		Name:    []byte(r.GetName()),
		Options: &authpb.UserAddOptions{NoPassword: r.GetOptions().GetNoPassword()},
	}
	if !u.Options.NoPassword {
		var err error
		if u.Password, err = base64.StdEncoding.DecodeString(r.GetHashedPassword()); err != nil {
			return ErrNoPasswordUser
		}
	}
	m.setUser(u)
	m.auth.state.revision++
	return nil
}

func (m *Machine) userDelete(name string) error {
	switch {
	case m.auth.state.enabled && name == rootName:
		return ErrInvalidAuthMgmt
	case m.auth.state.User(name) == nil:
		return ErrUserNotFound
	}
	a := m.writing()
	a.users.Delete(name)
	a.revision++
	m.auth.pending.noteUser(name)
	m.noteTokens(AuthEvent{User: name})
	return nil
}

func (m *Machine) userChangePassword(r *pb.AuthUserChangePasswordRequest) error {
	old := m.auth.state.User(r.GetName())
	if old == nil {
		return ErrUserNotFound
	}
	u := &authpb.User{Name: []byte(r.GetName()), Roles: old.GetRoles(), Options: old.Options}
	if !old.GetOptions().GetNoPassword() {
		var err error
		if u.Password, err = base64.StdEncoding.DecodeString(r.GetHashedPassword()); err != nil {
			return ErrNoPasswordUser
		}
	}
	m.setUser(u)
	m.auth.state.revision++
	m.noteTokens(AuthEvent{User: r.GetName()})
	return nil
}

// withRoles returns the user with other roles.
func withRoles(u *authpb.User, roles []string) *authpb.User {
	return &authpb.User{Name: u.GetName(), Password: u.GetPassword(), Roles: roles, Options: u.GetOptions()}
}

func (m *Machine) userGrantRole(name, role string) error {
	u := m.auth.state.User(name)
	switch {
	case u == nil:
		return ErrUserNotFound
	case role != rootName && m.auth.state.Role(role) == nil:
		return ErrRoleNotFound
	case hasRole(u, role):
		return nil
	}
	roles := append(slices.Clone(u.GetRoles()), role)
	slices.Sort(roles)
	m.setUser(withRoles(u, roles))
	m.auth.state.revision++
	return nil
}

func (m *Machine) userRevokeRole(name, role string) error {
	if m.auth.state.enabled && name == rootName && role == rootName {
		return ErrInvalidAuthMgmt
	}
	u := m.auth.state.User(name)
	switch {
	case u == nil:
		return ErrUserNotFound
	case !hasRole(u, role):
		return ErrRoleNotGranted
	}
	m.setUser(withRoles(u, without(u.GetRoles(), role)))
	m.auth.state.revision++
	return nil
}

func without(roles []string, role string) []string {
	return slices.DeleteFunc(slices.Clone(roles), func(r string) bool { return r == role })
}

func (m *Machine) roleAdd(name string) error {
	switch {
	case name == "":
		return ErrRoleEmpty
	case m.auth.state.Role(name) != nil:
		return ErrRoleAlreadyExist
	}
	m.setRole(&authpb.Role{Name: []byte(name)})
	m.auth.state.revision++
	return nil
}

func (m *Machine) roleDelete(name string) error {
	switch {
	case m.auth.state.enabled && name == rootName:
		return ErrInvalidAuthMgmt
	case m.auth.state.Role(name) == nil:
		return ErrRoleNotFound
	}
	a := m.writing()
	a.roles.Delete(name)
	m.auth.pending.noteRole(name)
	for _, u := range a.users.Values() {
		if hasRole(u, name) {
			m.setUser(withRoles(u, without(u.GetRoles(), name)))
		}
	}
	a.revision++
	return nil
}

// roleGrant adds a permission to a role, or changes the type of the one that is the first of its key. A second one of
// the same key is not looked for, as in etcd, so a range may be named twice.
func (m *Machine) roleGrant(r *pb.AuthRoleGrantPermissionRequest) error {
	p := r.GetPerm()
	switch {
	case p == nil:
		return ErrPermissionNotGiven
	case !validPermission(p.GetKey(), p.GetRangeEnd()):
		return ErrInvalidAuthMgmt
	}
	old := m.auth.state.Role(r.GetName())
	if old == nil {
		return ErrRoleNotFound
	}
	granted := &authpb.Permission{PermType: p.GetPermType(), Key: p.GetKey(), RangeEnd: p.GetRangeEnd()}
	permissions := slices.Clone(old.GetKeyPermission())
	at, _ := slices.BinarySearchFunc(permissions, granted.Key, func(p *authpb.Permission, key []byte) int {
		return bytes.Compare(p.GetKey(), key)
	})
	if at < len(permissions) && sameRange(permissions[at], granted.Key, granted.RangeEnd) {
		permissions[at] = granted
	} else {
		permissions = append(permissions, granted)
		slices.SortStableFunc(permissions, comparePermissions)
	}
	m.setRole(&authpb.Role{Name: old.GetName(), KeyPermission: permissions})
	m.auth.state.revision++
	return nil
}

func sameRange(p *authpb.Permission, key, end []byte) bool {
	return bytes.Equal(p.GetKey(), key) && bytes.Equal(p.GetRangeEnd(), end)
}

func (m *Machine) roleRevoke(r *pb.AuthRoleRevokePermissionRequest) error {
	old := m.auth.state.Role(r.GetRole())
	if old == nil {
		return ErrRoleNotFound
	}
	rest := slices.DeleteFunc(slices.Clone(old.GetKeyPermission()), func(p *authpb.Permission) bool {
		return sameRange(p, r.GetKey(), r.GetRangeEnd())
	})
	if len(rest) == len(old.GetKeyPermission()) {
		return ErrPermissionNotGranted
	}
	m.setRole(&authpb.Role{Name: old.GetName(), KeyPermission: rest})
	m.auth.state.revision++
	return nil
}

func comparePermissions(a, b *authpb.Permission) int { return bytes.Compare(a.GetKey(), b.GetKey()) }
