package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// pipe is one pipe, with one request at a time.
type pipe struct {
	*testing.T
	stream latchkeyv1.Pipe_CarryClient
	id     uint64
}

func openPipe(t *testing.T, endpoint string) *pipe {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := latchkeyv1.NewPipeClient(conn).Carry(testContext(t))
	require.NoError(t, err)
	m, err := stream.Recv()
	require.NoError(t, err)
	require.Positive(t, m.GetRequestsMax())
	return &pipe{T: t, stream: stream}
}

// ask returns the status of a request that goes with the metadata of ctx.
func (p *pipe) ask(ctx context.Context, m proto.Message) error {
	p.Helper()
	p.id++
	methods := map[string]latchkeyv1.Method{
		"PutRequest": latchkeyv1.Method_METHOD_PUT, "RangeRequest": latchkeyv1.Method_METHOD_RANGE,
		"TxnRequest": latchkeyv1.Method_METHOD_TXN, "LeaseGrantRequest": latchkeyv1.Method_METHOD_LEASE_GRANT,
	}
	body, err := proto.Marshal(m)
	require.NoError(p, err)
	md, _ := metadata.FromOutgoingContext(ctx)
	first := func(key string) string {
		for _, v := range md[key] {
			return v
		}
		return ""
	}
	require.NoError(p, p.stream.Send(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{{
		Id: p.id, Method: methods[string(m.ProtoReflect().Descriptor().Name())], Body: body,
		Token: first("token"), RequireLeader: first("hasleader") != "",
	}}}))
	got, err := p.stream.Recv()
	require.NoError(p, err)
	require.Len(p, got.GetResponses(), 1)
	a := got.GetResponses()[0]
	require.Equal(p, p.id, a.GetId())
	return status.Error(codes.Code(a.GetCode()), a.GetMessage())
}

// same requires that the pipe answers as a call of its own, and returns that answer.
func (p *pipe) same(ctx context.Context, m api, r proto.Message) error {
	p.Helper()
	var err error
	switch r := r.(type) {
	case *pb.PutRequest:
		_, err = m.Put(ctx, r)
	case *pb.RangeRequest:
		_, err = m.Range(ctx, r)
	case *pb.TxnRequest:
		_, err = m.Txn(ctx, r)
	case *pb.LeaseGrantRequest:
		_, err = m.LeaseGrant(ctx, r)
	}
	got := p.ask(ctx, r)
	require.Equal(p, status.Convert(err).String(), status.Convert(got).String())
	return got
}

// TestPipeUsers: each request on a pipe is looked at as its own, whatever was allowed when the pipe was opened.
func TestPipeUsers(t *testing.T) {
	s := secure(t, servertest.One(t, servertest.WithConfig(cheap)))
	p, m := openPipe(t, s.cluster.Endpoints()[0]), s.members[0]
	wrong := metadata.AppendToOutgoingContext(s.ctx, "token", "wrong.1")
	for name, c := range map[string]struct {
		ctx  context.Context
		r    proto.Message
		code codes.Code
	}{
		"no token":             {s.ctx, put("a", "1"), codes.InvalidArgument},
		"no token, read":       {s.ctx, get("a"), codes.InvalidArgument},
		"wrong token":          {wrong, put("a", "1"), codes.Unauthenticated},
		"wrong token, read":    {wrong, get("a"), codes.Unauthenticated},
		"allowed":              {s.user, put("a", "1"), codes.OK},
		"allowed, read":        {s.user, get("c"), codes.OK},
		"only to be read":      {s.user, put("c", "1"), codes.PermissionDenied},
		"not at all":           {s.user, get("z"), codes.PermissionDenied},
		"a range":              {s.user, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("d")}, codes.PermissionDenied},
		"root":                 {s.root, put("z", "1"), codes.OK},
		"no key, no token":     {s.ctx, put("", ""), codes.InvalidArgument},
		"transaction, nothing": {s.ctx, &pb.TxnRequest{}, codes.OK},
		"transaction": {s.user, &pb.TxnRequest{Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestPut{RequestPut: put("z", "1")}},
		}}, codes.PermissionDenied},
	} {
		require.Equal(t, c.code, status.Code(p.same(c.ctx, m, c.r)), name)
	}
	s.revoke(s.root, "a", "b")
	require.Equal(t, codes.PermissionDenied, status.Code(p.same(s.user, m, put("a", "2"))))
	s.grant(s.root, authpb.Permission_READWRITE, "a", "b")
	require.NoError(t, p.same(s.user, m, put("a", "2")))
	_, err := s.auths[0].UserChangePassword(s.root, &pb.AuthUserChangePasswordRequest{Name: "u", Password: "another"})
	require.NoError(t, err)
	require.Equal(t, codes.Unauthenticated, status.Code(p.same(s.user, m, put("a", "3"))), "the token has ended")
	_, err = s.auths[0].AuthDisable(s.root, &pb.AuthDisableRequest{})
	require.NoError(t, err)
	require.NoError(t, p.same(s.ctx, m, put("a", "4")))
}

