package state

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	benchKeys  = 10_000
	benchBatch = 64
	benchValue = 128
)

func benchKey(i int) []byte { return fmt.Appendf(nil, "/registry/pods/default/pod-%08d", i) }

// benchMachine returns a machine with keys 0..n-1, and the index of its last entry.
func benchMachine(b *testing.B, n int) (*Machine, uint64) {
	b.Helper()
	m := New(Config{Archive: discard{}, Members: []Member{{ID: 1}}})
	index := uint64(0)
	for i := range n {
		index++
		m.Apply(index, 1, []Command{putOf(benchKey(i), make([]byte, benchValue))})
	}
	m.TakeChanges()
	m.Archived(m.Revision())
	require.Equal(b, n, m.Size().Keys)
	return m, index
}

func putOf(key, value []byte) Command {
	return Command{Kind: KindPut, Request: &pb.PutRequest{Key: key, Value: value}}
}

// cpuTime returns the processor time that the process has used: on a shared machine, unlike the time on the wall, it
// hardly depends on the neighbours. It includes the collector's.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// discard is an archive that is never read.
type discard struct{}

func (discard) Version(Revision) (*Version, error)                { return nil, nil }
func (discard) Scan(from, to int64, fn func(*Version) bool) error { return nil }

// benchPuts applies batches of puts to existing keys in a scattered order. Hypothesis: about 1 us a put and 3
// allocations, those of the version, of the response, and a share of the growing lists.
func benchPuts(b *testing.B, keys int, each func(m *Machine)) {
	m, index := benchMachine(b, keys)
	names := make([][]byte, keys)
	for i := range names {
		names[i] = benchKey(i)
	}
	value := make([]byte, benchValue)
	requests := make([]pb.PutRequest, benchBatch)
	batch := make([]Command, benchBatch)
	next, start := uint64(1), cpuTime(b)
	b.ReportAllocs()
	for b.Loop() {
		for i := range batch {
			next = next*6364136223846793005 + 1442695040888963407
			requests[i].Key, requests[i].Value = names[(next>>33)%uint64(keys)], value
			batch[i] = Command{Kind: KindPut, Request: &requests[i]}
		}
		index++
		m.Apply(index, 1, batch)
		each(m)
		if index%256 == 0 {
			m.TakeChanges()
			m.Archived(m.Revision())
		}
	}
	b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N)/benchBatch, "cpu-ns/put")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchBatch, "ns/put")
}

func BenchmarkPut(b *testing.B) {
	for _, keys := range []int{benchKeys, 100 * benchKeys} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) { benchPuts(b, keys, func(*Machine) {}) })
		b.Run(fmt.Sprintf("keys=%d/view", keys), func(b *testing.B) { benchPuts(b, keys, func(m *Machine) { m.View() }) })
	}
}

func BenchmarkGet(b *testing.B) {
	m, _ := benchMachine(b, benchKeys)
	v := m.View()
	names := make([][]byte, benchKeys)
	for i := range names {
		names[i] = benchKey(i)
	}
	b.Run("Get", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i = (i + 7919) % benchKeys
			if v.Get(text(names[i])) == nil {
				b.Fatal(i)
			}
		}
	})
	b.Run("Range", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		r := &pb.RangeRequest{}
		for b.Loop() {
			i = (i + 7919) % benchKeys
			r.Key = names[i]
			if got, err := v.Range(r); err != nil || got.Count != 1 {
				b.Fatal(got, err)
			}
		}
	})
}

// BenchmarkRange reads pages and the head of an order from a prefix of all keys.
func BenchmarkRange(b *testing.B) {
	m, _ := benchMachine(b, benchKeys)
	v := m.View()
	all := func(r *pb.RangeRequest) *pb.RangeRequest {
		r.Key, r.RangeEnd = []byte("/"), []byte("0")
		return r
	}
	for name, r := range map[string]*pb.RangeRequest{
		"page=500":     all(&pb.RangeRequest{Limit: 500}),
		"all":          all(&pb.RangeRequest{}),
		"first-create": all(&pb.RangeRequest{Limit: 1, SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_CREATE}),
		"last-key":     all(&pb.RangeRequest{Limit: 1, SortOrder: pb.RangeRequest_DESCEND}),
		"count":        all(&pb.RangeRequest{CountOnly: true}),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Range(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTxn is Kubernetes' update: compare the mod revision, put.
func BenchmarkTxn(b *testing.B) {
	m, index := benchMachine(b, benchKeys)
	names := make([][]byte, benchKeys)
	for i := range names {
		names[i] = benchKey(i)
	}
	value := make([]byte, benchValue)
	batch := make([]Command, benchBatch)
	next, start := uint64(1), cpuTime(b)
	b.ReportAllocs()
	for b.Loop() {
		for i := range batch {
			next = next*6364136223846793005 + 1442695040888963407
			key := names[(next>>33)%benchKeys]
			v, _ := m.live.Get(text(key))
			batch[i] = Command{Kind: KindTxn, Request: &pb.TxnRequest{
				Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: v.Mod}}},
				Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}},
				Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
			}}
		}
		index++
		m.Apply(index, 1, batch)
		if index%256 == 0 {
			m.TakeChanges()
			m.Archived(m.Revision())
		}
	}
	b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N)/benchBatch, "cpu-ns/txn")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchBatch, "ns/txn")
}

// BenchmarkExpire ends 100k leases with a key each, in entries of 4096 leases.
func BenchmarkExpire(b *testing.B) {
	const leases, perEntry = 100_000, 4096
	cpu := int64(0)
	for b.Loop() {
		b.StopTimer()
		m := New(Config{Archive: discard{}})
		index := uint64(0)
		var entries [][]Command
		for i := range int64(leases) {
			index++
			m.Apply(index, 1, []Command{
				{Kind: KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: i + 1, TTL: 60}},
				{Kind: KindPut, Request: &pb.PutRequest{Key: benchKey(int(i)), Value: make([]byte, benchValue), Lease: i + 1}},
			})
			if i%perEntry == 0 {
				entries = append(entries, []Command{{Kind: KindExpireLeases, Request: &ExpireLeases{}}})
			}
			e := entries[len(entries)-1][0].Request.(*ExpireLeases)
			e.IDs = append(e.IDs, i+1)
		}
		runtime.GC()
		start := cpuTime(b)
		b.StartTimer()
		for _, e := range entries {
			index++
			m.Apply(index, 1, e)
		}
		b.StopTimer()
		cpu += cpuTime(b) - start
		require.Zero(b, m.Size().Keys)
		require.Empty(b, m.Leases())
		b.StartTimer()
	}
	b.ReportMetric(float64(cpu)/float64(b.N)/leases, "cpu-ns/lease")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/leases, "ns/lease")
}
