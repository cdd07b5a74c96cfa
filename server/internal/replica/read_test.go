package replica

import (
	"slices"
	"testing"
	"testing/cryptotest"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

func (m *member) readIndex(v any) (uint64, bool) {
	for _, r := range m.reads {
		if slices.Contains(r.Values, v) {
			return r.Index, true
		}
	}
	return 0, false
}

func TestReadOnLeaderAndFollower(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.elect(1)
	for _, m := range c.members {
		n := c.propose(c.at(1), 0)
		c.settle()
		require.NoError(t, m.Read(n))
		c.settle()
		index, ok := m.readIndex(n)
		require.True(t, ok)
		require.GreaterOrEqual(t, index, c.proposals[n].index)
	}
}

// Among three voters a follower's question is the proof that its leader needs,
// unless it was asked in another term. Among five it is not enough.
func TestWhatAFollowersQuestionProves(t *testing.T) {
	for name, tc := range map[string]struct {
		voters        int
		earlier, asks bool
	}{
		"three voters":    {voters: 3},
		"an earlier term": {voters: 3, earlier: true, asks: true},
		"five voters":     {voters: 5, asks: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, tc.voters, Config{})
			c.elect(1)
			c.settle()
			asked := false
			c.lose = func(m *raftpb.Message) bool {
				asked = asked || m.GetType() == raftpb.MsgHeartbeat
				if m.GetType() == raftpb.MsgReadIndex && tc.earlier {
					m.Entries[0].Data[16]--
				}
				return false
			}
			f := c.at(2)
			require.NoError(t, f.Read("r"))
			c.settle()
			_, ok := f.readIndex("r")
			require.True(t, ok)
			require.Equal(t, tc.asks, asked, "whether the leader asked the others")
		})
	}
}

