package state

import (
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
)

// AuthChanges is what changed of users and roles; the messages must not be written to.
type AuthChanges struct {
	// Touched is false when nothing changed: then all other fields are zero.
	Touched      bool
	Enabled      bool
	Revision     uint64
	Users        []*authpb.User // ascending by name, as all of these
	DeletedUsers []string
	Roles        []*authpb.Role
	DeletedRoles []string
}

// take returns the changes since the last call.
func (y *authority) take() AuthChanges {
	p := &y.pending
	if !p.touched {
		return AuthChanges{}
	}
	a := y.state
	c := AuthChanges{Touched: true, Enabled: a.enabled, Revision: a.revision}
	for _, name := range slices.Sorted(maps.Keys(p.users)) {
		if u := a.User(name); u != nil {
			c.Users = append(c.Users, u)
		} else {
			c.DeletedUsers = append(c.DeletedUsers, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.roles)) {
		if r := a.Role(name); r != nil {
			c.Roles = append(c.Roles, r)
		} else {
			c.DeletedRoles = append(c.DeletedRoles, name)
		}
	}
	*p = authPending{events: p.events}
	return c
}

// dump returns everything as changes to a cluster without users, none if it is one.
func (y *authority) dump() AuthChanges {
	a := y.state
	if !a.enabled && a.revision == firstAuthRevision {
		return AuthChanges{}
	}
	c := AuthChanges{Touched: true, Enabled: a.enabled, Revision: a.revision, Users: a.users.Values()}
	for _, r := range a.roles.Values() {
		c.Roles = append(c.Roles, r.message)
	}
	return c
}

// merge adds the changes that followed c.
func (c *AuthChanges) merge(later AuthChanges) {
	if !later.Touched {
		return
	}
	c.Touched, c.Enabled, c.Revision = true, later.Enabled, later.Revision
	c.Users, c.DeletedUsers = mergeNamed(c.Users, later.Users, c.DeletedUsers, later.DeletedUsers)
	c.Roles, c.DeletedRoles = mergeNamed(c.Roles, later.Roles, c.DeletedRoles, later.DeletedRoles)
}

func mergeNamed[M interface{ GetName() []byte }](set, laterSet []M, deleted, laterDeleted []string) ([]M, []string) {
	rows := make(map[string]M)
	gone := make(map[string]struct{})
	add := func(set []M, deleted []string) {
		for _, m := range set {
			name := string(m.GetName())
			rows[name] = m
			delete(gone, name)
		}
		for _, name := range deleted {
			gone[name] = struct{}{}
			delete(rows, name)
		}
	}
	add(set, deleted)
	add(laterSet, laterDeleted)
	set, deleted = nil, slices.Sorted(maps.Keys(gone))
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		set = append(set, rows[name])
	}
	return set, deleted
}

// Auth sets whether users are needed, and the revision of users and roles.
func (l *Loader) Auth(enabled bool, revision uint64) {
	l.m.auth.state.enabled = enabled
	l.m.auth.state.revision = max(revision, firstAuthRevision)
}

// User adds a user. The loader keeps the message.
func (l *Loader) User(u *authpb.User) error {
	if len(u.GetName()) == 0 || !slices.IsSorted(u.GetRoles()) {
		return fmt.Errorf("load user %q with roles %q: %w", u.GetName(), u.GetRoles(), errLoad)
	}
	l.m.auth.state.users.Set(string(u.GetName()), u)
	return nil
}

// Role adds a role. The loader keeps the message.
func (l *Loader) Role(r *authpb.Role) error {
	if len(r.GetName()) == 0 || !slices.IsSortedFunc(r.GetKeyPermission(), comparePermissions) {
		return fmt.Errorf("load role %q: its permissions do not ascend: %w", r.GetName(), errLoad)
	}
	l.m.auth.state.setRole(r)
	return nil
}

// checkLoaded tells whether there is somebody who can administer users.
func (a *Auth) checkLoaded() error {
	if a.enabled && !hasRole(a.User(rootName), rootName) {
		return fmt.Errorf("load users: they are needed, but there is no root: %w", errLoad)
	}
	return nil
}

// checkAuth checks users and roles.
func (m *Machine) checkAuth() error {
	a := m.auth.state
	if a.revision < firstAuthRevision {
		return broken("the auth revision is at least 1", "%d", a.revision)
	}
	if a.enabled && !hasRole(a.User(rootName), rootName) {
		return broken("while users are needed there is a root with the role root", "%q", a.Users())
	}
	if s := m.auth.shared; s != nil && (s.enabled != a.enabled || s.revision != a.revision) {
		return broken("what is shared of users and roles shows the present", "revision %d, not %d", s.revision, a.revision)
	}
	var err error
	a.users.Scan(func(name string, u *authpb.User) bool {
		err = a.checkUserRow(name, u)
		return err == nil
	})
	if err != nil {
		return err
	}
	a.roles.Scan(func(name string, r *role) bool {
		switch {
		case string(r.message.GetName()) != name || name == "":
			err = broken("a role stands under its own name", "%q", name)
		case !slices.IsSortedFunc(r.message.GetKeyPermission(), comparePermissions):
			err = broken("the permissions of a role ascend", "%q", name)
		}
		return err == nil
	})
	return err
}

func (a *Auth) checkUserRow(name string, u *authpb.User) error {
	roles := u.GetRoles()
	switch {
	case string(u.GetName()) != name || name == "":
		return broken("a user stands under his own name", "%q", name)
	case !slices.IsSorted(roles) || len(slices.Compact(slices.Clone(roles))) != len(roles):
		return broken("the roles of a user ascend, each once", "%q: %q", name, roles)
	case u.GetOptions().GetNoPassword() && len(u.GetPassword()) > 0:
		return broken("a user without password has none", "%q", name)
	}
	for _, r := range roles {
		if r != rootName && a.Role(r) == nil {
			return broken("a user has only roles that exist", "%q: %q", name, r)
		}
	}
	return nil
}

// digest adds users and roles to a hash of the state.
func (a *Auth) digest(d *digester) {
	d.flag(a.enabled)
	d.numbers(int64(a.revision), int64(a.users.Len()), int64(a.roles.Len()))
	a.users.Scan(func(name string, u *authpb.User) bool {
		d.text(name)
		d.text(string(u.GetPassword()))
		d.flag(u.GetOptions().GetNoPassword())
		d.texts(u.GetRoles())
		return true
	})
	a.roles.Scan(func(name string, r *role) bool {
		d.text(name)
		d.numbers(int64(len(r.message.GetKeyPermission())))
		for _, p := range r.message.GetKeyPermission() {
			d.numbers(int64(p.GetPermType()))
			d.text(string(p.GetKey()))
			d.text(string(p.GetRangeEnd()))
		}
		return true
	})
}
