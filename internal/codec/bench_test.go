package codec

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

func put() *pb.PutRequest {
	return &pb.PutRequest{Key: make([]byte, 20), Value: make([]byte, 256), Lease: 1 << 60}
}

// txnOf is a compare-and-swap.
func txnOf(p *pb.PutRequest) *pb.TxnRequest {
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{Target: pb.Compare_MOD, Key: p.Key, TargetUnion: &pb.Compare_ModRevision{ModRevision: 1000}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: p}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: p.Key}}}},
	}
}

func header() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1 << 63, MemberId: 1<<63 + 1, Revision: 1000, RaftTerm: 3}
}

func pairs(n int) []*mvccpb.KeyValue {
	list := make([]*mvccpb.KeyValue, n)
	for i := range list {
		list[i] = &mvccpb.KeyValue{Key: make([]byte, 20), Value: make([]byte, 256), CreateRevision: 900, ModRevision: 1000, Version: 2}
	}
	return list
}

func events(n int) (list []*mvccpb.Event) {
	for _, kv := range pairs(n) {
		list = append(list, &mvccpb.Event{Kv: kv})
	}
	return list
}

// sample is a message as it is often sent, and what its decoding may allocate.
type sample struct {
	name    string
	message proto.Message
	owned   float64 // allocations of UnmarshalOwned
	copied  float64 // of Unmarshal
}

// samples tells what is allocated besides the message itself.
var samples = []sample{
	{"put", put(), 2, 2},
	{"get", &pb.RangeRequest{Key: make([]byte, 20)}, 0, 1},
	// Lists of compares and of operations, what is compared with, two operations, the put's key and value.
	{"txn", txnOf(put()), 8, 9},
	{"put response", &pb.PutResponse{Header: header()}, 1, 1},
	// The header, the pair with its list, and its bytes.
	{"get response", &pb.RangeResponse{Header: header(), Kvs: pairs(1), Count: 1}, 3, 3},
	{"range response", &pb.RangeResponse{Header: header(), Kvs: pairs(100), Count: 100}, 103, 103},
	{"txn response", &pb.TxnResponse{Header: header(), Succeeded: true, Responses: []*pb.ResponseOp{
		{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 1000}}}}}}, 5, 5},
	{"events", &pb.WatchResponse{Header: header(), WatchId: 7, Events: events(10)}, 13, 13},
	{"keep alive", &pb.LeaseKeepAliveResponse{Header: header(), ID: 1 << 60, TTL: 10}, 1, 1},
}

func BenchmarkAppend(b *testing.B) {
	for _, s := range samples {
		buf := make([]byte, 0, Size(s.message))
		b.Run(s.name+"/hand", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Append(buf, s.message); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(s.name+"/protobuf", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = proto.Size(s.message)
				if _, err := (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(buf, s.message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	for _, s := range samples {
		encoded, err := proto.Marshal(s.message)
		require.NoError(b, err)
		for name, unmarshal := range map[string]func([]byte, proto.Message) error{
			"hand": Unmarshal, "protobuf": proto.Unmarshal,
			"owned": func(b []byte, m proto.Message) error { _, err := UnmarshalOwned(b, m); return err },
		} {
			b.Run(s.name+"/"+name, func(b *testing.B) {
				m := fresh(s.message)
				b.ReportAllocs()
				for b.Loop() {
					if err := unmarshal(encoded, m); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
