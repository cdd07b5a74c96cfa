package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// until asks again and again: nothing signals what a member decides by its own
// clock.
func until(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, context.Cause(ctx))
		}
	}
}

// requireStatus compares code and text.
func requireStatus(t *testing.T, want, got error) {
	t.Helper()
	require.Error(t, got)
	require.Equal(t, want.Error(), got.Error())
}

func alarmRequest(action pb.AlarmRequest_AlarmAction, member uint64, typ pb.AlarmType) *pb.AlarmRequest {
	return &pb.AlarmRequest{Action: action, MemberID: member, Alarm: typ}
}

const (
	alarmGet = pb.AlarmRequest_GET
	alarmOn  = pb.AlarmRequest_ACTIVATE
	alarmOff = pb.AlarmRequest_DEACTIVATE
)

// What etcd's own test of alarms does: one key is overwritten until the member
// is full. Whoever is refused finds the alarm; history is cut and the alarm goes
// without anybody's help; what an operator does besides is no error.
func TestQuotaAlarmComesAndGoes(t *testing.T) {
	ctx := testContext(t)
	quota := func(cfg *server.Config) {
		cfg.QuotaBytes = int64(13 * os.Getpagesize())
		server.SetQuotaHold(cfg, 2*time.Second)
	}
	c := servertest.Three(t, servertest.WithConfig(quota))
	follower := (c.Leader() + 1) % 3
	m := dial(t, c.Endpoints()[follower])
	_, err := m.Put(ctx, put("1st", strings.Repeat("a", 64)))
	require.NoError(t, err)
	page := strings.Repeat("b", os.Getpagesize())
	for i := 0; err == nil; i++ {
		require.Less(t, i, 50, "the quota refuses nothing")
		_, err = m.Put(ctx, put("2nd", page))
	}
	requireStatus(t, rpctypes.ErrGRPCNoSpace, err)
	status, err := m.Status(ctx, &pb.StatusRequest{})
	require.NoError(t, err)
	_, err = m.Compact(ctx, &pb.CompactionRequest{Revision: status.Header.Revision, Physical: true})
	require.NoError(t, err)
	_, err = m.Defragment(ctx, &pb.DefragmentRequest{})
	require.NoError(t, err)
	disarmed, err := m.Alarm(ctx, alarmRequest(alarmOff, c.Member(follower).ID(), pb.AlarmType_NOSPACE))
	require.NoError(t, err)
	require.Len(t, disarmed.Alarms, 1, "it was on for long enough to be seen")
	_, err = m.Put(ctx, put("4th", "small"))
	require.NoError(t, err)

	// Again, and nobody helps.
	for err = nil; err == nil; {
		_, err = m.Put(ctx, put("2nd", page))
	}
	requireStatus(t, rpctypes.ErrGRPCNoSpace, err)
	until(t, ctx, "space is found", func() bool {
		_, err := m.Put(ctx, put("5th", "small"))
		return err == nil
	})
	list, err := m.Alarm(ctx, alarmRequest(alarmGet, 0, 0))
	require.NoError(t, err)
	require.Empty(t, list.Alarms)

	// Live data is not cut, so the alarm stays until something is deleted.
	for i := 0; ; i++ {
		if _, err = m.Put(ctx, put(fmt.Sprint("live", i), page)); err == nil {
			continue
		}
		requireStatus(t, rpctypes.ErrGRPCNoSpace, err)
		require.Less(t, i, 1000)
		if list, err = m.Alarm(ctx, alarmRequest(alarmGet, 0, 0)); err == nil && len(list.Alarms) > 0 && i > 100 {
			break
		}
	}
	require.Equal(t, pb.AlarmType_NOSPACE, list.Alarms[0].Alarm)
	_, err = m.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put("x", "y")}}}})
	requireStatus(t, rpctypes.ErrGRPCNoSpace, err)
	_, err = m.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 10})
	requireStatus(t, rpctypes.ErrGRPCNoSpace, err)
	status, err = m.Status(ctx, &pb.StatusRequest{})
	require.NoError(t, err)
	require.Len(t, status.Errors, 1)
	require.Equal(t, list.Alarms[0].String(), status.Errors[0])
	_, err = m.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("live"), RangeEnd: []byte("livf")})
	require.NoError(t, err)
	until(t, ctx, "the alarm goes", func() bool {
		_, err := m.Put(ctx, put("6th", "small"))
		return err == nil
	})
}

