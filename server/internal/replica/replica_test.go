package replica

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func TestSingleVoter(t *testing.T) {
	c := newCluster(t, 1, Config{})
	m := c.elect(1)
	n := c.propose(m, 0)
	require.NoError(t, m.Read("r"))
	c.settle()
	require.Equal(t, []int{n}, m.commands())
	require.Len(t, m.reads, 1)
	c.checkFates()
}

func TestThreeVotersPut(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(2)
	n := c.propose(m, 0)
	c.settle()
	c.tick(2)
	for _, m := range c.members {
		require.Equal(t, []int{n}, m.commands())
	}
	require.Equal(t, 1, c.proposals[n].handed)
	s := m.Status()
	require.Equal(t, uint64(2), s.Leader)
	require.Equal(t, s.LastIndex, s.Commit)
	require.Equal(t, s.Commit, s.Applied)
	require.Len(t, s.Peers, 2)
	require.Equal(t, s.Commit, s.Peers[0].Match)
	require.True(t, s.Peers[1].RecentActive)
}

// A follower must not need a sync to learn that something was committed.
func TestSyncsPerWrite(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	before := [3]int{c.at(1).syncs, c.at(2).syncs, c.at(3).syncs}
	for range 5 {
		c.propose(m, 0)
		c.settle()
	}
	for i, m := range c.members {
		require.Equal(t, 5, m.syncs-before[i], "member %d", m.id)
	}
}

// A vote or a term that was written without a sync makes the next append that answers somebody sync, even when that
// one changes nothing but the commit index.
func TestUnsyncedTermIsSyncedBeforeAnswers(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.elect(1)
	m := c.at(2)
	term := m.Status().Term + 5
	// A heartbeat of a later term changes the term, and its answer does not wait.
	require.NoError(t, m.Step(&raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(3)), To: new(uint64(2)), Term: new(term), Commit: new(uint64(1)),
	}))
	w, ok := m.Work()
	require.True(t, ok)
	require.Equal(t, term, w.Append.HardState.GetTerm())
	require.False(t, w.Append.Sync)
	m.Appended(w.Append)
	last := m.Status().LastIndex
	lastTerm, err := m.Replica.log.Term(last)
	require.NoError(t, err)
	// An empty append: its acknowledgement promises that the term is known here.
	require.NoError(t, m.Step(&raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: new(uint64(3)), To: new(uint64(2)), Term: new(term),
		Index: new(last), LogTerm: new(lastTerm), Commit: new(last),
	}))
	w, ok = m.Work()
	require.True(t, ok)
	require.Empty(t, w.Append.Entries)
	require.True(t, w.Append.Sync)
	require.Empty(t, w.Send, "the acknowledgement waits for the sync")
	m.Appended(w.Append)
	w, ok = m.Work()
	require.True(t, ok)
	require.Equal(t, raftpb.MsgAppResp, w.Send[0].GetType())
}

func TestLeadersMessagesDoNotWaitForItsLog(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	m.holdLog = true
	c.propose(m, 0)
	c.settle()
	require.Len(t, c.at(2).log, 2, "the follower has the entry before the leader's log has")
	require.Empty(t, m.commands(), "and the leader applies only what its own log has")
	m.holdLog = false
	c.persist(m, len(m.appends))
	c.settle()
	require.Len(t, m.commands(), 1)
}

func TestFollowerHoldsAnswersUntilDurable(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	c.at(2).holdLog, c.at(3).holdLog = true, true
	c.propose(m, 0)
	c.settle()
	require.Empty(t, m.commands())
	c.at(3).holdLog = false
	c.persist(c.at(3), len(c.at(3).appends))
	c.settle()
	require.Len(t, m.commands(), 1)
}

func TestAcknowledgementsAreJoined(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	f := c.at(2)
	f.holdLog = true
	for range 4 {
		c.propose(m, 0)
		c.settle()
	}
	require.Greater(t, len(f.appends), 3)
	f.holdLog = false
	last := f.Status().LastIndex
	c.persist(f, len(f.appends))
	w, ok := f.Work()
	require.True(t, ok)
	require.Len(t, w.Send, 1)
	require.Equal(t, last, w.Send[0].GetIndex())
}

