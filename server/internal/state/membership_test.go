package state

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func peer(id uint64, url string, learner bool) *MemberChange {
	return &MemberChange{ID: id, PeerURLs: []string{url}, Learner: learner, MaxLearners: 1}
}

// TestMemberChanges goes through what etcd allows and refuses, in its order of checks.
func TestMemberChanges(t *testing.T) {
	f := newFixture(t)
	f.m = New(Config{Members: []Member{{ID: 1, Name: "a", PeerURLs: []string{"u1"}}}})
	for _, step := range []struct {
		kind    Kind
		change  *MemberChange
		err     error
		voters  []uint64
		learner []uint64
	}{
		{KindMemberRemove, peer(1, "", false), ErrLastVoter, []uint64{1}, nil},
		{KindMemberAdd, peer(1, "u9", false), ErrMemberExists, []uint64{1}, nil},
		{KindMemberAdd, peer(2, "u1", false), ErrPeerURLExists, []uint64{1}, nil},
		{KindMemberAdd, peer(2, "u2", true), nil, []uint64{1}, []uint64{2}},
		{KindMemberAdd, peer(3, "u3", true), ErrTooManyLearners, []uint64{1}, []uint64{2}},
		{KindMemberRemove, peer(1, "", false), ErrLastVoter, []uint64{1}, []uint64{2}},
		{KindMemberUpdate, peer(2, "u1", false), ErrPeerURLExists, []uint64{1}, []uint64{2}},
		{KindMemberUpdate, peer(2, "u4", false), nil, []uint64{1}, []uint64{2}}, // which is still a learner: etcd #21736
		{KindMemberUpdate, peer(9, "u5", false), ErrMemberNotFound, []uint64{1}, []uint64{2}},
		{KindMemberPromote, peer(1, "", false), ErrMemberNotLearner, []uint64{1}, []uint64{2}},
		{KindMemberPromote, peer(9, "", false), ErrMemberNotFound, []uint64{1}, []uint64{2}},
		{KindMemberPromote, peer(2, "", false), nil, []uint64{1, 2}, nil},
		{KindMemberRemove, peer(1, "", false), nil, []uint64{2}, nil},
		{KindMemberRemove, peer(1, "", false), ErrMemberRemoved, []uint64{2}, nil},
		{KindMemberUpdate, peer(1, "u5", false), ErrMemberRemoved, []uint64{2}, nil},
		{KindMemberAdd, peer(1, "u1", false), ErrMemberRemoved, []uint64{2}, nil}, // an id is never used again
		{KindMemberAdd, peer(5, "u1", false), nil, []uint64{2, 5}, nil},           // a URL is
		{KindMemberAdd, nil, ErrCommand, []uint64{2, 5}, nil},
		{KindMemberAdd, &MemberChange{}, ErrCommand, []uint64{2, 5}, nil},
		{KindPut, peer(1, "", false), ErrCommand, []uint64{2, 5}, nil},
	} {
		r := f.try(step.kind, step.change)
		require.ErrorIs(t, r.Err, step.err, "%+v", step)
		voters, learners := f.m.Voters()
		require.Equal(t, step.voters, voters, "%+v", step)
		require.Equal(t, step.learner, learners, "%+v", step)
		if step.err == nil {
			require.Len(t, r.Response.(*pb.MemberListResponse).Members, len(voters)+len(learners))
		}
	}
	require.Equal(t, []uint64{1}, f.m.RemovedMembers())
	require.Equal(t, []Member{{ID: 2, PeerURLs: []string{"u4"}}, {ID: 5, PeerURLs: []string{"u1"}}}, f.m.Members())
}

