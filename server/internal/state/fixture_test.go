package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// fixture is a machine for a table test; it checks the invariants after each command.
type fixture struct {
	*testing.T
	m     *Machine
	index uint64
}

func newFixture(t *testing.T) *fixture { return &fixture{T: t, m: New(Config{})} }

// apply applies the next entry.
func (f *fixture) apply(batch ...Command) []Result {
	f.Helper()
	f.index++
	results := f.m.Apply(f.index, 1, batch)
	require.Len(f, results, len(batch))
	require.NoError(f, f.m.Check())
	return results
}

func (f *fixture) try(kind Kind, request any) Result {
	f.Helper()
	return f.apply(Command{Kind: kind, Request: request})[0]
}

// do applies a command that has to succeed.
func do[M any](f *fixture, kind Kind, request any) M {
	f.Helper()
	r := f.try(kind, request)
	require.NoError(f, r.Err)
	response, ok := any(r.Response).(M)
	require.True(f, ok, "response is %T", r.Response)
	return response
}

// put writes keys given as "key=value".
func (f *fixture) put(pairs ...string) {
	f.Helper()
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		do[*pb.PutResponse](f, KindPut, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	}
}

func (f *fixture) putLease(key string, lease int64) {
	f.Helper()
	do[*pb.PutResponse](f, KindPut, &pb.PutRequest{Key: []byte(key), Lease: lease})
}

func (f *fixture) delete(keys ...string) {
	f.Helper()
	for _, key := range keys {
		r := do[*pb.DeleteRangeResponse](f, KindDeleteRange, &pb.DeleteRangeRequest{Key: []byte(key)})
		require.EqualValues(f, 1, r.Deleted)
	}
}

func (f *fixture) compact(rev int64) {
	f.Helper()
	do[*pb.CompactionResponse](f, KindCompact, &pb.CompactionRequest{Revision: rev})
}

func (f *fixture) grant(ids ...int64) {
	f.Helper()
	for _, id := range ids {
		do[*pb.LeaseGrantResponse](f, KindLeaseGrant, &pb.LeaseGrantRequest{ID: id, TTL: 10})
	}
}

func (f *fixture) read(q *pb.RangeRequest) *pb.RangeResponse {
	f.Helper()
	r, err := f.m.View().Range(q)
	require.NoError(f, err)
	return r
}

// all shows the whole store at a revision, 0 for the current one.
func (f *fixture) all(rev int64) string {
	f.Helper()
	return show(f.read(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: rev}).Kvs)
}

type mvccKeyValue = mvccpb.KeyValue

// show writes key-values as key=value(create.mod.version), with the lease when there is one.
func show(kvs []*mvccpb.KeyValue) string {
	var list []string
	for _, kv := range kvs {
		s := fmt.Sprintf("%s=%s(%d.%d.%d", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version)
		if kv.Lease != 0 {
			s += fmt.Sprintf(" lease %d", kv.Lease)
		}
		list = append(list, s+")")
	}
	return strings.Join(list, " ")
}

// events shows what the window holds from a revision on, as key=value@main.sub, or -key@main.sub for a delete, with the
// replaced value behind a slash.
func (f *fixture) events(from int64) string {
	var list []string
	for e := range f.m.History().From(from) {
		v := e.Version
		s := fmt.Sprintf("%s=%s", v.Key, v.Value)
		if v.Deleted {
			s = "-" + v.Key
		}
		s += fmt.Sprintf("@%d.%d", v.Mod, v.Sub)
		if e.Prev != nil {
			s += "/" + string(e.Prev.Value)
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

// The short forms of operations and compares.

func opPut(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func opDelete(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func opGet(key string, rev int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
		RequestRange: &pb.RangeRequest{Key: []byte(key), Revision: rev}}}
}

func opTxn(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func ops(list ...*pb.RequestOp) []*pb.RequestOp { return list }

func ifMod(key string, result pb.Compare_CompareResult, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, Result: result,
		TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}
}

func ifValue(key string, result pb.Compare_CompareResult, value string) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_VALUE, Result: result,
		TargetUnion: &pb.Compare_Value{Value: []byte(value)}}
}

var errDisk = errors.New("disk is gone")

func sortRevisions(list []Revision) { slices.SortFunc(list, Revision.Compare) }