// An operator's alarm stays, over a restart too, until an operator ends it.
func TestOperatorsAlarmStays(t *testing.T) {
	ctx := testContext(t)
	c := servertest.One(t)
	m := dial(t, c.Endpoints()[0])
	for _, alarm := range []struct {
		typ  pb.AlarmType
		want error
	}{{pb.AlarmType_NOSPACE, rpctypes.ErrGRPCNoSpace}, {pb.AlarmType_CORRUPT, rpctypes.ErrGRPCCorrupt}} {
		_, err := m.Alarm(ctx, alarmRequest(alarmOn, 7, alarm.typ))
		require.NoError(t, err)
		c.Kill(0)
		c.Restart(0)
		_, err = m.Put(ctx, put("a", "b"))
		requireStatus(t, alarm.want, err)
		_, err = m.Range(ctx, &pb.RangeRequest{Key: []byte("a")})
		require.NoError(t, err)
		got, err := m.Alarm(ctx, alarmRequest(alarmOff, 7, alarm.typ))
		require.NoError(t, err)
		require.Len(t, got.Alarms, 1)
		require.NotZero(t, got.Header.ClusterId)
		_, err = m.Put(ctx, put("a", "b"))
		require.NoError(t, err)
	}
}

func TestDowngrade(t *testing.T) {
	ctx := testContext(t)
	c := servertest.One(t)
	m := dial(t, c.Endpoints()[0])
	const validate, enable, cancel = pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE, pb.DowngradeRequest_CANCEL
	for i, step := range []struct {
		action  pb.DowngradeRequest_DowngradeAction
		version string
		want    error
		target  string
	}{
		{validate, "3.6", nil, ""},
		{validate, "3.6.1-rc.1+x", nil, ""},
		{validate, "3", rpctypes.ErrGRPCWrongDowngradeVersionFormat, ""},
		{validate, "v3.6.0", rpctypes.ErrGRPCWrongDowngradeVersionFormat, ""},
		{validate, "3.6.0-a..b", rpctypes.ErrGRPCWrongDowngradeVersionFormat, ""},
		{validate, "3.5.0", rpctypes.ErrGRPCInvalidDowngradeTargetVersion, ""},
		{enable, "3.7.0", rpctypes.ErrGRPCInvalidDowngradeTargetVersion, ""},
		{cancel, "", nil, ""}, // as in etcd
		{enable, "3.6.0", nil, "3.6.0"},
		{enable, "3.6.0", rpctypes.ErrGRPCDowngradeInProcess, "3.6.0"},
		{validate, "3.6.0", rpctypes.ErrGRPCDowngradeInProcess, "3.6.0"},
		{cancel, "", nil, ""},
	} {
		resp, err := m.Downgrade(ctx, &pb.DowngradeRequest{Action: step.action, Version: step.version})
		if step.want == nil {
			require.NoError(t, err, "step %d", i)
			require.Equal(t, "3.7", resp.Version)
		} else {
			requireStatus(t, step.want, err)
		}
		status, err := m.Status(ctx, &pb.StatusRequest{})
		require.NoError(t, err)
		require.Equal(t, step.target, status.DowngradeInfo.TargetVersion, "step %d", i)
		require.Equal(t, step.target != "", status.DowngradeInfo.Enabled, "step %d", i)
	}
}

// snapshotOf receives a snapshot and checks how it was sent.
func snapshotOf(t *testing.T, ctx context.Context, m api) []byte {
	t.Helper()
	stream, err := m.Snapshot(ctx, &pb.SnapshotRequest{})
	require.NoError(t, err)
	var all, last []byte
	remaining := uint64(0)
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, "3.7.0", r.Version)
		if len(all) > 0 && remaining > 0 {
			require.Equal(t, remaining, r.RemainingBytes+uint64(len(r.Blob)))
		}
		remaining = r.RemainingBytes
		all, last = append(all, r.Blob...), r.Blob
	}
	require.Zero(t, remaining)
	require.Len(t, last, sha256.Size)
	body := all[:len(all)-sha256.Size]
	sum := sha256.Sum256(body)
	require.Equal(t, sum[:], last)
	require.Zero(t, len(body)%512)
	return body
}