func TestRejectionsAreNotJoined(t *testing.T) {
	r := &Replica{}
	ack := func(to, term, index uint64, reject bool) *raftpb.Message {
		return &raftpb.Message{Type: raftpb.MsgAppResp.Enum(), To: new(to), Term: new(term), Index: new(index), Reject: new(reject)}
	}
	for _, m := range []*raftpb.Message{
		ack(2, 5, 10, false), ack(3, 5, 10, false), ack(2, 5, 11, false), ack(2, 5, 14, true), ack(2, 5, 15, true),
		ack(2, 5, 12, false), ack(2, 5, 9, false), ack(2, 6, 13, false),
	} {
		r.answer(m)
	}
	var got [][3]uint64
	for _, m := range r.outbox {
		got = append(got, [3]uint64{m.GetTo(), m.GetTerm(), m.GetIndex()})
	}
	require.Equal(t, [][3]uint64{{2, 5, 11}, {3, 5, 10}, {2, 5, 14}, {2, 5, 15}, {2, 5, 12}, {2, 6, 13}}, got)
}

func TestAcknowledgingOutOfOrderPanics(t *testing.T) {
	c := newCluster(t, 1, Config{})
	m := c.at(1)
	m.holdLog = true
	m.Campaign()
	c.settle()
	require.NotEmpty(t, m.appends)
	require.Panics(t, func() { m.Appended(&Append{number: 7}) })
	require.Panics(t, func() { m.Applied(&Apply{number: 7}) })
}

func TestStepRefuses(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.elect(1)
	m := c.at(2)
	last := m.Status().LastIndex
	for name, msg := range map[string]*raftpb.Message{
		"local":          {Type: raftpb.MsgHup.Enum(), From: new(uint64(1)), To: new(uint64(2))},
		"forged storage": {Type: raftpb.MsgStorageAppendResp.Enum(), From: new(^uint64(0)), To: new(uint64(2)), Index: new(last)},
		"from itself":    {Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(2)), Term: new(uint64(9))},
		"to another":     {Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(1)), To: new(uint64(3)), Term: new(uint64(9))},
		"proposal":       {Type: raftpb.MsgProp.Enum(), From: new(uint64(3)), To: new(uint64(2)), Entries: []*raftpb.Entry{{}}},
		"read":           {Type: raftpb.MsgReadIndex.Enum(), From: new(uint64(3)), To: new(uint64(2)), Entries: []*raftpb.Entry{{}}},
	} {
		before := m.Status()
		require.ErrorIs(t, m.Step(msg), ErrRefused, name)
		require.Equal(t, before, m.Status(), name)
	}
	leader := c.at(1)
	for name, entries := range map[string][]*raftpb.Entry{
		"no entry":  nil,
		"two":       {{}, {}},
		"no batch":  {{Data: []byte("x")}},
		"empty":     {{}},
		"old term":  {{Data: EncodeBatch(Batch{Origin: 9, Sequence: 1, Term: leader.Status().Term - 1})}},
		"next term": {{Data: EncodeBatch(Batch{Origin: 9, Sequence: 1, Term: leader.Status().Term + 1})}},
		"cut":       {{Data: EncodeBatch(Batch{Origin: 9, Sequence: 1, Term: leader.Status().Term, Commands: [][]byte{{1, 2}}})[:14]}},
	} {
		err := leader.Step(&raftpb.Message{
			Type: raftpb.MsgProp.Enum(), From: new(uint64(3)), To: new(uint64(1)), Entries: entries,
		})
		require.ErrorIs(t, err, ErrRefused, name)
	}
}

