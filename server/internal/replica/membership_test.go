package replica

import (
	"testing"
	"testing/cryptotest"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	addVoter   = raftpb.ConfChangeAddNode
	addLearner = raftpb.ConfChangeAddLearnerNode
	remove     = raftpb.ConfChangeRemoveNode
)

func TestChangeOfMembers(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	n := c.change(m, remove, 3)
	c.tick(2)
	for _, m := range c.members[:2] {
		require.Equal(t, []uint64{1, 2}, m.confs.GetVoters())
		last := m.applied[len(m.applied)-1]
		require.Equal(t, uint64(3), last.ConfChange.GetNodeId())
		require.Equal(t, []int{n}, m.commands())
	}
	c.change(c.at(2), addLearner, 3) // through the leader
	c.tick(5)
	require.Equal(t, []uint64{3}, m.confs.GetLearners())
	require.True(t, m.Status().Peers[1].Learner)
	// A leader that removes itself steps down.
	c.change(m, remove, 1)
	c.tick(1)
	require.NotEqual(t, Leader, m.Status().Role)
	c.checkFates()
}

// Changes that are proposed at once, by the leader and by others, all happen, one after the other.
func TestChangesWaitForEachOther(t *testing.T) {
	c := newCluster(t, 5, Config{})
	m := c.elect(1)
	m.holdMach = true
	first := c.change(m, remove, 5)
	second := c.change(m, remove, 4)
	third := c.change(c.at(2), addLearner, 4)
	c.tick(25)
	require.Equal(t, 1, c.proposals[first].handed)
	require.Zero(t, c.proposals[second].handed+c.proposals[third].handed, "the leader has not applied the first")
	m.holdMach = false
	c.apply(m, len(m.applies))
	c.tick(60)
	require.Equal(t, []uint64{1, 2, 3}, m.confs.GetVoters())
	require.Equal(t, 1, c.proposals[second].handed)
	require.Equal(t, 1, c.proposals[third].handed+c.proposals[third].retry)
	c.proposals[third].retry = 0
	for _, e := range m.applied {
		require.False(t, e.ConfChange == nil && e.Commands == nil && e.Index > 2, "raft turned a change into nothing at %d", e.Index)
	}
}

func TestNewLeaderFirstAppliesItsLog(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.at(1).holdMach = true
	m := c.elect(1)
	n := c.change(m, remove, 3)
	c.tick(3)
	require.Zero(t, c.proposals[n].handed)
	m.holdMach = false
	c.apply(m, len(m.applies))
	c.tick(1)
	require.Equal(t, 1, c.proposals[n].handed)
}

// What the state machine refuses, raft does not carry out; and the next change is not held up by it.
func TestRefusedChange(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.refuse = func(e Entry) bool { return e.ConfChange.GetNodeId() == 3 }
	m := c.elect(1)
	c.change(m, remove, 3)
	c.change(m, remove, 2)
	c.tick(3)
	require.Equal(t, []uint64{1, 3}, m.confs.GetVoters())
	c.checkFates()
}

// A change of an earlier term counts for nothing, as any batch, and comes back.
func TestChangeIsBoundToItsTerm(t *testing.T) {
	batch := EncodeBatch(Batch{Origin: 9, Sequence: 1, Term: 3, Commands: [][]byte{[]byte("x")}})
	entry := func(term uint64, context []byte) *raftpb.Entry {
		data, err := proto.Marshal(&raftpb.ConfChange{Type: remove.Enum(), NodeId: new(uint64(3)), Context: context})
		require.NoError(t, err)
		return &raftpb.Entry{Index: new(uint64(7)), Term: &term, Type: raftpb.EntryConfChange.Enum(), Data: data}
	}
	for _, c := range []struct {
		entry   *raftpb.Entry
		refused bool
	}{{entry(3, batch), false}, {entry(4, batch), true}, {entry(3, nil), true}, {entry(3, []byte("junk")), true}} {
		e, err := Decode(c.entry)
		require.NoError(t, err)
		require.NotNil(t, e.ConfChange)
		require.Equal(t, c.refused, e.Refused)
		require.Equal(t, !c.refused, e.Commands != nil)
	}

	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	c.lose = isolate(1)
	n := c.change(m, remove, 3)
	c.settle()
	c.at(2).ForgetLeader()
	c.at(3).ForgetLeader()
	c.at(2).Campaign()
	c.settle()
	c.lose = nil
	c.tick(30)
	require.Equal(t, 1, c.proposals[n].retry)
	require.Zero(t, c.proposals[n].handed)
	require.Len(t, c.at(2).confs.GetVoters(), 3)
}

