package state

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// budget is what one operation may cost the heap. Time differs between machines, this does not; so a change that makes
// an operation dearer fails here, and not in a benchmark that nobody runs.
type budget struct {
	name          string
	allocs, bytes float64
	// batch is how many operations op carries out, in a Machine of benchKeys keys.
	batch int
	op    func(t *testing.T, m *Machine) func()
}

// applyBatches returns a function that applies one batch after the other, made by fill from requests that are used
// again, and archives from time to time as a member does.
func applyBatches(m *Machine, batch []Command) func() {
	index, _ := m.Applied()
	return func() {
		index++
		m.Apply(index, 1, batch)
		if index%16 == 0 {
			m.TakeChanges()
			m.TakeLeaseEvents()
			m.Archived(m.Revision())
		}
	}
}

func readOf(r *pb.RangeRequest) func(t *testing.T, m *Machine) func() {
	return func(t *testing.T, m *Machine) func() {
		v := m.View()
		r.Key, r.RangeEnd = []byte("/"), []byte("0")
		return func() {
			if got, err := v.Range(r); err != nil || got.Count != benchKeys {
				t.Error(got, err)
			}
		}
	}
}

var budgets = []budget{
	{"put", 2.5, 480, benchBatch, func(_ *testing.T, m *Machine) func() {
		batch := make([]Command, benchBatch)
		for i := range batch {
			batch[i] = putOf(benchKey(i*97), make([]byte, benchValue))
		}
		return applyBatches(m, batch)
	}},
	{"compare and swap", 8, 800, benchBatch, func(_ *testing.T, m *Machine) func() {
		batch := make([]Command, benchBatch)
		for i := range batch {
			key := benchKey(i * 97)
			batch[i] = Command{Kind: KindTxn, Request: &pb.TxnRequest{
				Compare: []*pb.Compare{ifMod(string(key), greater, 0)},
				Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: make([]byte, benchValue)}}}},
			}}
		}
		return applyBatches(m, batch)
	}},
	{"lease grant and revoke", 6, 750, benchBatch, func(_ *testing.T, m *Machine) func() {
		batch := make([]Command, 2*benchBatch)
		for i := range int64(benchBatch) {
			batch[2*i] = Command{Kind: KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: i + 1, TTL: 60}}
			batch[2*i+1] = Command{Kind: KindLeaseRevoke, Request: &pb.LeaseRevokeRequest{ID: i + 1}}
		}
		return applyBatches(m, batch)
	}},
	// Whatever the order, a range with a limit costs what it returns: the keys that it looks at are neither copied nor
	// sorted.
	{"count", 1, 200, 1, readOf(&pb.RangeRequest{CountOnly: true})},
	{"first of an order", 5, 400, 1, readOf(&pb.RangeRequest{
		Limit: 1, SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_CREATE})},
	{"last key", 5, 400, 1, readOf(&pb.RangeRequest{Limit: 1, SortOrder: pb.RangeRequest_DESCEND})},
	{"ten of an order, filtered", 9, 2400, 1, readOf(&pb.RangeRequest{
		Limit: 10, MaxCreateRevision: benchKeys / 2, SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_MOD})},
}

// TestBudgets holds each operation to its budget.
func TestBudgets(t *testing.T) {
	for _, b := range budgets {
		t.Run(b.name, func(t *testing.T) {
			m := filled(t, benchKeys)
			op := b.op(t, m)
			const runs = 64
			for range 16 {
				op() // what is kept for the next time is made
			}
			allocs := testing.AllocsPerRun(runs, op) / float64(b.batch)
			bytes := bytesPerRun(runs, op) / float64(b.batch)
			t.Logf("%.2f allocations, %.0f bytes", allocs, bytes)
			require.LessOrEqual(t, allocs, b.allocs)
			require.LessOrEqual(t, bytes, b.bytes)
		})
	}
}

// filled returns a machine with keys 0..n-1.
func filled(t *testing.T, n int) *Machine {
	m := New(Config{Archive: discard{}, Members: []Member{{ID: 1}}})
	for i := range n {
		m.Apply(uint64(i+1), 1, []Command{putOf(benchKey(i), make([]byte, benchValue))})
	}
	m.TakeChanges()
	m.Archived(m.Revision())
	require.Equal(t, n, m.Size().Keys, fmt.Sprint(n))
	return m
}

// bytesPerRun is testing.AllocsPerRun for bytes.
func bytesPerRun(runs int, op func()) float64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		op()
	}
	runtime.ReadMemStats(&after)
	return float64(after.TotalAlloc-before.TotalAlloc) / float64(runs)
}