// TestPipeAnswers: what is refused is refused in the same words.
func TestPipeAnswers(t *testing.T) {
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { c.MaxRequestBytes = 100_000 }))
	m, p := dial(t, c.Endpoints()[0]), openPipe(t, c.Endpoints()[0])
	ctx := testContext(t)
	for name, q := range map[string]struct {
		r    proto.Message
		code codes.Code
	}{
		"no key":     {put("", ""), codes.InvalidArgument},
		"too large":  {put("k", string(make([]byte, 150_000))), codes.InvalidArgument},
		"much more":  {put("k", string(make([]byte, 500_000))), codes.InvalidArgument},
		"the future": {&pb.RangeRequest{Key: []byte("k"), Revision: 1 << 40}, codes.OutOfRange},
		"no lease":   {&pb.PutRequest{Key: []byte("k"), Lease: 5}, codes.NotFound},
		"long lease": {&pb.LeaseGrantRequest{TTL: 1 << 50}, codes.OutOfRange},
		"twice": {&pb.TxnRequest{Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestPut{RequestPut: put("z", "1")}}, {Request: &pb.RequestOp_RequestPut{RequestPut: put("z", "1")}},
		}}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			p.T = t
			require.Equal(t, q.code, status.Code(p.same(ctx, m, q.r)))
		})
	}
}

// TestPipeWithoutLeader: a request that needs one is refused, one that does not is not.
func TestPipeWithoutLeader(t *testing.T) {
	c := servertest.Three(t)
	m, p := dial(t, c.Endpoints()[0]), openPipe(t, c.Endpoints()[0])
	ctx := testContext(t)
	require.NoError(t, p.ask(ctx, put("k", "v")))
	c.Kill(1)
	c.Kill(2)
	leader := metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
	for _, err := m.Range(leader, get("k")); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no leader"); {
		require.NoError(t, ctx.Err())
		_, err = m.Range(leader, get("k"))
	}
	require.ErrorContains(t, p.same(leader, m, put("k", "v")), "etcdserver: no leader")
	require.ErrorContains(t, p.same(leader, m, get("k")), "etcdserver: no leader")
	require.NoError(t, p.same(ctx, m, &pb.RangeRequest{Key: []byte("k"), Serializable: true}))
}

// keepWriting writes keys, each once, until stop is closed, and tells what became of them.
func keepWriting(ctx context.Context, c *client.Client, worker int, stop <-chan struct{}, done *atomic.Int64) map[string]error {
	results := make(map[string]error)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return results
		default:
		}
		key := fmt.Sprintf("load/%d/%d", worker, n)
		_, err := c.Put(ctx, key, bytes.Repeat([]byte{'x'}, 100))
		if results[key] = err; err == nil {
			done.Add(1)
		}
	}
}

// underLoad runs what happens while 32 callers of one client write, between thousands of writes before it and after. It
// returns how many writes had an uncertain outcome; no write was lost or done twice.
func underLoad(t *testing.T, c *servertest.Cluster, happens func()) (uncertain int) {
	const workers, writes = 32, 1000
	ctx := testContext(t)
	cl := c.Client()
	var done atomic.Int64
	reach := func(n int64) {
		for done.Load() < n {
			require.NoError(t, ctx.Err())
			require.NoError(t, putWith(ctx, cl, "other", ""))
		}
	}
	stop := make(chan struct{})
	results := make([]map[string]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { results[i] = keepWriting(ctx, cl, i, stop, &done) })
	}
	func() {
		defer wg.Wait()
		defer close(stop)
		reach(writes)
		happens()
		now := done.Load()
		for done.Load() < now+writes && ctx.Err() == nil {
			_ = putWith(ctx, cl, "other", "")
		}
	}()
	require.NoError(t, ctx.Err())
	got, err := cl.Get(ctx, "load/", client.Prefix())
	require.NoError(t, err)
	versions := make(map[string]int64)
	for _, kv := range got.KVs {
		versions[kv.Key] = kv.Version
	}
	for _, r := range results {
		for key, err := range r {
			switch {
			case err == nil:
				require.EqualValues(t, 1, versions[key], key)
			case errors.Is(err, client.ErrUncertain):
				uncertain++
				require.LessOrEqual(t, versions[key], int64(1), key)
			default:
				require.Zero(t, versions[key], "%s: %v", key, err)
			}
		}
	}
	return uncertain
}

func TestPipeLeaderKilled(t *testing.T) {
	c := servertest.Three(t)
	n := underLoad(t, c, func() { c.Kill(c.Leader()) })
	t.Logf("%d writes are uncertain", n)
	require.NotEmpty(t, carried(t, c))
}

// TestPipeMemberStopped: a member that stops in order answers what it has taken.
func TestPipeMemberStopped(t *testing.T) {
	c := servertest.Three(t)
	follower := (c.Leader() + 1) % 3
	var took time.Duration
	n := underLoad(t, c, func() {
		begin := time.Now()
		c.Stop(follower)
		took = time.Since(begin)
	})
	c.Restart(follower)
	t.Logf("%d writes are uncertain; the stop took %v", n, took)
	if took < time.Second { // what takes longer is cut off: drainTimeout
		require.Zero(t, n)
	}
}

// carried returns what the members say of the messages that pipes brought them.
func carried(t *testing.T, c *servertest.Cluster) (lines []string) {
	for _, endpoint := range c.Endpoints() {
		resp, err := http.Get("http://" + endpoint + "/metrics")
		if err != nil {
			continue // it was killed
		}
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "grpc_server_msg_received_total") && strings.Contains(line, `"Carry"`) && !strings.HasSuffix(line, " 0\n") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// TestPipeOfOwnClient: a member's own client, and those of servertest, send their requests on pipes.
func TestPipeOfOwnClient(t *testing.T) {
	c := servertest.One(t)
	for _, cl := range []*client.Client{c.Member(0).Client(), c.Client()} {
		before := carried(t, c)
		for ctx := testContext(t); len(carried(t, c)) == 0 || fmt.Sprint(before) == fmt.Sprint(carried(t, c)); {
			require.NoError(t, putWith(ctx, cl, "k", "v")) // until the pipe stands
		}
	}
}
