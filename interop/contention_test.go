package interop_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/api/v3electionpb"
	"github.com/latchkey-go/latchkey/api/v3lockpb"
)

// TestContentionDifferential puts the same calls of the lock and the election
// service to etcd and to Latchkey. What must differ is tested on our side alone:
// a contender whose lease ends while it waits.
func TestContentionDifferential(t *testing.T) {
	reference, subject := startBoth(t, 1)
	sides := []*contentionSide{newContentionSide(t, reference), newContentionSide(t, subject)}
	key := &v3electionpb.LeaderKey{Name: []byte("e"), Key: []byte("e/1001"), Rev: 9, Lease: 0x1001}
	for i, request := range []proto.Message{
		&pb.LeaseGrantRequest{ID: 0x1001, TTL: 600},
		&pb.LeaseGrantRequest{ID: 0x1002, TTL: 600},
		&v3lockpb.LockRequest{Name: []byte("l"), Lease: 0x1001},
		&v3lockpb.LockRequest{Name: []byte("l"), Lease: 0x1001}, // once more
		&pb.RangeRequest{Key: []byte("l/"), RangeEnd: []byte("l0")},
		&v3lockpb.LockRequest{Name: []byte("l"), Lease: 0x999}, // no such lease
		&v3lockpb.LockRequest{Name: []byte("l2"), Lease: -1},
		&v3lockpb.LockRequest{Name: nil, Lease: 0x1001},
		&v3lockpb.LockRequest{Name: []byte("l\x00\xff"), Lease: 0x1002},
		&v3lockpb.UnlockRequest{Key: []byte("l/1001")},
		&v3lockpb.UnlockRequest{Key: []byte("l/1001")},
		&v3lockpb.UnlockRequest{},
		&v3electionpb.LeaderRequest{Name: []byte("e")},
		&v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 0x1001, Value: []byte("a")},
		&v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 0x1001, Value: []byte("b")}, // with another value
		&v3electionpb.LeaderRequest{Name: []byte("e")},
		&v3electionpb.LeaderRequest{},
		&v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 0x999},
		&v3electionpb.ProclaimRequest{Leader: key, Value: []byte("not my revision")},
		&v3electionpb.ProclaimRequest{Leader: &v3electionpb.LeaderKey{Rev: 9}},
		&v3electionpb.ProclaimRequest{},
		&v3electionpb.ResignRequest{},
		&v3electionpb.ResignRequest{Leader: key},
		&v3electionpb.ResignRequest{Leader: &v3electionpb.LeaderKey{Rev: 9}},
	} {
		var got [2]answer
		for j, s := range sides {
			got[j] = newAnswer(s.do(testContext(t), request))
		}
		require.Empty(t, sameAnswer(request, got[0], got[1]), "request %d", i)
	}
	var seen [2]string
	for i, s := range sides {
		seen[i] = s.handOver(t)
		seen[i] += s.refusals(t)
	}
	require.Equal(t, seen[0], seen[1])
	requireCompared(t, reference.called)
	t.Log(seen[1])
}

// refusals tells what callers hear who show no token, a wrong one, or one of a
// user without rights.
func (s *contentionSide) refusals(t *testing.T) string {
	ctx, auth := testContext(t), pb.NewAuthClient(s.conn)
	for _, name := range []string{"root", "nobody"} {
		_, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: name, Password: name})
		require.NoError(t, err)
	}
	_, err := auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "root"})
	require.NoError(t, err)
	_, err = auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	require.NoError(t, err)
	_, err = auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
	require.NoError(t, err)
	login, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "nobody", Password: "nobody"})
	require.NoError(t, err)
	var said string
	for _, token := range []string{"", "wrong", login.Token} {
		as := ctx
		if token != "" {
			as = metadata.AppendToOutgoingContext(ctx, "token", token)
		}
		leader := &v3electionpb.LeaderKey{Name: []byte("r"), Key: []byte("r/1001"), Rev: 1, Lease: 0x1001}
		for _, request := range []proto.Message{
			&v3lockpb.LockRequest{Name: []byte("r"), Lease: 0x1001},
			&v3lockpb.UnlockRequest{Key: []byte("r/1001")},
			&v3electionpb.CampaignRequest{Name: []byte("r"), Lease: 0x1001},
			&v3electionpb.LeaderRequest{Name: []byte("r")},
			&v3electionpb.ProclaimRequest{Leader: leader},
			&v3electionpb.ResignRequest{Leader: leader},
		} {
			said += fmt.Sprintf("%T with token %t: %v\n", request, token != "", newAnswer(s.do(as, request)))
		}
	}
	return said
}