func TestReadsGatherWhileOneIsOnItsWay(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	require.NoError(t, m.Read(0))
	c.work()
	c.wire = nil // lost
	for i := 1; i <= 10; i++ {
		require.NoError(t, m.Read(i))
	}
	c.tick(1)
	require.Len(t, m.reads, 2)
	require.Equal(t, []any{0}, m.reads[0].Values)
	require.Equal(t, []any{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, m.reads[1].Values, "one confirmation for all, in order")
}

func TestLostReadsAreRepeated(t *testing.T) {
	for _, typ := range []raftpb.MessageType{raftpb.MsgReadIndex, raftpb.MsgReadIndexResp} {
		c := newCluster(t, 3, Config{})
		c.elect(1)
		f := c.at(2)
		c.lose = byType(typ)
		require.NoError(t, f.Read("r"))
		c.tick(2)
		require.Empty(t, f.reads)
		c.lose = nil
		c.tick(4) // half an election timeout since the attempt
		require.Len(t, f.reads, 1, typ)
	}
}

// An answer to an attempt that was given up must not count for the reads that are asked for now.
func TestAnswerToAnEarlierAttemptIsIgnored(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.elect(1)
	f := c.at(2)
	var old *raftpb.Message
	c.lose = func(m *raftpb.Message) bool {
		if m.GetType() == raftpb.MsgReadIndexResp {
			old = m
			return true
		}
		return false
	}
	require.NoError(t, f.Read("first"))
	c.settle()
	require.NotNil(t, old)
	c.lose = nil
	c.tick(6)
	require.Len(t, f.reads, 1)
	n := c.propose(c.at(1), 0)
	c.settle()
	require.NoError(t, f.Read("second"))
	c.work()
	require.NoError(t, f.Step(old))
	c.work()
	require.Len(t, f.reads, 1)
	c.settle()
	index, ok := f.readIndex("second")
	require.True(t, ok)
	require.GreaterOrEqual(t, index, c.proposals[n].index)
}

// With a network slower than the time after which an attempt is repeated, reads must still be answered.
func TestSlowAnswersCount(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.elect(1)
	f := c.at(2)
	var slow []*raftpb.Message
	c.lose = func(m *raftpb.Message) bool {
		if m.GetType() == raftpb.MsgReadIndexResp {
			slow = append(slow, m)
			return true
		}
		return false
	}
	require.NoError(t, f.Read("r"))
	c.tick(12)
	require.Len(t, slow, 3, "an attempt every half election timeout")
	require.NoError(t, f.Step(slow[0]))
	c.settle()
	require.Len(t, f.reads, 1)
	require.NoError(t, f.Step(slow[1]))
	c.settle()
	require.Len(t, f.reads, 1)
}

func TestDeposedLeaderConfirmsNothing(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	c.lose = isolate(1)
	// Still a leader in its own eyes, and it must not answer, now or later, from what it knew then.
	require.NoError(t, m.Read("before"))
	c.settle()
	require.Equal(t, Leader, m.Status().Role)
	require.Empty(t, m.reads)
	c.at(2).ForgetLeader()
	c.at(3).ForgetLeader()
	c.at(2).Campaign()
	c.settle()
	n := c.propose(c.at(2), 0)
	c.settle()
	require.Equal(t, 1, c.proposals[n].handed)
	c.tick(5)
	require.NoError(t, m.Read("after"))
	c.tick(5)
	require.Empty(t, m.reads)
	c.lose = nil
	c.tick(10)
	for _, v := range []any{"before", "after"} {
		index, ok := m.readIndex(v)
		require.True(t, ok)
		require.GreaterOrEqual(t, index, c.proposals[n].index)
	}
}

func TestReadsWaitForALeader(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.settle()
	require.NoError(t, c.at(1).Read("r"))
	c.settle()
	require.Empty(t, c.at(1).reads)
	c.elect(2)
	c.tick(1)
	require.Len(t, c.at(1).reads, 1)
}

// A single voter that restarts knows less than it had committed until its first entry is, and must not answer before.
func TestRestartedSingleVoterDoesNotReadThePast(t *testing.T) {
	c := newCluster(t, 1, Config{})
	m := c.elect(1)
	n := c.propose(m, 0)
	c.settle()
	require.Equal(t, 1, c.proposals[n].handed)
	index := c.proposals[n].index
	c.crash(m)
	m.hs.Commit = new(index - 1) // commits are written without a sync
	c.restart(m)
	require.NoError(t, m.Read("r"))
	m.Campaign()
	c.settle()
	got, ok := m.readIndex("r")
	require.True(t, ok)
	require.GreaterOrEqual(t, got, index)
}

// The same for a read that a learner asks a single voter for.
func TestRestartedSingleVoterAndLearner(t *testing.T) {
	c := newCluster(t, 2, Config{})
	m := c.elect(1)
	c.change(m, raftpb.ConfChangeAddLearnerNode, 2) // which was a voter
	c.tick(3)
	m.checkpoint()
	n := c.propose(m, 0)
	c.settle()
	index := c.proposals[n].index
	c.crash(m)
	m.hs.Commit = new(m.base.Index)
	c.restart(m)
	m.holdLog = true
	m.Campaign()
	for range 3 { // the pre-vote and the vote are written, its first entry is not
		c.work()
		if m.Status().Role != Leader {
			c.persist(m, len(m.appends))
		}
	}
	require.Equal(t, Leader, m.Status().Role)
	require.Equal(t, m.base.Index, m.Status().Commit)
	err := m.Step(&raftpb.Message{
		Type: raftpb.MsgReadIndex.Enum(), From: new(uint64(2)), To: new(uint64(1)), Entries: []*raftpb.Entry{{Data: []byte("id")}},
	})
	require.ErrorIs(t, err, ErrRefused)
	m.holdLog = false
	c.persist(m, len(m.appends))
	require.NoError(t, c.at(2).Read("r"))
	c.tick(6)
	got, ok := c.at(2).readIndex("r")
	require.True(t, ok)
	require.GreaterOrEqual(t, got, index)
}

// TestReadsUnderFaults asks for reads all the time and requires that none is answered below a write that was
// acknowledged before it was asked for.
func TestReadsUnderFaults(t *testing.T) {
	answered := 0
	const seeds = 60
	for seed := range uint64(seeds) {
		rng := newRand(seed ^ 0x5eed)
		c := newCluster(t, 3, Config{})
		cryptotest.SetGlobalRandom(t, seed)
		var away uint64
		c.lose = func(m *raftpb.Message) bool {
			return m.GetFrom() == away || m.GetTo() == away || rng.Float64() < 0.05
		}
		floor := make(map[int]uint64) // of each read
		next, seen := 0, 0
		acked := func() (high uint64) {
			for n := 1; n <= c.next; n++ {
				high = max(high, c.proposals[n].index)
			}
			return high
		}
		for range 300 {
			m := c.members[rng.IntN(3)]
			switch rng.IntN(10) {
			case 0, 1:
				c.propose(m, 0)
			case 2, 3:
				next++
				floor[next] = acked()
				require.NoError(t, m.Read(next))
			case 4:
				if rng.IntN(8) == 0 {
					away = uint64(rng.IntN(4))
				}
			case 5:
				if rng.IntN(4) == 0 {
					m.ForgetLeader()
					m.Campaign()
				}
			default:
				for _, m := range c.members {
					m.Tick()
				}
			}
			c.shuffleWire(rng.IntN)
			seen = 0
			for _, m := range c.members {
				for _, r := range m.reads {
					for _, v := range r.Values {
						require.GreaterOrEqual(t, r.Index, floor[v.(int)], "seed %d, read %v", seed, v)
						seen++
					}
				}
			}
		}
		answered += seen
	}
	t.Logf("%d reads answered", answered)
	require.Greater(t, answered, 20*seeds)
}
