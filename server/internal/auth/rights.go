package auth

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// Row says what a method needs of its caller, while users are needed.
type Row struct {
	// Open has the method served to everybody, whatever token he shows.
	Open bool
	// needs calls visit for what a request needs, as the client sent it, until visit returns an error.
	needs func(r proto.Message, visit func(state.Need) error) error
}

// Visit calls visit for what the request needs, until visit returns an error, and returns that. A request of a type that
// the method does not have needs root.
func (r Row) Visit(m proto.Message, visit func(state.Need) error) error {
	if r.Open || r.needs == nil {
		return nil
	}
	return r.needs(m, visit)
}

// RowOf returns the row of a method, by its full name. A method without a row is not to be served.
func RowOf(method string) (Row, bool) {
	row, ok := rights[method]
	return row, ok
}

// CheckMethods returns an error that names a method without a row.
func CheckMethods(methods []string) error {
	for _, m := range methods {
		if _, ok := rights[m]; !ok {
			return fmt.Errorf("method %s has no row in the table of rights", m)
		}
	}
	return nil
}

// The rows that many methods share.
var (
	open   = Row{Open: true}
	known  = Row{} // anybody, but not with a token that is not valid
	user   = fixed(state.Need{Right: state.RightUser})
	root   = fixed(state.Need{Right: state.RightRoot})
	keys   = Row{needs: func(r proto.Message, visit func(state.Need) error) error { return state.VisitNeeds(r, visit) }}
	leases = fixed(state.Need{Right: state.RightUser}, state.Need{Right: state.RightReadAllLeased})
)

// rights is the table: who may do what is decided by it and by nothing else.
var rights = map[string]Row{
	pb.KV_Range_FullMethodName:       keys,
	pb.KV_RangeStream_FullMethodName: keys,
	pb.KV_Put_FullMethodName:         keys,
	pb.KV_DeleteRange_FullMethodName: keys,
	pb.KV_Txn_FullMethodName:         keys,
	pb.KV_Compact_FullMethodName:     root,

	pb.Watch_Watch_FullMethodName: of(watch),

	pb.Lease_LeaseGrant_FullMethodName:      user,
	pb.Lease_LeaseRevoke_FullMethodName:     of(leaseRevoke),
	pb.Lease_LeaseKeepAlive_FullMethodName:  of(leaseKeepAlive),
	pb.Lease_LeaseTimeToLive_FullMethodName: of(leaseTimeToLive),
	pb.Lease_LeaseLeases_FullMethodName:     leases,

	pb.Cluster_MemberAdd_FullMethodName:     root,
	pb.Cluster_MemberRemove_FullMethodName:  root,
	pb.Cluster_MemberUpdate_FullMethodName:  root,
	pb.Cluster_MemberPromote_FullMethodName: root,
	pb.Cluster_MemberList_FullMethodName:    user,

	pb.Maintenance_Alarm_FullMethodName:      of(alarm),
	pb.Maintenance_Status_FullMethodName:     user,
	pb.Maintenance_Defragment_FullMethodName: root,
	pb.Maintenance_Hash_FullMethodName:       root,
	pb.Maintenance_HashKV_FullMethodName:     root,
	pb.Maintenance_Snapshot_FullMethodName:   root,
	pb.Maintenance_MoveLeader_FullMethodName: root,
	pb.Maintenance_Downgrade_FullMethodName:  root,

	pb.Auth_AuthEnable_FullMethodName:           root,
	pb.Auth_AuthDisable_FullMethodName:          root,
	pb.Auth_AuthStatus_FullMethodName:           known,
	pb.Auth_Authenticate_FullMethodName:         open,
	pb.Auth_UserAdd_FullMethodName:              root,
	pb.Auth_UserGet_FullMethodName:              of(userGet),
	pb.Auth_UserList_FullMethodName:             root,
	pb.Auth_UserDelete_FullMethodName:           root,
	pb.Auth_UserChangePassword_FullMethodName:   root,
	pb.Auth_UserGrantRole_FullMethodName:        root,
	pb.Auth_UserRevokeRole_FullMethodName:       root,
	pb.Auth_RoleAdd_FullMethodName:              root,
	pb.Auth_RoleGet_FullMethodName:              of(roleGet),
	pb.Auth_RoleList_FullMethodName:             root,
	pb.Auth_RoleDelete_FullMethodName:           root,
	pb.Auth_RoleGrantPermission_FullMethodName:  root,
	pb.Auth_RoleRevokePermission_FullMethodName: root,

	healthpb.Health_Check_FullMethodName: open,
	healthpb.Health_List_FullMethodName:  open,
	healthpb.Health_Watch_FullMethodName: open,

	// Each request on it is looked at as a call of its own method.
	"/latchkey.v1.Pipe/Carry": open,

	// What these do they do as the same user, so it is checked again, key by key. Their keys are below the name.
	"/v3lockpb.Lock/Lock":             below("name", state.RightRead, state.RightWrite),
	"/v3lockpb.Lock/Unlock":           named("key", state.RightWrite),
	"/v3electionpb.Election/Campaign": below("name", state.RightRead, state.RightWrite),
	"/v3electionpb.Election/Proclaim": named("leader.key", state.RightRead, state.RightWrite),
	"/v3electionpb.Election/Leader":   below("name", state.RightRead),
	"/v3electionpb.Election/Observe":  below("name", state.RightRead),
	"/v3electionpb.Election/Resign":   named("leader.key", state.RightRead, state.RightWrite),
}