type contentionSide struct {
	*side
	locks     v3lockpb.LockClient
	elections v3electionpb.ElectionClient
}

func newContentionSide(t *testing.T, s *side) *contentionSide {
	t.Helper()
	return &contentionSide{s, v3lockpb.NewLockClient(s.conn), v3electionpb.NewElectionClient(s.conn)}
}

func (s *contentionSide) do(ctx context.Context, request proto.Message) (proto.Message, error) {
	switch r := request.(type) {
	case *pb.LeaseGrantRequest:
		return s.lease.LeaseGrant(ctx, r)
	case *pb.RangeRequest:
		return s.kv.Range(ctx, r)
	case *v3lockpb.LockRequest:
		return s.locks.Lock(ctx, r)
	case *v3lockpb.UnlockRequest:
		return s.locks.Unlock(ctx, r)
	case *v3electionpb.CampaignRequest:
		return s.elections.Campaign(ctx, r)
	case *v3electionpb.ProclaimRequest:
		return s.elections.Proclaim(ctx, r)
	case *v3electionpb.LeaderRequest:
		return s.elections.Leader(ctx, r)
	case *v3electionpb.ResignRequest:
		return s.elections.Resign(ctx, r)
	default:
		return nil, fmt.Errorf("no call for %T", request)
	}
}

// handOver lets a second candidate wait for the first, and tells what both and
// an observer see, with all revisions.
func (s *contentionSide) handOver(t *testing.T) string {
	ctx := testContext(t)
	var said string
	say := func(what string, h *pb.ResponseHeader, rest any) {
		said += fmt.Sprintf("%s at %d: %v\n", what, h.GetRevision(), rest)
	}
	observed, err := s.elections.Observe(ctx, &v3electionpb.LeaderRequest{Name: []byte("h")})
	require.NoError(t, err)
	first, err := s.elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte("h"), Lease: 0x1001, Value: []byte("one")})
	require.NoError(t, err)
	say("elected", first.Header, string(first.Leader.Key))
	see := func() {
		got, err := observed.Recv()
		require.NoError(t, err)
		say("observed", got.Header, fmt.Sprint(string(got.Kv.Key), string(got.Kv.Value), got.Kv.CreateRevision, got.Kv.ModRevision, got.Kv.Version, got.Kv.Lease))
	}
	see()

	type result struct {
		response *v3electionpb.CampaignResponse
		err      error
	}
	second := make(chan result, 1)
	go func() {
		response, err := s.elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte("h"), Lease: 0x1002, Value: []byte("two")})
		second <- result{response, err}
	}()
	for waiting := false; !waiting; {
		got, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("h/1002"), CountOnly: true})
		require.NoError(t, err)
		waiting = got.Count == 1
	}
	proclaimed, err := s.elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: first.Leader, Value: []byte("ONE")})
	require.NoError(t, err)
	say("proclaimed", proclaimed.Header, "")
	see()
	resigned, err := s.elections.Resign(ctx, &v3electionpb.ResignRequest{Leader: first.Leader})
	require.NoError(t, err)
	say("resigned", resigned.Header, "")
	elected := <-second
	require.NoError(t, elected.err)
	say("elected", elected.response.Header, string(elected.response.Leader.Key))
	see()
	return said
}