// TestMemberChangesAreChanges brings changes to the checkpoint's form and back, taken in one piece and in two.
func TestMemberChangesAreChanges(t *testing.T) {
	f := newFixture(t)
	base := []Member{{ID: 1, PeerURLs: []string{"u1"}}, {ID: 2, PeerURLs: []string{"u2"}}}
	f.m = New(Config{Members: base})
	do[*pb.MemberListResponse](f, KindMemberAdd, peer(3, "u3", true))
	first := f.m.TakeChanges()
	require.Equal(t, []Member{{ID: 3, PeerURLs: []string{"u3"}, Learner: true}}, first.Members)
	do[*pb.MemberListResponse](f, KindMemberRemove, peer(3, "", false))
	do[*pb.MemberListResponse](f, KindMemberAdd, peer(4, "u3", true))
	do[*pb.MemberListResponse](f, KindMemberPromote, peer(4, "", false))
	second := f.m.TakeChanges()
	require.Equal(t, []uint64{3}, second.RemovedMembers)
	first.Merge(second)
	require.Equal(t, []Member{{ID: 4, PeerURLs: []string{"u3"}}}, first.Members)
	require.Equal(t, []uint64{3}, first.RemovedMembers)

	l := NewLoader(Config{})
	for _, m := range append(base, first.Members...) {
		require.NoError(t, l.Member(m))
	}
	require.Error(t, l.RemovedMember(0))
	require.NoError(t, l.RemovedMember(3))
	again, err := l.Finish(first.Index, first.Term, first.Revision, first.Compact)
	require.NoError(t, err)
	require.NoError(t, again.Check())
	require.Equal(t, f.m.Digest(), again.Digest())
	require.Equal(t, f.m.Dump(), again.Dump())

	forgetful := NewLoader(Config{})
	for _, m := range append(base, first.Members...) {
		require.NoError(t, forgetful.Member(m))
	}
	other, err := forgetful.Finish(first.Index, first.Term, first.Revision, first.Compact)
	require.NoError(t, err)
	require.NotEqual(t, f.m.Digest(), other.Digest(), "the removed ids are part of the state")
}

// A removed member takes the alarm with it that it raised, not the one of an operator.
func TestRemovedMembersAlarms(t *testing.T) {
	f := newFixture(t)
	f.m = New(Config{Members: []Member{{ID: 1}, {ID: 2}, {ID: 3}}})
	for id, kind := range map[uint64]Kind{2: KindRaise, 3: KindAlarm} {
		do[*pb.AlarmResponse](f, kind, &pb.AlarmRequest{
			Action: pb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: pb.AlarmType_NOSPACE,
		})
	}
	do[*pb.MemberListResponse](f, KindMemberRemove, peer(2, "", false))
	do[*pb.MemberListResponse](f, KindMemberRemove, peer(3, "", false))
	require.Equal(t, []Alarm{{Type: pb.AlarmType_NOSPACE, Member: 3}}, f.m.Alarms())
	require.NotNil(t, f.m.TakeChanges().Notices)
}

func TestMemberChangeEncoding(t *testing.T) {
	for _, kind := range []Kind{KindMemberAdd, KindMemberRemove, KindMemberPromote, KindMemberUpdate} {
		want := &MemberChange{ID: 1 << 63, PeerURLs: []string{"a", ""}, Learner: true, MaxLearners: 7}
		b, err := Command{Kind: kind, Request: want}.AppendTo(nil)
		require.NoError(t, err)
		got, err := DecodeCommand(b)
		require.NoError(t, err)
		require.Equal(t, Command{Kind: kind, Request: want}, got)
	}
	_, err := Command{Kind: KindPut, Request: &MemberChange{}}.AppendTo(nil)
	require.ErrorIs(t, err, ErrCommand)
	_, err = DecodeCommand([]byte{byte(KindMemberReset)})
	require.ErrorIs(t, err, ErrCommand, "never in a log")
}

// TestMemberReset leaves one voter of a lost cluster, and remembers the others' ids.
func TestMemberReset(t *testing.T) {
	f := newFixture(t)
	f.m = New(Config{Members: []Member{{ID: 1}, {ID: 2, Learner: true, PeerURLs: []string{"u"}}, {ID: 3}}})
	do[*pb.MemberListResponse](f, KindMemberReset, &MemberChange{ID: 2})
	require.Equal(t, []Member{{ID: 2, PeerURLs: []string{"u"}}}, f.m.Members())
	require.Equal(t, []uint64{1, 3}, f.m.RemovedMembers())
}