func TestSnapshotToFollowerBehindTheLog(t *testing.T) {
	c := newCluster(t, 3, Config{MaxLogBytes: 1})
	m := c.elect(1)
	c.lose = isolate(3)
	var last int
	for range 20 {
		last = c.propose(m, 100)
		c.settle()
	}
	m.checkpoint()
	require.Empty(t, m.Replica.log.live(), "all is in the checkpoint")
	after := c.propose(m, 100)
	c.settle()
	c.lose = nil
	c.tick(5)
	f := c.at(3)
	require.Equal(t, m.base.Index, f.base.Index, "the checkpoint was installed")
	require.Equal(t, []int{after}, f.commands(), "and the log goes on behind it")
	require.Less(t, last, after)
	require.True(t, proto.Equal(m.base.ConfState, f.confs))
	c.propose(f, 0)
	c.tick(2)
	c.checkLogs()
	c.restart(f)
	c.tick(30)
	require.Equal(t, m.Status().Commit, f.Status().Applied)
}

func TestLogIsKeptForFollowersWithinItsBudget(t *testing.T) {
	const budget = 10_000
	c := newCluster(t, 3, Config{MaxLogBytes: budget})
	m := c.elect(1)
	for range 200 {
		c.propose(m, 400)
		c.settle()
	}
	require.Greater(t, m.Status().LogBytes, 200*400, "nothing is dropped without a checkpoint")
	m.checkpoint()
	require.LessOrEqual(t, m.Status().LogBytes, budget)
	require.Greater(t, m.Status().LogBytes, budget-1000)
	// A follower a little behind catches up from memory.
	c.lose = isolate(3)
	for range 10 {
		c.propose(m, 400)
		c.settle()
	}
	m.checkpoint()
	base := c.at(3).base.Index
	c.lose = nil
	c.tick(4)
	c.checkLogs()
	require.Equal(t, base, c.at(3).base.Index)
	m.Checkpointed(Snapshot{Index: 2}) // older: ignored
	s, err := m.Replica.log.Snapshot()
	require.NoError(t, err)
	require.Equal(t, m.base.Index, s.GetMetadata().GetIndex())
}

// Raft scans committed entries that were not acknowledged as applied, so they stay even if a checkpoint has them.
func TestLogKeepsWhatRaftHasNotSeenApplied(t *testing.T) {
	c := newCluster(t, 3, Config{MaxLogBytes: 1})
	m := c.elect(1)
	m.holdMach = true
	for range 5 {
		c.propose(m, 100)
		c.settle()
	}
	status := m.Status()
	term, err := m.Replica.log.Term(status.Commit)
	require.NoError(t, err)
	m.Checkpointed(Snapshot{Index: status.Commit, Term: term, ConfState: m.confs})
	require.Less(t, m.Replica.log.baseIndex, status.Commit)
	c.elect(2)
	c.elect(1)
	m.holdMach = false
	c.apply(m, len(m.applies))
	require.Equal(t, status.Commit, m.Replica.log.baseIndex)
}

func TestRestart(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	var want []int
	for range 10 {
		want = append(want, c.propose(m, 0))
		c.settle()
	}
	term := m.Status().Term
	m.checkpoint()
	want = append(want[:0], c.propose(m, 0))
	c.settle()
	for _, m := range c.members {
		c.crash(m)
	}
	c.wire = nil
	for _, m := range c.members {
		c.restart(m)
		require.Equal(t, term, m.Status().Term)
		require.Equal(t, uint64(0), m.Status().Leader)
	}
	c.tick(40)
	require.Equal(t, want, c.at(1).commands(), "what is above the checkpoint is handed out again")
	require.Len(t, c.at(2).commands(), 11)
	for _, e := range append(c.at(1).applied, c.at(2).applied...) {
		require.Nil(t, e.Proposals, "an earlier start proposed it")
	}
}

