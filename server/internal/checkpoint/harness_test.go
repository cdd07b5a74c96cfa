package checkpoint

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testCluster = 0xc1

var testMembers = []state.Member{
	{ID: 1, Name: "one", PeerURLs: []string{"http://127.0.0.1:1"}, ClientURLs: []string{"http://127.0.0.1:2"}},
	{ID: 0xabc, PeerURLs: []string{"http://127.0.0.1:3"}, Learner: true},
}

// create makes and opens a checkpoint of member `id` in a directory of its own.
func create(t testing.TB, id uint64) *Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "member", "snap", "db")
	m := Meta{ClusterID: testCluster, MemberID: id, ConfState: &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{0xabc}}}
	require.NoError(t, Create(path, m, testMembers))
	return open(t, path)
}

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func reload(t testing.TB, s *Store, historyBytes int) *state.Machine {
	t.Helper()
	m, err := s.Load(state.Config{HistoryBytes: historyBytes})
	require.NoError(t, err)
	return m
}

// digestOf opens the file at path, checks the machine in it and returns its digest.
func digestOf(t testing.TB, path string) [32]byte {
	t.Helper()
	s, err := Open(path)
	require.NoError(t, err)
	m := reload(t, s, 0)
	require.NoError(t, m.Check())
	digest := m.Digest()
	require.NoError(t, s.Close())
	return digest
}

// image writes a copy of a file and returns its path.
func image(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// history makes random commands that mostly mean something: few keys, few leases, all kinds.
type history struct {
	*rand.Rand
	index    uint64
	revision int64
}

func newHistory(seed uint64) *history { return &history{Rand: rand.New(rand.NewPCG(seed, 7))} }

func (h *history) key() []byte { return fmt.Appendf(nil, "key/%02d", h.IntN(40)) }

func (h *history) value() []byte { return make([]byte, h.IntN(200)) }

func (h *history) lease() int64 { return int64(1 + h.IntN(6)) }

func (h *history) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: h.key(), Value: h.value()}
	for i := range r.Value {
		r.Value[i] = byte(h.Uint32())
	}
	if h.IntN(4) == 0 {
		r.Lease = h.lease()
	}
	return r
}

func (h *history) delete() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{Key: h.key()}
	if h.IntN(5) == 0 {
		r.RangeEnd = h.key()
	}
	return r
}

func (h *history) command() state.Command {
	switch n := h.IntN(100); {
	case n < 55:
		return state.Command{Kind: state.KindPut, Request: h.put()}
	case n < 70:
		return state.Command{Kind: state.KindDeleteRange, Request: h.delete()}
	case n < 80:
		txn := &pb.TxnRequest{}
		for range 1 + h.IntN(4) {
			op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: h.put()}}
			if h.IntN(3) == 0 {
				op = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: h.delete()}}
			}
			txn.Success = append(txn.Success, op)
		}
		return state.Command{Kind: state.KindTxn, Request: txn}
	case n < 88:
		return state.Command{Kind: state.KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: h.lease(), TTL: int64(h.IntN(100))}}
	case n < 92:
		return state.Command{Kind: state.KindLeaseRevoke, Request: &pb.LeaseRevokeRequest{ID: h.lease()}}
	case n < 94:
		return state.Command{Kind: state.KindExpireLeases, Request: &state.ExpireLeases{IDs: []int64{h.lease(), h.lease()}}}
	case n < 97:
		return state.Command{Kind: state.KindCompact, Request: &pb.CompactionRequest{Revision: h.revision - int64(h.IntN(30))}}
	default:
		return state.Command{Kind: state.KindMember, Request: &state.Member{ID: testMembers[h.IntN(2)].ID, Name: fmt.Sprint(h.IntN(9))}}
	}
}

// entry applies one log entry to all machines, which must be equal.
func (h *history) entry(machines ...*state.Machine) {
	h.index += 1 + uint64(h.IntN(2))
	term := 1 + h.index/50
	var batch []state.Command
	for range h.IntN(6) {
		batch = append(batch, h.command())
	}
	for _, m := range machines {
		m.Apply(h.index, term, clone(batch))
	}
	h.revision = machines[0].Revision()
}

// clone makes the commands anew, since each machine keeps what it applies.
func clone(batch []state.Command) []state.Command {
	out := make([]state.Command, len(batch))
	for i, c := range batch {
		b, err := c.AppendTo(nil)
		if err == nil {
			out[i], err = state.DecodeCommand(b)
		}
		if err != nil {
			panic(err)
		}
	}
	return out
}