// A snapshot holds what was acknowledged before it was asked for.
func TestSnapshotRPC(t *testing.T) {
	ctx := testContext(t)
	c := servertest.One(t)
	m := dial(t, c.Endpoints()[0])
	value := strings.Repeat("v", 100)
	for i := range 1000 {
		_, err := m.Put(ctx, put(fmt.Sprint("key/", i), value))
		require.NoError(t, err)
	}
	_, err := m.Alarm(ctx, alarmRequest(alarmOn, 1, 7))
	require.NoError(t, err)
	body := snapshotOf(t, ctx, m)
	path := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.WriteFile(path, body, 0o600))
	s, err := checkpoint.Open(path)
	require.NoError(t, err)
	defer s.Close()
	machine, err := s.Load(state.Config{})
	require.NoError(t, err)
	require.NoError(t, machine.Check())
	require.Len(t, machine.Alarms(), 1)
	require.EqualValues(t, 1001, machine.Revision())
	require.True(t, bytes.Equal([]byte(value), machine.View().Get("key/999").Value))
}

// The hashes of the members agree, at every revision that can be read, whatever
// each has swept.
func TestHashesAgree(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	var members []api
	for _, e := range c.Endpoints() {
		members = append(members, dial(t, e))
	}
	w := members[0]
	for i := range 30 {
		_, err := w.Put(ctx, put(fmt.Sprint("k", i%7), fmt.Sprint(i)))
		require.NoError(t, err)
	}
	_, err := w.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k1"), RangeEnd: []byte("k4")})
	require.NoError(t, err)
	_, err = w.Compact(ctx, &pb.CompactionRequest{Revision: 20})
	require.NoError(t, err)
	for _, m := range members { // all have applied it
		_, err := m.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		require.NoError(t, err)
	}
	seen := map[uint32]bool{}
	for _, rev := range []int64{20, 25, 31, 32, 0} {
		want, err := w.HashKV(ctx, &pb.HashKVRequest{Revision: rev})
		require.NoError(t, err)
		require.EqualValues(t, 20, want.CompactRevision)
		require.EqualValues(t, 32, want.Header.Revision)
		seen[want.Hash] = true
		for _, m := range members[1:] {
			got, err := m.HashKV(ctx, &pb.HashKVRequest{Revision: rev})
			require.NoError(t, err)
			require.Equal(t, want.Hash, got.Hash, "at %d", rev)
			require.Equal(t, want.HashRevision, got.HashRevision)
		}
	}
	require.Len(t, seen, 4, "0 is the current revision, and the others differ")
	_, err = w.HashKV(ctx, &pb.HashKVRequest{Revision: 19})
	requireStatus(t, rpctypes.ErrGRPCCompacted, err)
	_, err = w.HashKV(ctx, &pb.HashKVRequest{Revision: 33})
	requireStatus(t, rpctypes.ErrGRPCFutureRev, err)
	// A hash that was given out is given again after a compaction at its revision.
	before, err := w.HashKV(ctx, &pb.HashKVRequest{Revision: 30})
	require.NoError(t, err)
	_, err = w.Compact(ctx, &pb.CompactionRequest{Revision: 30})
	require.NoError(t, err)
	after, err := w.HashKV(ctx, &pb.HashKVRequest{Revision: 30})
	require.NoError(t, err)
	require.Equal(t, before.Hash, after.Hash)
	require.Equal(t, before.CompactRevision, after.CompactRevision)
	h, err := w.Hash(ctx, &pb.HashRequest{})
	require.NoError(t, err)
	require.NotZero(t, h.Hash)
	require.EqualValues(t, 32, h.Header.Revision)
}
