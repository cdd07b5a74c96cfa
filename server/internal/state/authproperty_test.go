package state

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// pair is a store with users, and its shadow: the store as the user u may know it. The shadow has the same revisions and
// leases, but none of the keys that u may neither read nor write, and other values where u may write only. Nobody needs
// to be a user there. So whatever u is answered must be what the shadow answers.
type pair struct {
	*world
	store, shadow *Machine
	permissions   []*authpb.Permission
	entry         uint64
}

// may tells what u may do with a key, from nothing but the list of permissions.
func (p *pair) may(key string, right authpb.Permission_Type) bool {
	for _, q := range p.permissions {
		in := string(q.Key) == key
		if len(q.RangeEnd) > 0 {
			in = key >= string(q.Key) && (bytes.Equal(q.RangeEnd, []byte{0}) || key < string(q.RangeEnd))
		}
		if in && (q.PermType == right || q.PermType == authpb.Permission_READWRITE) {
			return true
		}
	}
	return false
}

func (p *pair) both(c, shadow Command) (Result, Result) {
	p.entry++
	return p.store.Apply(p.entry, 1, []Command{c})[0], p.shadow.Apply(p.entry, 1, []Command{shadow})[0]
}

// asRoot fills the store, and the shadow with what u may know of it.
func (p *pair) asRoot() {
	key := pick(p.world, "key", someKeys[:len(someKeys)-1]...)
	value := []byte(pick(p.world, "value", "x", "y", "zz"))
	lease := pick(p.world, "lease", 0, 0, 1, 2, int64(3))
	if _, ok := p.store.Lease(lease); !ok { // u has revoked it
		lease = 0
	}
	put := &pb.PutRequest{Key: []byte(key), Value: value, Lease: lease}
	shadow := Command{Kind: KindPut, Request: proto.Clone(put)}
	switch {
	case p.may(key, authpb.Permission_READ):
	case p.may(key, authpb.Permission_WRITE):
		shadow.Request.(*pb.PutRequest).Value = []byte("hidden")
	default: // a revision in which nothing is left
		shadow = Command{Kind: KindTxn, Request: &pb.TxnRequest{Success: ops(opPut("\xfe", ""), opDelete("\xfe", ""))}}
	}
	root := Caller{User: "root", AuthRevision: p.store.Auth().Revision()}
	a, b := p.both(Command{Kind: KindPut, Request: put, Caller: root}, shadow)
	require.NoError(p, a.Err)
	require.NoError(p, b.Err)
}

func (p *pair) setUp() {
	administer := func(kind Kind, request any) {
		r, _ := p.both(Command{Kind: kind, Request: request}, Command{Kind: KindLeaseRevoke, Request: &pb.LeaseRevokeRequest{}})
		require.NoError(p, r.Err)
	}
	for id := range int64(3) {
		grant := &pb.LeaseGrantRequest{ID: id + 1, TTL: 60}
		p.both(Command{Kind: KindLeaseGrant, Request: grant}, Command{Kind: KindLeaseGrant, Request: proto.Clone(grant)})
	}
	administer(KindUserAdd, &pb.AuthUserAddRequest{Name: "root"})
	administer(KindUserGrantRole, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	administer(KindUserAdd, &pb.AuthUserAddRequest{Name: "u"})
	for _, role := range []string{"r", "s", "not his"} {
		administer(KindRoleAdd, &pb.AuthRoleAddRequest{Name: role})
		for range p.pick(4, "permissions") {
			q := &authpb.Permission{PermType: authpb.Permission_Type(p.pick(3, "type")), Key: p.key(), RangeEnd: p.end()}
			if p.pick(2, "wide") == 1 { // or little is ever permitted
				q.Key, q.RangeEnd = []byte(pick(p.world, "from", "\x00", "a")), []byte(pick(p.world, "to", "c", "b\x00"))
			}
			if validPermission(q.Key, q.RangeEnd) {
				administer(KindRoleGrantPermission, &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: proto.CloneOf(q)})
			}
		}
		if role == "not his" {
			continue
		}
		p.permissions = append(p.permissions, p.store.Auth().Role(role).GetKeyPermission()...)
		administer(KindUserGrantRole, &pb.AuthUserGrantRoleRequest{User: "u", Role: role})
	}
	administer(KindAuthEnable, &pb.AuthEnableRequest{})
}