// fixed is a row whose needs do not depend on the request.
func fixed(needs ...state.Need) Row {
	return Row{needs: func(_ proto.Message, visit func(state.Need) error) error {
		return visitAll(needs, visit)
	}}
}

func visitAll(needs []state.Need, visit func(state.Need) error) error {
	for _, n := range needs {
		if err := visit(n); err != nil {
			return err
		}
	}
	return nil
}

// of is a row for requests of type M.
func of[M proto.Message](needs func(M) []state.Need) Row {
	return Row{needs: func(r proto.Message, visit func(state.Need) error) error {
		m, ok := r.(M)
		if !ok {
			return visit(state.Need{Right: state.RightRoot})
		}
		return visitAll(needs(m), visit)
	}}
}

// watch: only a request to create a watcher needs anything. No key is the least key, as etcd has it.
func watch(r *pb.WatchRequest) []state.Need {
	c := r.GetCreateRequest()
	if c == nil {
		return nil
	}
	key := c.GetKey()
	if len(key) == 0 {
		key = []byte{0}
	}
	return []state.Need{{Right: state.RightRead, Key: key, End: c.GetRangeEnd()}}
}

func leaseRevoke(r *pb.LeaseRevokeRequest) []state.Need {
	return []state.Need{{Right: state.RightUser}, {Right: state.RightWriteLeased, Lease: r.GetID()}}
}

func leaseKeepAlive(r *pb.LeaseKeepAliveRequest) []state.Need {
	return []state.Need{{Right: state.RightUser}, {Right: state.RightWriteLeased, Lease: r.GetID()}}
}

func leaseTimeToLive(r *pb.LeaseTimeToLiveRequest) []state.Need {
	needs := []state.Need{{Right: state.RightUser}}
	if r.GetKeys() {
		needs = append(needs, state.Need{Right: state.RightReadLeased, Lease: r.GetID()})
	}
	return needs
}

func alarm(r *pb.AlarmRequest) []state.Need {
	if r.GetAction() == pb.AlarmRequest_GET {
		return []state.Need{{Right: state.RightUser}}
	}
	return []state.Need{{Right: state.RightRoot}}
}

func userGet(r *pb.AuthUserGetRequest) []state.Need {
	return []state.Need{{Right: state.RightSelf, Name: r.GetName()}}
}

func roleGet(r *pb.AuthRoleGetRequest) []state.Need {
	return []state.Need{{Right: state.RightRole, Name: r.GetRole()}}
}

// below is a row of a request about the keys below a name.
func below(field string, rights ...state.Right) Row {
	return byField(field, rights, func(name []byte) (key, end []byte) {
		key = append(append(key, name...), '/')
		end = append(append(end, name...), '/'+1)
		return key, end
	})
}

// named is a row of a request about one key.
func named(field string, rights ...state.Right) Row {
	return byField(field, rights, func(name []byte) (key, end []byte) { return name, nil })
}

// byField looks up a field of bytes by its path. The messages' Go types belong to whoever serves the method.
func byField(path string, rights []state.Right, keysOf func([]byte) (key, end []byte)) Row {
	return Row{needs: func(r proto.Message, visit func(state.Need) error) error {
		value, ok := bytesAt(r.ProtoReflect(), path)
		if !ok {
			return visit(state.Need{Right: state.RightRoot})
		}
		if err := visit(state.Need{Right: state.RightUser}); err != nil {
			return err
		}
		key, end := keysOf(value)
		for _, right := range rights {
			if err := visit(state.Need{Right: right, Key: key, End: end}); err != nil {
				return err
			}
		}
		return nil
	}}
}

func bytesAt(m protoreflect.Message, path string) ([]byte, bool) {
	name, rest, deeper := cutPath(path)
	f := m.Descriptor().Fields().ByName(name)
	switch {
	case f == nil || f.IsList():
		return nil, false
	case deeper && f.Kind() == protoreflect.MessageKind:
		return bytesAt(m.Get(f).Message(), rest)
	case !deeper && f.Kind() == protoreflect.BytesKind:
		return m.Get(f).Bytes(), true
	default:
		return nil, false
	}
}

func cutPath(path string) (name protoreflect.Name, rest string, deeper bool) {
	first, rest, deeper := strings.Cut(path, ".")
	return protoreflect.Name(first), rest, deeper
}
