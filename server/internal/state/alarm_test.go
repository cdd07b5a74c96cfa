package state

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	noSpace = pb.AlarmType_NOSPACE
	corrupt = pb.AlarmType_CORRUPT
)

// alarm sends a request about an alarm and tells what it was answered with.
func (f *fixture) alarm(kind Kind, action pb.AlarmRequest_AlarmAction, member uint64, typ pb.AlarmType) string {
	f.Helper()
	r := do[*pb.AlarmResponse](f, kind, &pb.AlarmRequest{Action: action, MemberID: member, Alarm: typ})
	list := ""
	for _, a := range r.Alarms {
		list += fmt.Sprintf("%d:%s ", a.MemberID, a.Alarm)
	}
	return list
}

func TestAlarm(t *testing.T) {
	const get, on, off = pb.AlarmRequest_GET, pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE
	const operator, member = KindAlarm, KindRaise
	f := newFixture(t)
	for i, step := range []struct {
		kind   Kind
		action pb.AlarmRequest_AlarmAction
		member uint64
		typ    pb.AlarmType
		want   string
	}{
		{operator, get, 0, 0, ""},
		{operator, on, 2, noSpace, "2:NOSPACE "},
		{operator, on, 2, noSpace, "2:NOSPACE "}, // again
		{operator, on, 1, corrupt, "1:CORRUPT "},
		{operator, on, 1, noSpace, "1:NOSPACE "},
		{operator, on, 1, 0, ""}, // none is no type
		{operator, get, 0, 0, "1:NOSPACE 2:NOSPACE 1:CORRUPT "},
		{operator, get, 7, noSpace, "1:NOSPACE 2:NOSPACE "}, // the member does not matter
		{operator, off, 0, noSpace, ""},                     // no such alarm: 0 is not all
		{operator, off, 1, 0, ""},
		{operator, off, 1, corrupt, "1:CORRUPT "},
		{operator, off, 1, corrupt, ""},
		{member, off, 1, noSpace, ""}, // an operator's stays
		{operator, off, 1, noSpace, "1:NOSPACE "},
		{operator, off, 2, noSpace, "2:NOSPACE "},
		{member, on, 3, noSpace, "3:NOSPACE "},
		{member, off, 3, noSpace, "3:NOSPACE "},
		{member, on, 3, noSpace, "3:NOSPACE "},
		{operator, on, 3, noSpace, "3:NOSPACE "}, // is the operator's from here on
		{member, on, 3, noSpace, "3:NOSPACE "},
		{member, off, 3, noSpace, ""},
		{operator, 9, 3, noSpace, ""},
		{operator, get, 0, 0, "3:NOSPACE "},
	} {
		require.Equal(t, step.want, f.alarm(step.kind, step.action, step.member, step.typ), "step %d", i)
	}
}

// What each alarm forbids is what etcd's appliers forbid.
func TestAlarmBars(t *testing.T) {
	requests := map[string]Command{
		"put":            {Kind: KindPut, Request: &pb.PutRequest{Key: []byte("a")}},
		"delete":         {Kind: KindDeleteRange, Request: &pb.DeleteRangeRequest{Key: []byte("a")}},
		"txn that puts":  {Kind: KindTxn, Request: &pb.TxnRequest{Failure: ops(opPut("a", ""))}},
		"txn that nests": {Kind: KindTxn, Request: &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Failure: ops(opPut("a", ""))}))}},
		"txn, no put":    {Kind: KindTxn, Request: &pb.TxnRequest{Success: ops(opDelete("a", ""))}},
		"compact":        {Kind: KindCompact, Request: &pb.CompactionRequest{Revision: 2}},
		"grant":          {Kind: KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: 9, TTL: 5}},
		"revoke":         {Kind: KindLeaseRevoke, Request: &pb.LeaseRevokeRequest{ID: 1}},
		"expire":         {Kind: KindExpireLeases, Request: &ExpireLeases{IDs: []int64{1}}},
		"alarm":          {Kind: KindAlarm, Request: &pb.AlarmRequest{}},
		"member":         {Kind: KindMember, Request: &Member{ID: 1, Name: "n"}},
	}
	grows := []string{"put", "txn that puts", "txn that nests", "grant"}
	all := append([]string{"delete", "txn, no put", "compact", "revoke"}, grows...)
	for _, c := range []struct {
		name   string
		kind   Kind
		alarm  Alarm
		err    error
		barred []string
	}{
		{"no space", KindRaise, Alarm{Type: noSpace, Member: 1}, ErrNoSpace, grows},
		{"corrupt by an operator", KindAlarm, Alarm{Type: corrupt, Member: 1}, ErrCorrupt, all},
		{"corrupt, nobody knows who", KindRaise, Alarm{Type: corrupt}, ErrCorrupt, all},
		{"one member is corrupt", KindRaise, Alarm{Type: corrupt, Member: 1}, nil, nil},
		{"another alarm", KindAlarm, Alarm{Type: 7, Member: 1}, nil, nil},
	} {
		for name, request := range requests {
			f := newFixture(t)
			f.m = New(Config{Members: []Member{{ID: 1}}})
			f.grant(1)
			f.put("a=1", "b=1")
			f.alarm(c.kind, pb.AlarmRequest_ACTIVATE, c.alarm.Member, c.alarm.Type)
			before := f.m.Revision()
			got := f.try(request.Kind, request.Request)
			var want error
			for _, b := range c.barred {
				if b == name {
					want = c.err
				}
			}
			require.ErrorIs(t, got.Err, want, "%s: %s", c.name, name)
			if want != nil {
				require.Equal(t, before, f.m.Revision())
			}
			loaded := reload(t, f.m)
			require.Equal(t, f.m.notices, loaded.notices, "%s: %s", c.name, name)
		}
	}
}

