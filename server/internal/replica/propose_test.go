package replica

import (
	"fmt"
	"testing"
	"testing/cryptotest"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

func TestPacking(t *testing.T) {
	c := newCluster(t, 3, Config{MaxBatchesInFlight: 1})
	m := c.elect(1)
	first := c.propose(m, 0)
	c.work() // leaves at once
	require.Len(t, m.pending, 1)
	for range 64 {
		c.propose(m, 0)
	}
	c.settle()
	require.Len(t, m.commands(), 65)
	index := c.proposals[first].index
	for n := 2; n <= 65; n++ {
		require.Equal(t, index+1, c.proposals[n].index, "all that waited is one entry")
	}
	c.checkFates()
}

func TestPackingSplits(t *testing.T) {
	c := newCluster(t, 1, Config{MaxEntryBytes: 1000, MaxBatchesInFlight: 1})
	m := c.elect(1)
	base := len(m.applied)
	m.holdLog = true
	c.propose(m, 10)
	c.work()
	m.holdLog = false
	var sizes []int
	for _, size := range []int{300, 300, 300, 300, 5000, 10, 10} {
		c.propose(m, size)
	}
	c.persist(m, 1)
	c.settle()
	for _, e := range m.applied[base:] {
		sizes = append(sizes, len(e.Commands))
	}
	require.Equal(t, []int{1, 3, 1, 1, 2}, sizes, "split above the bound, and the large one alone")
	c.checkFates()
}

func TestInFlightIsBounded(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	c.lose = isolate(1)
	for range 10 {
		c.propose(m, 0)
		c.settle()
	}
	require.Equal(t, 2, m.Status().Pending)
	require.Equal(t, 8, m.Status().Queued)
}

func TestQueueBounds(t *testing.T) {
	c := newCluster(t, 3, Config{MaxQueued: 3, MaxQueueBytes: 100})
	m := c.at(1)
	put := func(n int) error {
		err := m.Propose(&Proposal{Data: make([]byte, n), Value: -1})
		c.proposals[-1] = &fate{origin: 1, start: 1}
		return err
	}
	require.NoError(t, put(10))
	require.ErrorIs(t, put(91), ErrQueueFull)
	require.NoError(t, put(90))
	require.NoError(t, put(0))
	require.ErrorIs(t, put(0), ErrQueueFull)
	for i := range 3 {
		require.NoError(t, m.Read(i))
	}
	require.ErrorIs(t, m.Read(3), ErrQueueFull)
	m = c.elect(1)
	require.Zero(t, m.Status().Queued)
	require.NoError(t, put(100))
	require.NoError(t, m.Read(4))
}

func TestProposalsWaitForALeader(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.settle()
	n := c.propose(c.at(3), 0)
	c.settle()
	require.Equal(t, 1, c.at(3).Status().Queued)
	c.elect(1)
	require.Equal(t, 1, c.proposals[n].handed)
	c.tick(1)
	c.checkFates()
	c.checkLogs()
}

func TestFollowerProposes(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.elect(1)
	for range 5 {
		c.propose(c.at(2), 0)
		c.propose(c.at(3), 0)
	}
	c.settle()
	c.tick(1)
	require.Len(t, c.at(1).commands(), 10)
	c.checkFates()
	c.checkLogs()
}

func TestLostForwardedProposalsAreRepeated(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.elect(1)
	term := c.at(1).Status().Term
	c.lose = byType(raftpb.MsgProp)
	for range 3 {
		c.propose(c.at(2), 0)
		c.settle()
	}
	c.tick(9)
	require.Equal(t, 2, c.at(2).Status().Pending)
	c.lose = nil
	c.tick(3)
	require.Equal(t, term, c.at(1).Status().Term)
	require.Len(t, c.at(2).commands(), 3)
	c.checkFates()
}

// The leader appends a batch once however often it arrives, and none that is overtaken.
func TestRepeatedAndReorderedBatches(t *testing.T) {
	c := newCluster(t, 3, Config{})
	c.elect(1)
	f := c.at(2)
	var sent []*raftpb.Message
	c.lose = func(m *raftpb.Message) bool {
		if m.GetType() == raftpb.MsgProp {
			sent = append(sent, m)
			return true
		}
		return false
	}
	for range 2 {
		c.propose(f, 0)
		c.settle()
	}
	require.Len(t, sent, 2)
	c.lose = nil
	step := func(m *raftpb.Message) error { return c.at(1).Step(m) }
	require.NoError(t, step(sent[1]))
	require.ErrorIs(t, step(sent[1]), ErrRefused)
	require.ErrorIs(t, step(sent[0]), ErrRefused)
	c.settle()
	c.tick(1)
	require.Equal(t, []int{2}, f.commands())
	require.Equal(t, fate{origin: 2, start: 1, retry: 1}, *c.proposals[1])
	// In the next term both are dead, whoever leads.
	c.elect(3)
	sent[0].To, sent[1].To = new(uint64(3)), new(uint64(3))
	require.ErrorIs(t, c.at(3).Step(sent[0]), ErrRefused)
	require.ErrorIs(t, c.at(3).Step(sent[1]), ErrRefused)
	c.checkFates()
}

// A leader remembers a bounded number of origins, and forgets the oldest first.
func TestOfficeIsBounded(t *testing.T) {
	o := office{last: make(map[uint64]uint64)}
	for origin := uint64(1); origin <= maxOrigins+10; origin++ {
		for sequence := uint64(1); sequence <= 2; sequence++ {
			o.appended(&raftpb.Message{Entries: []*raftpb.Entry{
				{Data: EncodeBatch(Batch{Origin: origin, Sequence: sequence, Term: 1})},
			}})
		}
	}
	require.Len(t, o.last, maxOrigins)
	require.Len(t, o.order, maxOrigins)
	require.NotContains(t, o.last, uint64(10))
	require.Equal(t, uint64(2), o.last[11])
}

func TestLeaderChangeWithBatchesInFlight(t *testing.T) {
	for _, reached := range []bool{false, true} {
		t.Run(fmt.Sprintf("reached=%v", reached), func(t *testing.T) {
			c := newCluster(t, 3, Config{})
			m := c.elect(1)
			// The two batches reach member 2 or nobody; nothing reaches the leader.
			c.lose = func(m *raftpb.Message) bool {
				return m.GetTo() == 1 || m.GetFrom() == 1 && (m.GetTo() == 3 || !reached)
			}
			for range 4 {
				c.propose(m, 0)
				c.settle()
			}
			require.Equal(t, 2, m.Status().Pending)
			require.Zero(t, c.proposals[1].handed+c.proposals[1].retry)
			c.at(2).ForgetLeader()
			c.at(3).ForgetLeader()
			c.at(2).Campaign()
			c.settle()
			require.Equal(t, Leader, c.at(2).Status().Role)
			c.lose = nil
			c.tick(5)
			for n := 1; n <= 2; n++ {
				require.Equal(t, reached, c.proposals[n].handed == 1, "proposal %d", n)
				require.Equal(t, !reached, c.proposals[n].retry == 1, "proposal %d", n)
			}
			for n := 3; n <= 4; n++ { // queued: they flow to the new leader
				require.Equal(t, 1, c.proposals[n].handed)
			}
			c.checkFates()
			c.checkLogs()
		})
	}
}

// A batch in an entry of another term is nothing, on every member, whoever put it there.
func TestStaleBatchAppliesAsNothing(t *testing.T) {
	c := newCluster(t, 3, Config{})
	m := c.elect(1)
	term := m.Status().Term
	for _, stale := range []uint64{term - 1, term + 1} {
		require.NoError(t, m.node.Propose(EncodeBatch(Batch{
			Origin: 77, Sequence: 1, Term: stale, Commands: [][]byte{[]byte("9 ")},
		})))
	}
	require.NoError(t, m.node.Propose(EncodeBatch(Batch{
		Origin: 77, Sequence: 2, Term: term, Commands: [][]byte{[]byte("7 ")},
	})))
	c.settle()
	c.tick(1)
	for _, m := range c.members {
		require.Equal(t, []int{7}, m.commands())
		n := len(m.applied)
		require.Nil(t, m.applied[n-2].Commands)
		require.Nil(t, m.applied[n-3].Commands)
		require.Nil(t, m.applied[n-1].Proposals)
	}
}

// What a leader decided in its term does not reach the log in another, even if it waited in the queue all the time.
func TestProposalForOneTerm(t *testing.T) {
	c := newCluster(t, 3, Config{MaxBatchesInFlight: 1})
	m := c.elect(1)
	put := func(term uint64) { c.proposeFor(m, term) }
	term := m.Status().Term
	put(term)
	put(term + 1) // wrong at once
	c.settle()
	require.Equal(t, 1, c.proposals[1].handed)
	require.Equal(t, 1, c.proposals[2].retry)
	c.lose = isolate(1)
	put(term) // in flight, to nobody
	c.work()
	put(0)
	put(term)
	c.settle()
	require.Equal(t, 2, m.Status().Queued)
	c.at(2).ForgetLeader()
	c.at(3).ForgetLeader()
	c.at(2).Campaign()
	c.settle()
	c.lose = nil
	c.tick(5)
	require.Equal(t, []int{1, 4}, m.commands())
	require.Equal(t, 1, c.proposals[5].retry)
	c.checkFates()
	c.checkLogs()
}

// A member that gets a checkpoint instead of the entries can not know what became of its batches.
func TestCheckpointHidesOutcomes(t *testing.T) {
	t.Run("of earlier terms", func(t *testing.T) {
		c := newCluster(t, 3, Config{MaxLogBytes: 1})
		f := c.elect(3)
		c.lose = func(m *raftpb.Message) bool { return m.GetTo() == 3 } // its batch gets out, no answer comes
		hidden := c.propose(f, 0)
		c.settle()
		c.lose = isolate(3)
		m := c.elect12()
		require.Equal(t, []int{hidden}, m.commands())
		m.checkpoint()
		c.lose = nil
		c.tick(3)
		require.Equal(t, m.base.Index, f.base.Index)
		require.Equal(t, fate{origin: 3, start: 1, unknown: 1}, *c.proposals[hidden])
	})
	t.Run("of its term", func(t *testing.T) {
		c := newCluster(t, 3, Config{MaxLogBytes: 1})
		m, f := c.elect(1), c.at(3)
		c.lose = func(m *raftpb.Message) bool { return m.GetTo() == 3 }
		hidden := c.propose(f, 0)
		c.settle()
		require.Equal(t, []int{hidden}, m.commands())
		m.checkpoint()
		c.lose = nil
		c.tick(3)
		require.Equal(t, m.base.Index, f.base.Index)
		c.tick(1)
		require.Equal(t, fate{origin: 3, start: 1, unknown: 1}, *c.proposals[hidden])
		require.Zero(t, f.Status().Pending)
	})
	t.Run("of its term, but it follows", func(t *testing.T) {
		c := newCluster(t, 3, Config{MaxLogBytes: 1})
		m, f := c.elect(1), c.at(3)
		c.lose = func(m *raftpb.Message) bool { return m.GetType() != raftpb.MsgProp && m.GetTo() == 3 }
		hidden := c.propose(f, 0)
		c.settle()
		m.checkpoint()
		c.lose = byType(raftpb.MsgProp)
		follows := c.propose(f, 0)
		c.tick(3)
		require.Equal(t, m.base.Index, f.base.Index)
		c.lose = nil
		c.tick(12)
		require.Equal(t, 1, c.proposals[hidden].unknown)
		require.Equal(t, 1, c.proposals[follows].handed+c.proposals[follows].unknown)
		require.Zero(t, f.Status().Pending)
	})
}

// proposeFor puts a numbered proposal for one term on a member.
func (c *cluster) proposeFor(m *member, term uint64) {
	c.next++
	p := &Proposal{Data: fmt.Appendf(nil, "%d ", c.next), Value: c.next, Term: term}
	require.NoError(c.t, m.Propose(p))
	c.proposals[c.next] = &fate{origin: m.id, start: m.start, term: term}
}

// elect12 makes one of the first two members leader while the third is cut off.
func (c *cluster) elect12() *member {
	for i := 0; c.at(1).Status().Role != Leader; i++ {
		require.Less(c.t, i, 100)
		c.at(1).ForgetLeader()
		c.at(2).ForgetLeader()
		c.at(1).Campaign()
		c.settle()
	}
	return c.at(1)
}

// TestEveryProposalHasOneOutcome runs clusters under loss, repetition, reordering, slow storage, elections, crashes and
// checkpoints, and requires that each proposal whose origin lives is resolved exactly once, as the log says.
func TestEveryProposalHasOneOutcome(t *testing.T) {
	var handed, retry, unknown int
	const seeds = 150
	for seed := range uint64(seeds) {
		c := chaos(t, seed)
		for _, f := range c.proposals {
			handed, retry, unknown = handed+f.handed, retry+f.retry, unknown+f.unknown
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d seeds: %d handed out, %d to retry, %d unknown", seeds, handed, retry, unknown)
	require.Greater(t, handed, 50*seeds)
	require.Greater(t, retry, seeds/2)
	require.Greater(t, unknown, 10)
}

func chaos(t *testing.T, seed uint64) *cluster {
	rng := newRand(seed)
	c := newCluster(t, 3, Config{MaxLogBytes: 1 + rng.IntN(3000), MaxBatchesInFlight: 1 + rng.IntN(3)})
	cryptotest.SetGlobalRandom(t, seed)
	var away uint64
	lossy := rng.Float64() * 0.2
	c.lose = func(m *raftpb.Message) bool {
		return m.GetFrom() == away || m.GetTo() == away || rng.Float64() < lossy
	}
	for range 600 {
		m := c.members[rng.IntN(3)]
		switch k := rng.IntN(40); {
		case m.Replica == nil:
			if k < 4 {
				c.restart(m)
			}
		case k < 13:
			c.propose(m, rng.IntN(100))
		case k == 13:
			c.proposeFor(m, m.Status().Term)
		case k < 26:
			for _, m := range c.members {
				if m.Replica != nil {
					m.Tick()
				}
			}
		case k == 26:
			m.holdLog = !m.holdLog
		case k == 27:
			m.holdMach = !m.holdMach
		case k == 28 && len(m.applied) > 0 && len(m.applies) == 0:
			m.checkpoint()
		case k == 29:
			away = uint64(rng.IntN(4))
		case k == 30:
			m.ForgetLeader()
			m.Campaign()
		case k == 31 && rng.IntN(4) == 0:
			c.crash(m)
		case k == 32:
			m.TransferLeader(1 + rng.Uint64N(3))
		default:
			c.persist(m, len(m.appends))
			c.apply(m, len(m.applies))
		}
		c.shuffleWire(rng.IntN)
	}
	c.lose, lossy, away = nil, 0, 0
	for _, m := range c.members {
		if m.Replica == nil {
			c.restart(m)
		}
		m.holdLog, m.holdMach = false, false
		c.persist(m, len(m.appends))
		c.apply(m, len(m.applies))
	}
	c.tick(80)
	c.checkLogs()
	c.checkFates()
	return c
}

// shuffleWire works, then delivers a random part of the wire in random order, some of it twice.
func (c *cluster) shuffleWire(intN func(int) int) {
	c.work()
	for range intN(12) {
		if len(c.wire) == 0 {
			c.work()
			continue
		}
		i := intN(len(c.wire))
		if intN(3) > 0 {
			i = 0
		}
		m := c.wire[i]
		if intN(20) > 0 {
			c.wire = append(c.wire[:i:i], c.wire[i+1:]...)
		}
		c.deliverOne(m)
	}
}

// A leader that writes gathers what comes, from itself and from others, until its entries are committed, or written and
// more waits than is under way; and no more than its bound.
func TestLeaderGathersWhileItWrites(t *testing.T) {
	for name, end := range map[string]func(c *cluster, l *member){
		"until they are written": func(c *cluster, l *member) { c.persist(l, len(l.appends)) },
		"until they are committed": func(c *cluster, _ *member) {
			c.lose = nil
			c.tick(4) // the others acknowledge again; the leader's own disk is still at it
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3, Config{})
			l := c.elect(1)
			base := l.Status().LastIndex
			l.holdLog, c.lose = true, byType(raftpb.MsgAppResp)
			c.propose(l, 0)
			c.settle()
			c.propose(c.at(2), 0)
			c.propose(l, 0)
			c.settle()
			require.Equal(t, base+1, l.Status().LastIndex)
			require.Len(t, l.held.messages, 1)
			c.propose(c.at(3), maxHeldBytes)
			c.settle()
			require.Equal(t, base+2, l.Status().LastIndex, "what is beyond the bound does not wait")

			end(c, l)
			c.settle()
			require.Empty(t, l.held.messages)
			require.Equal(t, base+4, l.Status().LastIndex)

			l.holdLog, c.lose = false, nil
			c.persist(l, len(l.appends))
			c.tick(4)
			c.checkFates()
			for _, f := range c.proposals {
				require.Equal(t, 1, f.handed)
			}
		})
	}
}

// Where a commit takes long, what waits is appended when it is as much as is under way, and all of it with the commit.
func TestLeaderAppendsAheadOfTheCommit(t *testing.T) {
	c := newCluster(t, 3, Config{MaxBatchesInFlight: 100})
	l := c.elect(1)
	base := l.Status().LastIndex
	c.lose = byType(raftpb.MsgAppResp)
	var appended []uint64
	for range 9 {
		c.propose(l, 0)
		c.settle()
		appended = append(appended, l.Status().LastIndex-base)
	}
	require.Equal(t, []uint64{1, 2, 2, 3, 3, 3, 3, 4, 4}, appended)
	c.propose(c.at(2), 0)
	c.settle()
	require.Len(t, l.held.messages, 1, "another member's proposals wait as well")

	c.lose = nil
	c.tick(4)
	require.Empty(t, l.held.messages)
	require.Empty(t, l.flight.appends)
	require.Zero(t, l.flight.commands)
	c.checkFates()
	for _, f := range c.proposals {
		require.Equal(t, 1, f.handed)
	}
}
