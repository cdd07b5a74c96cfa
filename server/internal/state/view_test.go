package state

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestView(t *testing.T) {
	f := newFixture(t)
	f.put("a=1", "b=1", "a=2")
	f.delete("b")
	f.compact(3)
	v := f.m.View()
	require.Equal(t, [2]int64{5, 3}, [2]int64{v.Revision(), v.CompactRevision()})
	require.EqualValues(t, 5, v.AppliedIndex())
	require.EqualValues(t, 5, v.History().Last())
	require.Nil(t, v.Get("b"))
	require.Equal(t, "a=2(2.4.2)", show([]*mvccKeyValue{v.Get("a").KeyValue()}))
	require.Equal(t, Revision{Main: 4}, v.Get("a").Revision())
	require.Same(t, v, f.m.View())

	f.put("a=3", "b=2")
	f.compact(7)
	for f.m.Sweep(1) {
	}
	require.NotSame(t, v, f.m.View())
	for rev, want := range map[int64]string{0: "a=2(2.4.2)", 5: "a=2(2.4.2)", 4: "a=2(2.4.2) b=1(3.3.1)", 3: "a=1(2.2.1) b=1(3.3.1)"} {
		r, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: rev})
		require.NoError(t, err)
		require.Equal(t, want, show(r.Kvs), "revision %d", rev)
		require.EqualValues(t, 5, r.Header.Revision)
	}
	txn, err := v.Txn(&pb.TxnRequest{Compare: []*pb.Compare{ifMod("a", equal, 4)}, Success: ops(opGet("a", 3), opTxn(&pb.TxnRequest{Success: ops(opGet("b", 0))}))})
	require.NoError(t, err)
	require.True(t, txn.Succeeded)
	require.EqualValues(t, 5, txn.Header.Revision)
	require.Equal(t, "a=1(2.2.1)", show(txn.Responses[0].GetResponseRange().Kvs))
	require.Empty(t, txn.Responses[1].GetResponseTxn().Responses[0].GetResponseRange().Kvs)
	_, err = v.Txn(&pb.TxnRequest{Success: ops(opGet("a", 6))})
	require.ErrorIs(t, err, ErrFutureRevision)
	_, err = v.Txn(&pb.TxnRequest{Success: ops(opGet("a", 2))})
	require.ErrorIs(t, err, ErrCompacted)
}

// Many goroutines read views and histories while the machine writes, compacts and sweeps. Each view answers as it did
// when it was taken; run with -race, nothing that a reader sees is ever written to.
func TestViewsBesideApply(t *testing.T) {
	const rounds, keys, readers = 60, 40, 4
	m := New(Config{})
	type shot struct {
		view *View
		want string
	}
	shots := make(chan shot, rounds)
	read := func(v *View, rev int64) string {
		r, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: rev})
		if err != nil {
			return err.Error()
		}
		n := 0
		for e := range v.History().From(rev) {
			n += len(e.Version.Value) + len(e.Version.Key)
		}
		return show(r.Kvs) + fmt.Sprint(n)
	}
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for s := range shots {
				if got := read(s.view, s.view.Revision()-5); got != s.want {
					t.Errorf("view of revision %d changed: %s, not %s", s.view.Revision(), got, s.want)
				}
			}
		})
	}
	for i := range rounds {
		var batch []Command
		for k := range keys {
			batch = append(batch, putOf(fmt.Appendf(nil, "k%d", (k*7+i)%keys), fmt.Append(nil, i)))
		}
		batch = append(batch,
			Command{Kind: KindDeleteRange, Request: &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "k%d", i%keys)}},
			Command{Kind: KindCompact, Request: &pb.CompactionRequest{Revision: m.Revision() - 20}})
		m.Apply(uint64(i+1), 1, batch)
		v := m.View()
		shots <- shot{v, read(v, v.Revision()-5)}
		m.Sweep(keys / 2)
	}
	close(shots)
	wg.Wait()
	require.NoError(t, m.Check())
}

func TestCountTo(t *testing.T) {
	f := newFixture(t)
	f.put("a=1", "b=1", "c=1", "d=1")
	f.delete("c")
	all := []byte{0}
	for n, want := range []int{0, 1, 2, 3, 3} {
		require.Equal(t, want, f.m.CountTo(n, all, all), "of at most %d", n)
	}
	require.Equal(t, 1, f.m.CountTo(5, []byte("b"), nil))
	require.Zero(t, f.m.CountTo(5, []byte("c"), nil))
	require.Equal(t, 1, f.m.CountTo(5, []byte("b"), []byte("d")))
}