func TestRecoveredIsChecked(t *testing.T) {
	conf := &raftpb.ConfState{Voters: []uint64{1}, AutoLeave: new(false)}
	entry := func(index, term uint64) *raftpb.Entry { return &raftpb.Entry{Index: new(index), Term: new(term)} }
	good := func() Config {
		return Config{
			ID: 1, Origin: 1, ElectionTicks: 10, HeartbeatTicks: 1, Applied: 6,
			Log: Recovered{
				Snapshot: Snapshot{Index: 6, Term: 2, ConfState: conf}, BaseIndex: 4, BaseTerm: 2,
				Entries:   []*raftpb.Entry{entry(5, 2), entry(6, 2), entry(7, 3)},
				HardState: &raftpb.HardState{Term: new(uint64(3)), Vote: new(uint64(1)), Commit: new(uint64(5))},
			},
		}
	}
	r, err := New(good())
	require.NoError(t, err)
	require.Equal(t, uint64(6), r.Status().Commit, "applied implies committed")
	for name, spoil := range map[string]func(c *Config){
		"no members":           func(c *Config) { c.Log.Snapshot.ConfState = nil },
		"gap":                  func(c *Config) { c.Log.Entries[1] = entry(7, 2) },
		"falling term":         func(c *Config) { c.Log.Entries[2] = entry(7, 1) },
		"ends below applied":   func(c *Config) { c.Log.Entries = c.Log.Entries[:1] },
		"starts above applied": func(c *Config) { c.Log.BaseIndex, c.Log.Entries = 7, nil },
		"commit above the end": func(c *Config) { c.Log.HardState.Commit = new(uint64(8)) },
		"other checkpoint":     func(c *Config) { c.Applied = 7 },
		"conflicting term":     func(c *Config) { c.Log.Snapshot.Term = 1 },
		"no id":                func(c *Config) { c.ID = 0 },
		"no origin":            func(c *Config) { c.Origin = 0 },
		"no heartbeat":         func(c *Config) { c.HeartbeatTicks = 0 },
		"short election":       func(c *Config) { c.ElectionTicks = 1 },
		"negative":             func(c *Config) { c.MaxQueued = -1 },
	} {
		c := good()
		spoil(&c)
		_, err := New(c)
		require.Error(t, err, name)
	}
	// A log that starts behind a checkpoint somebody made, before any term was written.
	c := good()
	c.Log.HardState, c.Log.Entries, c.Log.BaseIndex = nil, nil, 6
	r, err = New(c)
	require.NoError(t, err)
	require.Equal(t, uint64(2), r.Status().Term)
}

func TestTransferLeader(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	c.lose = byType(raftpb.MsgTimeoutNow)
	m.TransferLeader(2)
	require.Equal(t, uint64(2), m.Status().Transferee)
	n := c.propose(m, 0)
	c.settle()
	require.Equal(t, 1, m.Status().Queued, "proposals wait while the office is handed over")
	c.lose = nil
	m.TransferLeader(3)
	c.settle()
	require.Equal(t, uint64(3), m.Status().Leader)
	c.tick(1)
	require.Equal(t, 1, c.proposals[n].handed)
	c.checkFates()
}

func TestTransferLeaderThroughAFollower(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.elect(1)
	c.at(2).TransferLeader(3)
	c.settle()
	c.tick(1)
	require.Equal(t, Leader, c.at(3).Status().Role)
}

// What a Work hands out must not change under the hands of its owner.
func TestWorkIsNotReused(t *testing.T) {
	c := newCluster(t, 3, Config{MaxLogBytes: 1})
	m := c.elect(1)
	f := c.at(2)
	var seen []*raftpb.Entry
	var copies []proto.Message
	f.holdLog = true
	for i := range 40 {
		c.propose(m, 50)
		c.settle()
		for _, a := range f.appends {
			for _, e := range a.Entries {
				seen = append(seen, e)
				copies = append(copies, proto.Clone(e))
			}
		}
		c.persist(f, len(f.appends))
		if i%7 == 0 && len(f.applied) > 0 {
			f.checkpoint()
		}
	}
	require.Greater(t, len(seen), 30)
	for i := range seen {
		require.True(t, proto.Equal(seen[i], copies[i]))
	}
}