// reload makes a machine of the changes that one has for its checkpoint.
func reload(t *testing.T, m *Machine) *Machine {
	t.Helper()
	changes := m.TakeChanges()
	l := NewLoader(Config{ClusterID: m.clusterID, Members: m.Members()})
	if changes.Notices != nil {
		require.NoError(t, l.Notices(*changes.Notices))
	}
	for _, v := range changes.Versions {
		require.NoError(t, l.Version(v))
	}
	for _, info := range changes.Leases {
		require.NoError(t, l.Lease(info))
	}
	loaded, err := l.Finish(changes.Index, changes.Term, changes.Revision, changes.Compact)
	require.NoError(t, err)
	require.NoError(t, loaded.Check())
	return loaded
}

func TestCost(t *testing.T) {
	put := func(key, value string) *pb.PutRequest { return &pb.PutRequest{Key: []byte(key), Value: []byte(value)} }
	nested := &pb.TxnRequest{Success: ops(opPut("k", "v"), opPut("k", "v")), Failure: ops(opPut("k", "v"))}
	for name, c := range map[string]struct {
		command Command
		want    int64
	}{
		"put":    {Command{Kind: KindPut, Request: put("key", "value")}, 256 + 8},
		"lease":  {Command{Kind: KindLeaseGrant, Request: &pb.LeaseGrantRequest{}}, 64},
		"delete": {Command{Kind: KindDeleteRange, Request: &pb.DeleteRangeRequest{}}, 0},
		"txn":    {Command{Kind: KindTxn, Request: nested}, 2 * 258},
		"nested": {Command{Kind: KindTxn, Request: &pb.TxnRequest{Failure: ops(opTxn(nested), opPut("k", "v"))}}, 3 * 258},
		"reads":  {Command{Kind: KindTxn, Request: &pb.TxnRequest{Success: ops(opDelete("a", "b"))}}, 0},
	} {
		require.Equal(t, c.want, Cost(&c.command), name)
	}
}

func TestDowngrade(t *testing.T) {
	f := newFixture(t)
	enable := &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: "3.6.0"}
	do[*pb.DowngradeResponse](f, KindDowngrade, enable)
	require.Equal(t, "3.6.0", f.m.Downgrade())
	require.ErrorIs(t, f.try(KindDowngrade, enable).Err, ErrDowngrading)
	require.Equal(t, "3.6.0", reload(t, f.m).Downgrade())
	do[*pb.DowngradeResponse](f, KindDowngrade, &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL})
	require.Empty(t, f.m.Downgrade())
	require.ErrorIs(t, f.try(KindDowngrade, &pb.DowngradeRequest{}).Err, ErrCommand)
}

// A fingerprint depends on what is there and not on how it came there, and on all of it.
func TestFingerprint(t *testing.T) {
	build := func(change func(*fixture)) [32]byte {
		f := newFixture(t)
		f.grant(1)
		f.put("a=1", "b=2", "a=3")
		f.putLease("l", 1)
		if change != nil {
			change(f)
		}
		r := do[*pb.HashKVResponse](f, KindFingerprint, &pb.HashKVRequest{Revision: FingerprintVersion})
		got, ok := f.m.Fingerprint(uint64(r.HashRevision))
		require.True(t, ok)
		require.Equal(t, f.index, got.Index)
		return got.Sum
	}
	want := build(nil)
	for name, same := range map[string]func(*fixture){
		"the same":    func(*fixture) {},
		"a restart":   func(f *fixture) { f.m = reload(t, f.m) },
		"a read":      func(f *fixture) { f.try(KindAlarm, &pb.AlarmRequest{}) },
		"no deletion": func(f *fixture) { f.try(KindDeleteRange, &pb.DeleteRangeRequest{Key: []byte("none")}) },
	} {
		require.Equal(t, want, build(same), name)
	}
	other := map[[32]byte]string{want: "nothing"}
	for name, change := range map[string]func(*fixture){
		"a value":       func(f *fixture) { f.m.live.Scan(func(_ string, v *Version) bool { f.flip(v); return false }) },
		"a put":         func(f *fixture) { f.put("a=3") },
		"a delete":      func(f *fixture) { f.delete("b") },
		"a lease":       func(f *fixture) { f.grant(2) },
		"a revocation":  func(f *fixture) { f.try(KindExpireLeases, &ExpireLeases{IDs: []int64{1}}) },
		"a compaction":  func(f *fixture) { f.compact(2) },
		"a role":        func(f *fixture) { f.try(KindRoleAdd, &pb.AuthRoleAddRequest{Name: "r"}) },
		"an alarm":      func(f *fixture) { f.alarm(KindAlarm, pb.AlarmRequest_ACTIVATE, 1, 9) },
		"the same kind": func(f *fixture) { f.alarm(KindRaise, pb.AlarmRequest_ACTIVATE, 1, 9) },
	} {
		got := build(change)
		require.Empty(t, other[got], "%s looks like %s", name, other[got])
		other[got] = name
	}
	f := newFixture(t)
	f.try(KindFingerprint, &pb.HashKVRequest{Revision: FingerprintVersion + 1})
	_, ok := f.m.Fingerprint(f.index)
	require.False(t, ok, "another program's fingerprint is not ours")
	for range 2 * fingerprintsKept {
		f.try(KindFingerprint, &pb.HashKVRequest{Revision: FingerprintVersion})
	}
	require.Len(t, f.m.prints.taken, fingerprintsKept)
}

