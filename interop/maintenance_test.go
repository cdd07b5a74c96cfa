package interop_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// told is what a member answered, without what is a member's own.
func told(m proto.Message, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	m = proto.Clone(m)
	if h, ok := m.(interface{ GetHeader() *pb.ResponseHeader }); ok && h.GetHeader() != nil {
		header := h.GetHeader()
		for _, id := range []*uint64{&header.ClusterId, &header.MemberId, &header.RaftTerm} {
			if *id != 0 {
				*id = 1
			}
		}
	}
	if r, ok := m.(*pb.StatusResponse); ok { // sizes, and how much each writes to its log
		r.DbSize, r.DbSizeInUse, r.RaftIndex, r.RaftAppliedIndex, r.RaftTerm, r.Leader = 1, 1, 1, 1, 1, 1
	}
	if r, ok := m.(*pb.HashResponse); ok {
		r.Hash = 1 // of the whole file, where each has rows of its own
	}
	return strings.ReplaceAll(prototext.MarshalOptions{}.Format(m), "  ", " ")
}

// TestMaintenanceDifferential puts the same maintenance requests, between the
// same writes, to etcd and to Latchkey.
func TestMaintenanceDifferential(t *testing.T) {
	ctx := testContext(t)
	reference, subject := startBoth(t, 1)
	both := func(what string, do func(s *side) (proto.Message, error)) string {
		t.Helper()
		want, got := told(do(reference)), told(do(subject))
		require.Equal(t, want, got, what)
		return want
	}
	put := func(key string) func(*side) (proto.Message, error) {
		return func(s *side) (proto.Message, error) {
			return s.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("v")})
		}
	}
	writes := map[string]func(*side) (proto.Message, error){
		"put": put("a"),
		"get": func(s *side) (proto.Message, error) { return s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")}) },
		"serializable": func(s *side) (proto.Message, error) {
			return s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
		},
		"delete": func(s *side) (proto.Message, error) {
			return s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("b")})
		},
		"txn that puts": func(s *side) (proto.Message, error) {
			return s.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: []byte("a")}}}}})
		},
		"txn that may put": func(s *side) (proto.Message, error) {
			return s.kv.Txn(ctx, &pb.TxnRequest{Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: []byte("a")}}}}})
		},
		"txn that deletes": func(s *side) (proto.Message, error) {
			return s.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{
				RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("c")}}}}})
		},
		"txn that reads": func(s *side) (proto.Message, error) {
			return s.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{
				RequestRange: &pb.RangeRequest{Key: []byte("a")}}}}})
		},
		"compact": func(s *side) (proto.Message, error) {
			return s.kv.Compact(ctx, &pb.CompactionRequest{Revision: 1000})
		},
		"grant": func(s *side) (proto.Message, error) {
			return s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 77, TTL: 100})
		},
		"leases": func(s *side) (proto.Message, error) { return s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{}) },
		"revoke": func(s *side) (proto.Message, error) {
			return s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 77})
		},
		"status": func(s *side) (proto.Message, error) { return s.maint.Status(ctx, &pb.StatusRequest{}) },
		"defragment": func(s *side) (proto.Message, error) {
			return s.maint.Defragment(ctx, &pb.DefragmentRequest{})
		},
		"hash": func(s *side) (proto.Message, error) { return s.maint.Hash(ctx, &pb.HashRequest{}) },
		"members": func(s *side) (proto.Message, error) {
			r, err := s.members.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			return &pb.MemberListResponse{Header: r.GetHeader()}, err
		},
	}
	order := []string{
		"put", "get", "serializable", "delete", "txn that puts", "txn that may put", "txn that deletes", "txn that reads",
		"compact", "grant", "leases", "revoke", "status", "defragment", "hash", "members",
	}
	const get, on, off = pb.AlarmRequest_GET, pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE
	refused := 0
	for i, r := range []*pb.AlarmRequest{
		{Action: get}, {Action: off, MemberID: 1, Alarm: 1}, {Action: on, MemberID: 7}, {Action: on, MemberID: 7, Alarm: 1},
		{Action: on, MemberID: 7, Alarm: 1}, {Action: get, Alarm: 1}, {Action: get, Alarm: 2, MemberID: 7}, {Action: off, Alarm: 1},
		{Action: off, MemberID: 7}, {Action: off, MemberID: 7, Alarm: 1}, {Action: off, MemberID: 7, Alarm: 1},
		{Action: on, Alarm: 2}, {Action: get}, {Action: off, Alarm: 2}, {Action: on, MemberID: 9, Alarm: 5}, {Action: get},
		{Action: off, MemberID: 9, Alarm: 5},
	} {
		both(fmt.Sprintf("alarm %d: %v", i, r), func(s *side) (proto.Message, error) { return s.maint.Alarm(ctx, r) })
		for _, name := range order {
			answer := both(fmt.Sprintf("alarm %d: %v: %s", i, r, name), writes[name])
			if strings.Contains(answer, "space exceeded") || strings.Contains(answer, "corrupt") {
				refused++
			}
		}
	}
	require.Greater(t, refused, 20, "no alarm was on")
	const validate, enable, cancel = pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE, pb.DowngradeRequest_CANCEL
	for i, r := range []*pb.DowngradeRequest{
		{Action: validate, Version: "3.6"}, {Action: validate, Version: "3.6.5"}, {Action: validate, Version: "3"},
		{Action: validate, Version: "3.6.0.1"}, {Action: validate, Version: "v3.6"}, {Action: validate, Version: "3.6.0-rc.1+x"},
		{Action: validate, Version: "3.6.0-"}, {Action: validate, Version: "3.6.0-a..b"}, {Action: validate, Version: "3.6.0+_"}, {Action: validate, Version: ""}, {Action: validate, Version: "3.6-rc.1"},
		{Action: validate, Version: "3.5.0"}, {Action: enable, Version: "3.7.0"}, {Action: enable, Version: "x"}, {Action: cancel},
		{Action: 9}, {Action: enable, Version: "3.6.0"}, {Action: enable, Version: "3.6.0"}, {Action: cancel},
	} {
		both(fmt.Sprintf("downgrade %d: %v", i, r), func(s *side) (proto.Message, error) { return s.maint.Downgrade(ctx, r) })
		if i < 16 || r.Action == cancel {
			both(fmt.Sprintf("status after downgrade %d: %v", i, r), writes["status"])
		}
	}
	requireCompared(t, reference.called)
}

