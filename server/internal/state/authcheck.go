package state

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Caller is who asks for a command, and at which revision of users and roles he was found to be that. Both are zero while
// users are not needed, and for what the members themselves propose.
type Caller struct {
	User         string
	AuthRevision uint64
}

// Right is what a Need is about.
type Right uint8

// The rights.
const (
	RightRead          Right = iota + 1 // to read the keys of a range
	RightWrite                          // to write them
	RightReadLeased                     // to read the keys of a lease
	RightReadAllLeased                  // to read those of all leases
	RightWriteLeased                    // to write the keys of a lease
	RightUser                           // to be a user
	RightRoot                           // to have the role root
	RightSelf                           // to be the user Name, or root
	RightRole                           // to have the role Name, or root
)

// Need is something that a request asks for.
type Need struct {
	Right    Right
	Key, End []byte // as in a range request
	Lease    int64
	Name     string
}

// Leases tells the keys that leases hold.
type Leases interface {
	// ScanLease calls fn for the keys of a lease, until it returns false.
	ScanLease(id int64, fn func(key string) bool)
	// ScanLeases calls fn for the keys of all leases, in no order, until it returns false.
	ScanLeases(fn func(key string) bool)
}

// Check tells whether the caller may do what n says: nil, or ErrUserEmpty, ErrAuthOldRevision, ErrUserNotFound or
// ErrPermissionDenied, in etcd's order.
func (a *Auth) Check(c Caller, n Need, leases Leases) error {
	if !a.enabled {
		return nil
	}
	switch n.Right {
	case RightRead, RightWrite:
		return a.checkRange(c, spanOf(n.Key, n.End), n.Right == RightWrite)
	case RightReadLeased, RightReadAllLeased, RightWriteLeased:
		return a.checkLeased(c, n, leases)
	case RightUser:
		return a.checkUser(c)
	case RightRoot:
		return a.checkRoot(c)
	case RightSelf:
		if err := a.checkRoot(c); err != nil && n.Name != c.User {
			return err
		}
		return nil
	case RightRole:
		if err := a.checkRoot(c); err != nil && !hasRole(a.User(c.User), n.Name) {
			return err
		}
		return nil
	default:
		return ErrPermissionDenied
	}
}

func (a *Auth) checkRange(c Caller, s span, write bool) error {
	switch {
	case c.AuthRevision == 0:
		return ErrUserEmpty
	case c.AuthRevision < a.revision:
		return ErrAuthOldRevision
	}
	u := a.User(c.User)
	if u == nil || !hasRole(u, rootName) && !a.covers(u, s, write) {
		return ErrPermissionDenied
	}
	return nil
}

// checkLeased lets root pass whatever his revision, as etcd does.
func (a *Auth) checkLeased(c Caller, n Need, leases Leases) error {
	if a.checkRoot(c) == nil {
		return nil
	}
	var err error
	check := func(key string) bool {
		err = a.checkRange(c, span{from: key, to: key + "\x00"}, n.Right == RightWriteLeased)
		return err == nil
	}
	if n.Right == RightReadAllLeased {
		leases.ScanLeases(check)
	} else {
		leases.ScanLease(n.Lease, check)
	}
	return err
}

// checkUser refuses a user who was deleted since his token was made. etcd lets him pass.
func (a *Auth) checkUser(c Caller) error {
	switch {
	case c.User == "":
		return ErrUserEmpty
	case a.User(c.User) == nil:
		return ErrPermissionDenied
	default:
		return nil
	}
}

func (a *Auth) checkRoot(c Caller) error {
	if c.User == "" {
		return ErrUserEmpty
	}
	u := a.User(c.User)
	switch {
	case u == nil:
		return ErrUserNotFound
	case !hasRole(u, rootName):
		return ErrPermissionDenied
	default:
		return nil
	}
}

// VisitNeeds calls visit for what a request to read or write keys needs, nested transactions and both of their branches
// included, until it returns an error, and returns that. Of other requests it knows no needs.
func VisitNeeds(request any, visit func(Need) error) error {
	switch r := request.(type) {
	case *pb.RangeRequest:
		return visit(Need{Right: RightRead, Key: r.GetKey(), End: r.GetRangeEnd()})
	case *pb.PutRequest:
		return visitPut(r, visit)
	case *pb.DeleteRangeRequest:
		return visitDelete(r, visit)
	case *pb.TxnRequest:
		return visitTxn(r, visit)
	case *pb.LeaseRevokeRequest:
		return visit(Need{Right: RightWriteLeased, Lease: r.GetID()})
	default:
		return nil
	}
}

func visitTxn(r *pb.TxnRequest, visit func(Need) error) error {
	for _, c := range r.GetCompare() {
		if err := visit(Need{Right: RightRead, Key: c.GetKey(), End: c.GetRangeEnd()}); err != nil {
			return err
		}
	}
	for _, branch := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			if err := visitOp(op, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func visitOp(op *pb.RequestOp, visit func(Need) error) error {
	switch o := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return VisitNeeds(o.RequestRange, visit)
	case *pb.RequestOp_RequestPut:
		return visitPut(o.RequestPut, visit)
	case *pb.RequestOp_RequestDeleteRange:
		return visitDelete(o.RequestDeleteRange, visit)
	case *pb.RequestOp_RequestTxn:
		return visitTxn(o.RequestTxn, visit)
	default:
		return nil // does nothing
	}
}

// visitPut: who attaches a key to a lease must be able to write all that the lease has, or he could have its end delete
// what he can not.
func visitPut(r *pb.PutRequest, visit func(Need) error) error {
	if err := visit(Need{Right: RightWrite, Key: r.GetKey()}); err != nil {
		return err
	}
	if id := r.GetLease(); id != 0 {
		if err := visit(Need{Right: RightWriteLeased, Lease: id}); err != nil {
			return err
		}
	}
	if r.GetPrevKv() {
		return visit(Need{Right: RightRead, Key: r.GetKey()})
	}
	return nil
}

func visitDelete(r *pb.DeleteRangeRequest, visit func(Need) error) error {
	if err := visit(Need{Right: RightWrite, Key: r.GetKey(), End: r.GetRangeEnd()}); err != nil {
		return err
	}
	if r.GetPrevKv() {
		return visit(Need{Right: RightRead, Key: r.GetKey(), End: r.GetRangeEnd()})
	}
	return nil
}

// permit decides on a command as of the state that it meets, so that all members decide alike.
func (m *Machine) permit(c *Command) error {
	a := m.auth.state
	if !a.enabled {
		return nil
	}
	if c.Kind.forRoot() {
		return a.checkRoot(c.Caller)
	}
	return VisitNeeds(c.Request, func(n Need) error { return a.Check(c.Caller, n, m) })
}

// ScanLease implements Leases.
func (m *Machine) ScanLease(id int64, fn func(key string) bool) {
	if g := m.leases[id]; g != nil {
		g.scan(fn)
	}
}

// ScanLeases implements Leases.
func (m *Machine) ScanLeases(fn func(key string) bool) {
	for _, g := range m.leases {
		more := true
		g.scan(func(key string) bool {
			more = fn(key)
			return more
		})
		if !more {
			return
		}
	}
}