func (p *pair) request() Command {
	p.model.rev = p.store.Revision()
	switch p.pick(5, "request") {
	case 0:
		return Command{Kind: KindPut, Request: p.putRequest()}
	case 1:
		return Command{Kind: KindDeleteRange, Request: p.deleteRequest()}
	case 2:
		return Command{Kind: KindLeaseRevoke, Request: &pb.LeaseRevokeRequest{ID: p.lease()}}
	default:
		return Command{Kind: KindTxn, Request: p.txnRequest(p.model, 2)}
	}
}

// locked returns the versions that u may not write.
func (p *pair) locked() map[string]*Version {
	versions := make(map[string]*Version)
	p.store.live.Scan(func(key string, v *Version) bool {
		if !p.may(key, authpb.Permission_WRITE) {
			versions[key] = v
		}
		return true
	})
	return versions
}

func (p *pair) asUser(met tally) {
	c := p.request()
	shadow := Command{Kind: c.Kind, Request: proto.Clone(c.Request.(proto.Message))}
	c.Caller = Caller{User: "u", AuthRevision: p.store.Auth().Revision()}
	locked := p.locked()
	p.entry++
	a := p.store.Apply(p.entry, 1, []Command{c})[0]
	require.Equal(p, locked, p.locked(), "u has written what he may not")
	if errors.Is(a.Err, ErrPermissionDenied) {
		met["denied"]++
		return
	}
	b := p.shadow.Apply(p.entry, 1, []Command{shadow})[0]
	require.Equal(p, b.Err, a.Err)
	require.True(p, a.Err != nil || proto.Equal(b.Response, a.Response), "%v\nstore:  %v\nshadow: %v", c.Request, a.Response, b.Response)
	met["done"]++
	if t, ok := a.Response.(*pb.TxnResponse); ok && len(t.Responses) > 0 {
		met["transaction"]++
	}
}

func (p *pair) read(met tally) {
	p.model.rev = p.store.Revision()
	q := p.rangeRequest(p.model)
	view := p.store.View()
	caller := Caller{User: "u", AuthRevision: view.Auth().Revision()}
	err := VisitNeeds(q, func(n Need) error { return view.Auth().Check(caller, n, p.store) })
	if err != nil {
		return
	}
	a, errA := view.Range(q)
	b, errB := p.shadow.View().Range(q)
	require.Equal(p, errB, errA)
	require.True(p, proto.Equal(b, a), "%v\nstore:  %v\nshadow: %v", q, a, b)
	if len(a.GetKvs()) > 0 {
		met["read"]++
	}
}

// A user learns nothing of keys that he may neither read nor write, nor of values that he may not read, and changes
// nothing that he may not write, whatever he asks.
func TestUsersAreKeptApart(t *testing.T) {
	met := make(tally)
	wanted := []string{"denied", "done", "transaction", "read"}
	missing := func(what string) bool { return met[what] == 0 }
	apart := func(t *rapid.T) {
		choose := func(n int, label string) int { return rapid.IntRange(0, n-1).Draw(t, label) }
		p := &pair{world: newWorld(t, choose, make(tally)), store: New(Config{}), shadow: New(Config{})}
		p.setUp()
		for range 12 {
			switch p.pick(3, "who") {
			case 0:
				p.asRoot()
			case 1:
				p.read(met)
			default:
				p.asUser(met)
			}
		}
		require.NoError(t, p.store.Check())
	}
	// Few checks, as in a short run, may meet not all.
	for tries := 0; tries == 0 || tries < 20 && slices.ContainsFunc(wanted, missing); tries++ {
		rapid.Check(t, apart)
	}
	for _, what := range wanted {
		require.NotZero(t, met[what], "%s: nothing was tested", what)
	}
	t.Log(met)
}
