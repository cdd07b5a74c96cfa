package state

import (
	"bytes"
	"slices"

	"github.com/tidwall/btree"
	"go.etcd.io/etcd/api/v3/authpb"
)

const (
	// rootName is the name of the user that may do everything, and of the role that makes it so.
	rootName = "root"
	// firstAuthRevision is that of a cluster without users, as in etcd.
	firstAuthRevision = 1
)

// Auth is who may do what: users, roles, and whether they matter. What Machine.Auth and View.Auth return is immutable
// and may be read from any number of goroutines.
type Auth struct {
	enabled  bool
	revision uint64
	users    *btree.Map[string, *authpb.User] // the messages are replaced and never written to
	roles    *btree.Map[string, *role]
}

// role is a role and what its permissions come to. It is replaced and never written to.
type role struct {
	message     *authpb.Role // permissions ascend by key
	read, write []span       // apart from each other, ascending
}

// span is the keys from from on and below to; all of them when to is empty.
type span struct{ from, to string }

// newAuth returns the state of a cluster without users.
func newAuth() *Auth {
	return &Auth{
		revision: firstAuthRevision,
		users:    btree.NewMap[string, *authpb.User](treeDegree),
		roles:    btree.NewMap[string, *role](treeDegree),
	}
}

// copy returns what stays as it is when a is written to. It takes constant time.
func (a *Auth) copy() *Auth {
	return &Auth{enabled: a.enabled, revision: a.revision, users: a.users.Copy(), roles: a.roles.Copy()}
}

// Enabled reports whether users are needed at all.
func (a *Auth) Enabled() bool { return a.enabled }

// Revision counts the changes of users and roles. It is 1 when there was none.
func (a *Auth) Revision() uint64 { return a.revision }

// User returns a user, nil for none. The message must not be written to.
func (a *Auth) User(name string) *authpb.User {
	u, _ := a.users.Get(name)
	return u
}

// Role returns a role, nil for none. The message must not be written to.
func (a *Auth) Role(name string) *authpb.Role {
	if r, ok := a.roles.Get(name); ok {
		return r.message
	}
	return nil
}

// Users returns the users' names, ascending.
func (a *Auth) Users() []string { return a.users.Keys() }

// Roles returns the roles' names, ascending.
func (a *Auth) Roles() []string { return a.roles.Keys() }

// setRole puts a role in place, and works out what it permits.
func (a *Auth) setRole(message *authpb.Role) {
	r := &role{message: message}
	for _, p := range message.GetKeyPermission() {
		s := spanOf(p.GetKey(), p.GetRangeEnd())
		if p.GetPermType() == authpb.Permission_READ || p.GetPermType() == authpb.Permission_READWRITE {
			r.read = append(r.read, s)
		}
		if p.GetPermType() == authpb.Permission_WRITE || p.GetPermType() == authpb.Permission_READWRITE {
			r.write = append(r.write, s)
		}
	}
	r.read, r.write = mergeSpans(r.read), mergeSpans(r.write)
	a.roles.Set(string(message.GetName()), r)
}

// spanOf reads a range as permissions and requests have it: no end is the one key, an end of "\x00" is open.
func spanOf(key, end []byte) span {
	switch {
	case len(end) == 0:
		return span{from: string(key), to: string(key) + "\x00"}
	case isOpen(end):
		return span{from: string(key)}
	default:
		return span{from: string(key), to: string(end)}
	}
}

func isOpen(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// beyond reports whether the end a is above the end b, where the empty one is the highest.
func beyond(a, b string) bool { return b != "" && (a == "" || a > b) }

// mergeSpans returns the union of spans that ascend by from.
func mergeSpans(spans []span) []span {
	var union []span
	for _, s := range spans {
		if s.to != "" && s.to <= s.from {
			continue // nothing is in it
		}
		if n := len(union); n > 0 && (union[n-1].to == "" || s.from <= union[n-1].to) {
			if beyond(s.to, union[n-1].to) {
				union[n-1].to = s.to
			}
			continue
		}
		union = append(union, s)
	}
	return union
}

// reach returns the end of the span that holds key, and whether there is one.
func reach(spans []span, key string) (to string, ok bool) {
	i, _ := slices.BinarySearchFunc(spans, key, func(s span, key string) int {
		if s.from <= key {
			return -1
		}
		return 1
	})
	if i == 0 {
		return "", false
	}
	s := spans[i-1]
	return s.to, s.to == "" || key < s.to
}

// covers reports whether the roles of a user together permit all of s. A range that is empty, because it ends before it
// begins, is permitted to whom its beginning is, as in etcd.
func (a *Auth) covers(u *authpb.User, s span, write bool) bool {
	if s.to != "" && s.to <= s.from {
		s.to = s.from + "\x00"
	}
	for at := s.from; ; {
		furthest, any := at, false
		for _, name := range u.GetRoles() {
			r, ok := a.roles.Get(name)
			if !ok {
				continue
			}
			spans := r.read
			if write {
				spans = r.write
			}
			if to, ok := reach(spans, at); ok && (!any || beyond(to, furthest)) {
				furthest, any = to, true
			}
		}
		switch {
		case !any:
			return false
		case furthest == "" || s.to != "" && furthest >= s.to:
			return true
		}
		at = furthest
	}
}

// hasRole reports whether the user has the role; a user's roles ascend.
func hasRole(u *authpb.User, name string) bool {
	_, ok := slices.BinarySearch(u.GetRoles(), name)
	return ok
}

// validPermission reports whether a permission is for one key, or for a range that can hold keys.
func validPermission(key, end []byte) bool {
	return len(key) > 0 && (len(end) == 0 || isOpen(end) || bytes.Compare(key, end) < 0)
}
