package audit

import (
	"fmt"
	"strings"
	"unicode/utf8"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/auth"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

const (
	// keysMax is how many ranges of keys a line has; of those beyond it has the number.
	keysMax = 32
	// textBytesMax is how much of a key, a name or an address a line has.
	textBytesMax = 512
)

// reading are the methods that change nothing, whatever is asked. Snapshots are not among them: they take all data away.
var reading = map[string]bool{
	pb.KV_Range_FullMethodName: true, pb.KV_RangeStream_FullMethodName: true,
	pb.Watch_Watch_FullMethodName:           true,
	pb.Lease_LeaseKeepAlive_FullMethodName:  true,
	pb.Lease_LeaseTimeToLive_FullMethodName: true, pb.Lease_LeaseLeases_FullMethodName: true,
	pb.Cluster_MemberList_FullMethodName: true,
	pb.Maintenance_Status_FullMethodName: true, pb.Maintenance_Hash_FullMethodName: true, pb.Maintenance_HashKV_FullMethodName: true,
	pb.Auth_AuthStatus_FullMethodName: true, pb.Auth_UserGet_FullMethodName: true, pb.Auth_UserList_FullMethodName: true,
	pb.Auth_RoleGet_FullMethodName: true, pb.Auth_RoleList_FullMethodName: true,
	"/v3electionpb.Election/Leader": true, "/v3electionpb.Election/Observe": true,
	healthpb.Health_Check_FullMethodName: true, healthpb.Health_List_FullMethodName: true, healthpb.Health_Watch_FullMethodName: true,
}

// reads reports whether a request only reads.
func reads(method string, m proto.Message) bool {
	switch r := m.(type) {
	case *pb.TxnRequest:
		return state.IsReadOnly(r)
	case *pb.AlarmRequest:
		return r.Action == pb.AlarmRequest_GET
	default:
		return reading[method]
	}
}

// describe fills in what a request is about.
func (e *entry) describe(method string, m proto.Message) {
	e.About = about(m)
	if r, ok := m.(*pb.AuthRoleGrantPermissionRequest); ok && r.Perm != nil {
		e.addKeys("grant "+strings.ToLower(r.Perm.PermType.String()), r.Perm.Key, r.Perm.RangeEnd)
	}
	if r, ok := m.(*pb.AuthRoleRevokePermissionRequest); ok {
		e.addKeys("revoke", r.Key, r.RangeEnd)
	}
	row, _ := auth.RowOf(method)
	_ = row.Visit(m, func(n state.Need) error { // which fails only if this does
		switch n.Right {
		case state.RightRead:
			e.addKeys("read", n.Key, n.End)
		case state.RightWrite:
			e.addKeys("write", n.Key, n.End)
		}
		return nil
	})
}

func (e *entry) addKeys(right string, key, end []byte) {
	if len(e.Keys) == keysMax {
		e.MoreKeys++
		return
	}
	e.Keys = append(e.Keys, keys{Right: right, Key: text(string(key)), End: text(string(end))})
}

// about returns the fields that say whom and what a request concerns, "" if keys say all. It names the fields one by one:
// others may be secrets.
func about(m proto.Message) string {
	var parts []string
	add := func(name string, value any) { parts = append(parts, name+"="+text(fmt.Sprint(value))) }
	if r, ok := m.(interface{ GetName() string }); ok {
		add("name", r.GetName())
	}
	if r, ok := m.(interface{ GetUser() string }); ok {
		add("user", r.GetUser())
	}
	if r, ok := m.(interface{ GetRole() string }); ok {
		add("role", r.GetRole())
	}
	if r, ok := m.(interface{ GetPeerURLs() []string }); ok {
		add("peer-urls", strings.Join(r.GetPeerURLs(), ","))
	}
	switch r := m.(type) {
	case *pb.MemberRemoveRequest:
		add("member", fmt.Sprintf("%x", r.ID))
	case *pb.MemberUpdateRequest:
		add("member", fmt.Sprintf("%x", r.ID))
	case *pb.MemberPromoteRequest:
		add("member", fmt.Sprintf("%x", r.ID))
	case *pb.MoveLeaderRequest:
		add("member", fmt.Sprintf("%x", r.TargetID))
	case *pb.AlarmRequest:
		add("alarm", strings.ToLower(r.Action.String()+" "+r.Alarm.String()))
		add("member", fmt.Sprintf("%x", r.MemberID))
	case *pb.DowngradeRequest:
		add("downgrade", strings.ToLower(r.Action.String())+" "+r.Version)
	case *pb.CompactionRequest:
		add("revision", r.Revision)
	case *pb.LeaseGrantRequest:
		add("lease", fmt.Sprintf("%x", r.ID))
	case *pb.LeaseRevokeRequest:
		add("lease", fmt.Sprintf("%x", r.ID))
	case *pb.LeaseTimeToLiveRequest:
		add("lease", fmt.Sprintf("%x", r.ID))
	case *pb.LeaseKeepAliveRequest:
		add("lease", fmt.Sprintf("%x", r.ID))
	}
	return strings.Join(parts, " ")
}

// text is s as a line has it: what is no text is escaped as in Go, and what is too long is cut.
func text(s string) string {
	cut := s[:min(len(s), textBytesMax)]
	if !utf8.ValidString(cut) {
		quoted := fmt.Sprintf("%+q", cut)
		cut = quoted[1 : len(quoted)-1]
	}
	if len(s) > textBytesMax {
		cut += "..."
	}
	return cut
}