// flip replaces a live version by one that differs in a bit of the value, as if it had been read wrong.
func (f *fixture) flip(v *Version) {
	wrong := *v
	wrong.Value = []byte{v.Value[0] ^ 1}
	wrong.sum, _ = wrong.checksum(nil)
	f.m.live.Set(v.Key, &wrong)
	f.m.prints.replace(&wrong, v)
}

// A member that is accused may find that it has what the others have.
func TestAcquittal(t *testing.T) {
	f := newFixture(t)
	f.put("a=1")
	f.try(KindFingerprint, &pb.HashKVRequest{Revision: FingerprintVersion})
	print, ok := f.m.Fingerprint(f.index)
	require.True(t, ok)
	require.False(t, f.m.Acquitted(1), "nobody said anything")
	for _, c := range []struct {
		accusation Divergence
		want       bool
	}{
		{Divergence{Member: 1, Index: print.Index, Sum: print.Sum[:]}, true},
		{Divergence{Member: 1, Index: print.Index, Sum: []byte("another")}, false},
		{Divergence{Member: 1, Index: print.Index + 1, Sum: print.Sum[:]}, false},
		{Divergence{Member: 1}, false},
		{Divergence{Member: 2, Index: print.Index, Sum: print.Sum[:]}, false}, // is about somebody else
	} {
		require.Equal(t, "", f.alarm(KindRaise, pb.AlarmRequest_DEACTIVATE, 0, corrupt))
		do[*pb.AlarmResponse](f, KindDivergence, &c.accusation)
		require.Equal(t, c.want, f.m.Acquitted(1), "%+v", c.accusation)
	}
	require.Equal(t, "1:CORRUPT 2:CORRUPT ", f.alarm(KindAlarm, pb.AlarmRequest_GET, 0, 0))
	require.NoError(t, f.try(KindPut, &pb.PutRequest{Key: []byte("a")}).Err, "the others go on")
}

func TestScrub(t *testing.T) {
	f := newFixture(t)
	f.put("a=1", "b=2", "c=3", "d=4")
	view := f.m.View()
	after, steps := "", 0
	for {
		var err error
		after, err = view.Scrub(after, 2)
		require.NoError(t, err)
		steps++
		if after == "" {
			break
		}
	}
	require.Equal(t, 3, steps, "each begins with the last key of the one before")
	f.m.live.Scan(func(_ string, v *Version) bool { v.Value[0] ^= 1; return v.Key != "c" })
	next, err := view.Scrub("d", 0)
	require.NoError(t, err)
	require.Empty(t, next)
	_, err = view.Scrub("c", 1)
	require.ErrorIs(t, err, ErrMemory)
}

// Members of different programs compare their fingerprints: when this one changes, FingerprintVersion has to.
func TestFingerprintStays(t *testing.T) {
	f := newFixture(t)
	f.m = New(config(nil))
	f.grant(1, 2)
	f.put("a=1", "b=2", "a=3")
	f.putLease("l", 1)
	f.delete("b")
	f.compact(4)
	f.alarm(KindAlarm, pb.AlarmRequest_ACTIVATE, 1, 9)
	f.try(KindRoleAdd, &pb.AuthRoleAddRequest{Name: "r"})
	f.try(KindFingerprint, &pb.HashKVRequest{Revision: FingerprintVersion})
	got, ok := f.m.Fingerprint(f.index)
	require.True(t, ok)
	require.Equal(t, 1, FingerprintVersion)
	require.Equal(t, "d4bedfa3341f9a5b", fmt.Sprintf("%x", got.Sum[:8]))
}
