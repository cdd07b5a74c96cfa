package interop_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	etcdMaxOps      = 128
	etcdMaxRequest  = 1536 << 10               // --max-request-bytes
	grpcMaxMessage  = etcdMaxRequest + 512<<10 // what etcd lets gRPC receive
	preparedKeys    = 5
	preparedLease   = 77
	preparedCompact = 4
	unknownLease    = 4711
	tooLongTTL      = 9_000_000_001
)

// badInput is one request that must be refused, or is odd enough to be.
type badInput struct {
	name string
	do   func(ctx context.Context, s *side) (proto.Message, error)
	// accepted marks odd input that etcd takes; it must be taken alike.
	accepted bool
	// codeOnly leaves the text out of the comparison.
	codeOnly bool
}

func badPut(name string, r *pb.PutRequest) badInput {
	return badInput{name: "put/" + name, do: func(ctx context.Context, s *side) (proto.Message, error) { return s.kv.Put(ctx, r) }}
}

func badRange(name string, r *pb.RangeRequest) badInput {
	return badInput{name: "range/" + name, do: func(ctx context.Context, s *side) (proto.Message, error) { return s.kv.Range(ctx, r) }}
}

func badStream(name string, r *pb.RangeRequest) badInput {
	return badInput{name: "stream/" + name, do: func(ctx context.Context, s *side) (proto.Message, error) {
		return collectRange(ctx, s.kv, r)
	}}
}

func badDelete(name string, r *pb.DeleteRangeRequest) badInput {
	return badInput{name: "delete/" + name, do: func(ctx context.Context, s *side) (proto.Message, error) {
		return s.kv.DeleteRange(ctx, r)
	}}
}

func badTxn(name string, r *pb.TxnRequest) badInput {
	return badInput{name: "txn/" + name, do: func(ctx context.Context, s *side) (proto.Message, error) { return s.kv.Txn(ctx, r) }}
}

func badCompact(name string, rev int64) badInput {
	return badInput{name: "compact/" + name, do: func(ctx context.Context, s *side) (proto.Message, error) {
		return s.kv.Compact(ctx, &pb.CompactionRequest{Revision: rev})
	}}
}

func badGrant(name string, r *pb.LeaseGrantRequest) badInput {
	return badInput{name: "grant/" + name, do: func(ctx context.Context, s *side) (proto.Message, error) {
		return s.lease.LeaseGrant(ctx, r)
	}}
}

func badRevoke(name string, id int64) badInput {
	return badInput{name: "revoke/" + name, do: func(ctx context.Context, s *side) (proto.Message, error) {
		return s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	}}
}

// badCall calls a method by name with a message that need not fit it.
func badCall(name, method string, m proto.Message) badInput {
	return badInput{name: "call/" + name, do: func(ctx context.Context, s *side) (proto.Message, error) {
		out := &emptypb.Empty{}
		return out, s.conn.Invoke(ctx, method, m, out)
	}}
}

func (b badInput) isAccepted() badInput { b.accepted = true; return b }

func opPut(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func opRange(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func opDelete(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}

func opTxn(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func ops(of ...*pb.RequestOp) []*pb.RequestOp { return of }

func put(key string) *pb.RequestOp {
	return opPut(&pb.PutRequest{Key: []byte(key), Value: []byte("v")})
}

func repeat[T any](n int, make func(int) T) []T {
	var out []T
	for i := range n {
		out = append(out, make(i))
	}
	return out
}

// TestBadInput asks both servers for what they must refuse. They must say the
// same, and nothing may have changed.
func TestBadInput(t *testing.T) {
	reference, subject := startBoth(t, 1)
	for _, s := range []*side{reference, subject} {
		prepareStore(t, s)
	}
	for _, in := range badInputs() {
		t.Run(in.name, func(t *testing.T) {
			ctx := testContext(t)
			var got [2]answer
			for i, s := range []*side{reference, subject} {
				before := dump(t, ctx, s)
				got[i] = newAnswer(in.do(ctx, s))
				after := dump(t, ctx, s)
				if in.accepted {
					require.NotNil(t, got[i].message, "%s: %v", s.cluster.Kind, got[i])
					continue
				}
				require.Nil(t, got[i].message, "%s takes it: %v", s.cluster.Kind, got[i])
				require.NotEmpty(t, got[i].text)
				require.Empty(t, before.differs(after), "%s has changed", s.cluster.Kind)
			}
			if in.codeOnly {
				got[0].text, got[1].text = "", ""
			}
			require.Empty(t, sameAnswer(&emptypb.Empty{}, got[0], got[1]))
			t.Log(got[0])
		})
	}
}

func prepareStore(t *testing.T, s *side) {
	ctx := testContext(t)
	_, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: preparedLease, TTL: longLease})
	require.NoError(t, err)
	for i := range preparedKeys {
		_, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte{'a' + byte(i)}, Value: []byte("v"), Lease: preparedLease})
		require.NoError(t, err)
	}
	_, err = s.kv.Compact(ctx, &pb.CompactionRequest{Revision: preparedCompact, Physical: true})
	require.NoError(t, err)
}

// contents is everything that a client can see of a store.
type contents struct {
	keys   *pb.RangeResponse
	leases *pb.LeaseLeasesResponse
}

func dump(t *testing.T, ctx context.Context, s *side) contents {
	t.Helper()
	var c contents
	var err error
	c.keys, err = s.kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	require.NoError(t, err)
	c.leases, err = s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	require.NoError(t, err)
	return c
}

func (c contents) differs(o contents) string {
	if diff := sameAnswer(&pb.RangeRequest{}, newAnswer(c.keys, nil), newAnswer(o.keys, nil)); diff != "" {
		return diff
	}
	return sameAnswer(&pb.LeaseLeasesRequest{}, newAnswer(c.leases, nil), newAnswer(o.leases, nil))
}

// What a client's program sees are errors by type: the official client must
// make the same ones of both servers' answers.
func TestBadInputThroughOfficialClient(t *testing.T) {
	reference, subject := startBoth(t, 1)
	var texts [2][]string
	for i, s := range []*side{reference, subject} {
		prepareStore(t, s)
		cli, err := s.cluster.Client()
		require.NoError(t, err)
		defer cli.Close()
		for _, err := range clientErrors(testContext(t), cli) {
			require.Error(t, err)
			texts[i] = append(texts[i], errorType(err))
		}
	}
	require.Equal(t, texts[0], texts[1])
}

// TestMalformedMessages sends bytes that are no message of the method.
func TestMalformedMessages(t *testing.T) {
	reference, subject := startBoth(t, 1)
	for _, method := range []string{"/etcdserverpb.KV/Put", "/etcdserverpb.KV/Txn", "/etcdserverpb.Lease/LeaseGrant"} {
		var got [2]codes.Code
		for i, s := range []*side{reference, subject} {
			err := s.conn.Invoke(testContext(t), method, []byte(strings.Repeat("\xff", 20)), new([]byte), grpc.ForceCodec(rawCodec{}))
			got[i] = status.Code(err)
			require.NotEqual(t, codes.OK, got[i], "%s on %s", method, s.cluster.Kind)
		}
		require.Equal(t, got[0], got[1], method)
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (rawCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
func (rawCodec) Name() string { return "proto" }