// A leader refuses what no member makes.
func TestLeaderRefusesMalformedChanges(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	term := m.Status().Term
	good := EncodeBatch(Batch{Origin: 9, Sequence: 1, Term: term, Commands: [][]byte{[]byte("x")}})
	for name, cc := range map[string]*raftpb.ConfChange{
		"no batch":  {Type: remove.Enum(), NodeId: new(uint64(3))},
		"no member": {Type: remove.Enum(), Context: good},
		"no type":   {Type: raftpb.ConfChangeType(9).Enum(), NodeId: new(uint64(3)), Context: good},
	} {
		data, err := proto.Marshal(cc)
		require.NoError(t, err)
		for _, data := range [][]byte{data, {0xff}} {
			err = m.Step(&raftpb.Message{
				Type: raftpb.MsgProp.Enum(), From: new(uint64(2)), To: new(uint64(1)),
				Entries: []*raftpb.Entry{{Type: raftpb.EntryConfChange.Enum(), Data: data}},
			})
			require.ErrorIs(t, err, ErrRefused, name)
		}
	}
}

// A learner does not campaign, and its question for a read index proves nothing by itself.
func TestLearnerDoesNotCount(t *testing.T) {
	c := newCluster(t, 4, Config{})
	m := c.elect(1)
	c.change(m, addLearner, 4)
	c.tick(3)
	c.at(4).ForgetLeader()
	c.at(4).Campaign()
	c.settle()
	require.Equal(t, Leader, m.Status().Role)
	c.lose = func(m *raftpb.Message) bool { return m.GetFrom() == 2 || m.GetFrom() == 3 }
	require.NoError(t, c.at(4).Read("learner"))
	c.settle()
	_, ok := c.at(4).readIndex("learner")
	require.False(t, ok, "leader and learner are no majority")
	c.lose = func(m *raftpb.Message) bool { return m.GetFrom() == 2 }
	require.NoError(t, c.at(3).Read("voter"))
	c.settle()
	_, ok = c.at(3).readIndex("voter")
	require.True(t, ok)
	_, learners := m.Configuration()
	require.Equal(t, []uint64{4}, learners)
}

// A member that takes a checkpoint while it still has older changes to apply ends with the checkpoint's members.
func TestCheckpointOvertakesChanges(t *testing.T) {
	c := newCluster(t, 4, Config{MaxLogBytes: 1})
	m := c.elect(1)
	f := c.at(3)
	f.holdMach = true
	c.change(m, addLearner, 4) // raft counts it as a learner, here and after the next as nothing
	c.tick(3)
	require.NotEmpty(t, f.applies)
	c.lose = isolate(3)
	c.change(m, remove, 4)
	c.tick(2)
	for range 5 {
		c.propose(m, 100)
		c.tick(1)
	}
	m.checkpoint()
	c.propose(m, 100)
	c.tick(1)
	c.lose = nil
	for i := 0; i < 50 && f.base.Index == 1; i++ {
		c.tick(1)
	}
	require.Greater(t, f.base.Index, uint64(1), "no checkpoint was installed")
	f.holdMach = false
	c.apply(f, len(f.applies))
	c.tick(5)
	voters, learners := f.Configuration()
	require.Equal(t, []uint64{1, 2, 3}, voters)
	require.Empty(t, learners)
}

// TestChangesUnderFaults changes members at random while members are cut off, and requires that all agree in the end.
func TestChangesUnderFaults(t *testing.T) {
	changed := 0
	for seed := range uint64(40) {
		rng := newRand(seed ^ 0xc0f)
		c := newCluster(t, 5, Config{})
		cryptotest.SetGlobalRandom(t, seed)
		var away uint64
		c.lose = func(m *raftpb.Message) bool {
			return m.GetFrom() == away || m.GetTo() == away || rng.Float64() < 0.05
		}
		for range 250 {
			m := c.members[rng.IntN(5)]
			switch rng.IntN(8) {
			case 0:
				c.propose(m, 0)
			case 1: // 4 and 5 come and go, so that a majority of all is one of each configuration
				typ := []raftpb.ConfChangeType{addVoter, addLearner, remove}[rng.IntN(3)]
				c.change(m, typ, 4+rng.Uint64N(2))
			case 2:
				if rng.IntN(8) == 0 {
					away = rng.Uint64N(5)
				}
			case 3:
				if rng.IntN(4) == 0 {
					m.ForgetLeader()
					m.Campaign()
				}
			case 4:
				m.holdMach = !m.holdMach
				if !m.holdMach {
					c.apply(m, len(m.applies))
				}
			default:
				for _, m := range c.members {
					m.Tick()
				}
			}
			c.shuffleWire(rng.IntN)
		}
		c.lose = nil
		for _, m := range c.members {
			m.holdMach = false
			c.apply(m, len(m.applies))
		}
		c.tick(100)
		for _, m := range c.members[1:3] {
			require.Equal(t, c.at(1).commands(), m.commands(), "seed %d", seed)
			require.True(t, proto.Equal(c.at(1).confs, m.confs), "seed %d: %v and %v", seed, c.at(1).confs, m.confs)
		}
		for _, e := range c.at(1).applied {
			if e.ConfChange != nil && !e.Refused {
				changed++
			}
		}
	}
	t.Logf("%d changes", changed)
	require.Greater(t, changed, 200)
}