// TestHashKVEqualsEtcds: the same history has the same hash on both, at every
// revision, before and after compactions.
func TestHashKVEqualsEtcds(t *testing.T) {
	ctx := testContext(t)
	reference, subject := startBoth(t, 1)
	rng := rand.New(rand.NewPCG(1, 2))
	revision, compact := int64(1), int64(-1)
	compacted, compared := map[int64]bool{}, 0
	key := func() []byte { return fmt.Appendf(nil, "key/%d", rng.IntN(12)) }
	step := func() {
		put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key(), Value: key()}}}
		del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("other"), RangeEnd: []byte("othes")}}}
		txn := &pb.TxnRequest{Success: []*pb.RequestOp{put}}
		switch rng.IntN(6) {
		case 0:
			txn.Success[0] = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key()}}}
		case 1:
			txn.Success = append(txn.Success, del, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: []byte("zz"), Value: []byte{0, 255}}}})
		case 2:
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "other/%d", rng.IntN(3))}}})
		}
		var got [2]*pb.TxnResponse
		for i, s := range []*side{reference, subject} {
			var err error
			got[i], err = s.kv.Txn(ctx, txn)
			require.NoError(t, err)
		}
		revision = got[0].Header.Revision
		require.Equal(t, revision, got[1].Header.Revision)
	}
	compare := func() {
		revs := []int64{0}
		for range 8 {
			revs = append(revs, max(compact+1, 1)+rng.Int64N(revision-max(compact, 0)))
		}
		for _, rev := range append(revs, compact-1, revision+1) {
			// For a revision that was compacted at, etcd answers with the hash that
			// it made before that compaction, even when it is not readable any more.
			if compacted[rev] {
				continue
			}
			compared++
			r := &pb.HashKVRequest{Revision: rev}
			want, got := told(reference.maint.HashKV(ctx, r)), told(subject.maint.HashKV(ctx, r))
			require.Equal(t, want, got, "at %d of %d, compacted at %d", rev, revision, compact)
		}
	}
	for range 12 {
		for range 25 {
			step()
		}
		compare()
		compact = max(compact, 0) + 1 + rng.Int64N(revision-max(compact, 0))
		compacted[compact] = true
		for _, s := range []*side{reference, subject} {
			_, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: compact, Physical: true})
			require.NoError(t, err)
		}
		step()
		compare()
	}
	// Nothing is left that can be read.
	for _, s := range []*side{reference, subject} {
		r, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		require.NoError(t, err)
		revision = r.Header.Revision
	}
	compare()
	require.Greater(t, compared, 200)
}

// Etcd's own tool finds in a snapshot of ours what is in the member.
func TestEtcdutlReadsSnapshot(t *testing.T) {
	ctx := testContext(t)
	s := startSide(t, *subjectKind, 1)
	for i := range 500 {
		_, err := s.kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "key/%d", i), Value: []byte(strings.Repeat("v", 200))})
		require.NoError(t, err)
	}
	_, err := s.maint.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 1, Alarm: 5})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "snapshot.db")
	receiveSnapshot(t, ctx, s, path)
	tool, err := harness.Build(ctx, harness.ToolEtcdutl)
	require.NoError(t, err)
	out, err := exec.CommandContext(ctx, tool, "snapshot", "status", path, "-w", "json").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), `"revision":501`)
	require.Contains(t, string(out), `"version":"3.7.0"`)
	t.Logf("%s", out)
	dir := filepath.Join(t.TempDir(), "restored")
	out, err = exec.CommandContext(ctx, tool, "snapshot", "restore", path, "--data-dir", dir).CombinedOutput()
	require.NoError(t, err, string(out))
}

func receiveSnapshot(t *testing.T, ctx context.Context, s *side, path string) {
	t.Helper()
	stream, err := s.maint.Snapshot(ctx, &pb.SnapshotRequest{})
	require.NoError(t, err)
	var all []byte
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, "3.7.0", r.Version)
		all = append(all, r.Blob...)
	}
	require.Equal(t, sha256.Size, len(all)%512)
	require.NoError(t, os.WriteFile(path, all, 0o600))
}
