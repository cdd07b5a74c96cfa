package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// cluster is several replicas and a network of function calls. Nothing happens but what the test asks for.
type cluster struct {
	t       testing.TB
	members []*member // by id-1; nil Replica: down
	wire    []*raftpb.Message
	// lose decides about each message when it is delivered. Nil: all arrive.
	lose func(m *raftpb.Message) bool
	cfg  Config // limits for members started from now on
	// refuse is what the state machine says about changes of members. Nil: it takes all.
	refuse func(e Entry) bool

	next      int           // the last proposal's number
	proposals map[int]*fate // by number
}

// member is one replica with the storage around it.
type member struct {
	*Replica
	id    uint64
	start int

	// What survives a restart. hs is what was synced, as is log.
	base     Snapshot
	log      []*raftpb.Entry
	hs       *raftpb.HardState
	syncs    int
	applied  []Entry // everything since the base, in order
	confs    *raftpb.ConfState
	reads    []Reads // confirmed, in order
	holdLog  bool    // appends wait in appends
	appends  []*Append
	holdMach bool // applies wait in applies
	applies  []*Apply
}

// fate is what became of a proposal on the member that made it.
type fate struct {
	origin                 uint64
	start                  int
	handed, retry, unknown int
	index                  uint64
	term                   uint64 // the only one in which it may be handed out; 0: any
}

func newCluster(t testing.TB, n int, cfg Config) *cluster {
	if tt, ok := t.(*testing.T); ok {
		cryptotest.SetGlobalRandom(tt, 1)
	}
	c := &cluster{t: t, cfg: cfg, proposals: make(map[int]*fate)}
	conf := &raftpb.ConfState{AutoLeave: new(false)}
	for i := range n {
		conf.Voters = append(conf.Voters, uint64(i+1))
	}
	for i := range n {
		m := &member{id: uint64(i + 1), base: Snapshot{Index: 1, Term: 1, ConfState: conf}, confs: conf}
		c.members = append(c.members, m)
		c.restart(m)
	}
	return c
}

func (c *cluster) restart(m *member) {
	m.start++
	cfg := c.cfg
	cfg.ID, cfg.Origin = m.id, m.id<<32|uint64(m.start)
	cfg.ElectionTicks, cfg.HeartbeatTicks = 10, 1
	cfg.Applied = m.base.Index
	cfg.Log = Recovered{
		Snapshot: m.base, BaseIndex: m.base.Index, BaseTerm: m.base.Term, Entries: slices.Clone(m.log), HardState: m.hs,
	}
	r, err := New(cfg)
	require.NoError(c.t, err)
	m.Replica, m.appends, m.applies, m.applied = r, nil, nil, nil
}

// crash loses the member's memory. What it proposed and did not learn about is lost with it.
func (c *cluster) crash(m *member) { m.Replica = nil }

func (c *cluster) at(id uint64) *member { return c.members[id-1] }

// propose puts a numbered proposal of size bytes on a member.
func (c *cluster) propose(m *member, size int) int {
	c.next++
	data := fmt.Appendf(nil, "%d ", c.next)
	data = append(data, make([]byte, max(0, size-len(data)))...)
	if m.Propose(&Proposal{Data: data, Value: c.next}) == nil {
		c.proposals[c.next] = &fate{origin: m.id, start: m.start}
	}
	return c.next
}

// change proposes a numbered change of members.
func (c *cluster) change(m *member, typ raftpb.ConfChangeType, id uint64) int {
	c.next++
	change := &raftpb.ConfChange{Type: typ.Enum(), NodeId: &id}
	require.NoError(c.t, m.Propose(&Proposal{Data: fmt.Appendf(nil, "%d ", c.next), Value: c.next, Change: change}))
	c.proposals[c.next] = &fate{origin: m.id, start: m.start}
	return c.next
}

// work carries out everything the members want done, except delivery.
func (c *cluster) work() (some bool) {
	for _, m := range c.members {
		for m.Replica != nil {
			w, ok := m.Work()
			if !ok {
				break
			}
			some = true
			c.wire = append(c.wire, w.Send...)
			if w.Append != nil {
				m.appends = append(m.appends, w.Append)
			}
			if w.Apply != nil {
				m.applies = append(m.applies, w.Apply)
				c.note(m, w.Apply)
			}
			m.reads = append(m.reads, w.Reads...)
			for _, p := range w.Retry {
				c.proposals[p.Value.(int)].retry++
			}
			for _, p := range w.Unknown {
				c.proposals[p.Value.(int)].unknown++
			}
			if !m.holdLog {
				c.persist(m, len(m.appends))
			}
			if !m.holdMach {
				c.apply(m, len(m.applies))
			}
		}
	}
	return some
}

func (c *cluster) note(m *member, a *Apply) {
	for _, e := range a.Entries {
		if e.Proposals == nil {
			continue
		}
		require.Len(c.t, e.Proposals, len(e.Commands))
		for i, p := range e.Proposals {
			require.Equal(c.t, p.Data, e.Commands[i])
			f := c.proposals[p.Value.(int)]
			require.NotNil(c.t, f)
			f.handed++
			f.index = e.Index
			if f.term != 0 {
				require.Equal(c.t, f.term, e.Term)
			}
			require.Equal(c.t, m.id, f.origin)
			require.Equal(c.t, m.start, f.start)
		}
	}
}

// persist completes the n oldest appends with one sync.
func (c *cluster) persist(m *member, n int) {
	for _, a := range m.appends[:n] {
		if a.Sync {
			m.syncs++
		}
		if s := a.Snapshot; s != nil {
			meta := s.GetMetadata()
			m.base = Snapshot{Index: meta.GetIndex(), Term: meta.GetTerm(), ConfState: meta.GetConfState()}
			m.log, m.applied, m.confs = nil, nil, meta.GetConfState()
		}
		for _, e := range a.Entries {
			m.log = append(m.log[:e.GetIndex()-m.base.Index-1], e)
		}
		if a.HardState != nil {
			m.hs = a.HardState
		}
	}
	done := m.appends[:n]
	m.appends = slices.Clone(m.appends[n:])
	for _, a := range done {
		m.Appended(a)
	}
}

// apply completes the n oldest applies.
func (c *cluster) apply(m *member, n int) {
	for _, a := range m.applies[:n] {
		for _, e := range a.Entries {
			if e.Index <= m.base.Index { // an installed checkpoint was faster
				continue
			}
			require.Equal(c.t, m.base.Index+uint64(len(m.applied))+1, e.Index, "applied in order")
			m.applied = append(m.applied, e)
		}
		if c.refuse != nil {
			for i := range a.Entries {
				a.Entries[i].Refused = a.Entries[i].Refused || c.refuse(a.Entries[i])
			}
		}
		m.Applied(a)
		m.confs = ConfState(m.Configuration())
	}
	m.applies = slices.Clone(m.applies[n:])
}

// deliver moves everything on the wire.
func (c *cluster) deliver() (some bool) {
	wire := c.wire
	c.wire = nil
	for _, m := range wire {
		c.deliverOne(m)
		some = true
	}
	return some
}

func (c *cluster) deliverOne(m *raftpb.Message) {
	to := c.at(m.GetTo())
	if lost := to.Replica == nil || c.lose != nil && c.lose(m); lost {
		if m.GetType() == raftpb.MsgSnap && c.at(m.GetFrom()).Replica != nil {
			c.at(m.GetFrom()).ReportSnapshot(m.GetTo(), false)
		}
		return
	}
	// The wire copies, as a real one does.
	_ = to.Step(proto.Clone(m).(*raftpb.Message))
	if m.GetType() == raftpb.MsgSnap && c.at(m.GetFrom()).Replica != nil {
		c.at(m.GetFrom()).ReportSnapshot(m.GetTo(), true)
	}
}

// settle runs until nothing moves.
func (c *cluster) settle() {
	for range 10_000 {
		if !c.work() && !c.deliver() {
			return
		}
	}
	c.t.Fatal("the cluster does not come to rest")
}

func (c *cluster) tick(n int) {
	for range n {
		for _, m := range c.members {
			if m.Replica != nil {
				m.Tick()
			}
		}
		c.settle()
	}
}

// elect makes a member leader, with everybody up and connected.
func (c *cluster) elect(id uint64) *member {
	c.settle()
	for _, m := range c.members {
		if m.Replica != nil {
			m.ForgetLeader()
		}
	}
	c.at(id).Campaign()
	c.settle()
	require.Equal(c.t, Leader, c.at(id).Status().Role)
	return c.at(id)
}

// isolate loses all messages from and to the given members.
func isolate(ids ...uint64) func(*raftpb.Message) bool {
	return func(m *raftpb.Message) bool {
		return slices.Contains(ids, m.GetFrom()) || slices.Contains(ids, m.GetTo())
	}
}

// checkpoint makes a durable checkpoint of everything applied and forgets the log below.
func (m *member) checkpoint() {
	at := m.base.Index + uint64(len(m.applied))
	term := m.base.Term
	if n := len(m.applied); n > 0 {
		term = m.applied[n-1].Term
	}
	m.log = slices.Clone(m.log[at-m.base.Index:])
	m.base, m.applied = Snapshot{Index: at, Term: term, ConfState: m.confs}, nil
	m.Checkpointed(m.base)
}

// checkFates requires that every proposal of a member that lived on has exactly one outcome, that all that was handed
// out is in the log once, and that nothing returned for a retry is.
func (c *cluster) checkFates() {
	inLog := make(map[int][]uint64)
	for _, e := range c.at(1).applied {
		for _, data := range e.Commands {
			var n int
			_, err := fmt.Sscanf(string(data), "%d ", &n)
			require.NoError(c.t, err)
			inLog[n] = append(inLog[n], e.Index)
		}
	}
	for n, f := range c.proposals {
		if c.at(f.origin).start != f.start {
			require.LessOrEqual(c.t, len(inLog[n]), 1, "proposal %d is in the log twice", n)
			continue
		}
		require.Equal(c.t, 1, f.handed+f.retry+f.unknown, "proposal %d: %+v", n, *f)
		switch {
		case f.handed == 1 && c.at(1).base.Index < f.index:
			require.Equal(c.t, []uint64{f.index}, inLog[n], "proposal %d was handed out", n)
		case f.retry == 1:
			require.Empty(c.t, inLog[n], "proposal %d was returned for a retry", n)
		}
	}
}

// checkLogs requires that all members have applied the same.
func (c *cluster) checkLogs() {
	first := c.at(1)
	for _, m := range c.members[1:] {
		require.Equal(c.t, first.base.Index+uint64(len(first.applied)), m.base.Index+uint64(len(m.applied)))
		for i := 1; i <= min(len(first.applied), len(m.applied)); i++ {
			a, b := first.applied[len(first.applied)-i], m.applied[len(m.applied)-i]
			require.Equal(c.t, a.Index, b.Index)
			require.Equal(c.t, a.Term, b.Term)
			require.Equal(c.t, a.Commands, b.Commands)
		}
	}
}

// commands returns all that a member has applied, without the padding.
func (m *member) commands() (out []int) {
	for _, e := range m.applied {
		for _, data := range e.Commands {
			var n int
			_, _ = fmt.Sscanf(string(data), "%d ", &n)
			out = append(out, n)
		}
	}
	return out
}

func byType(types ...raftpb.MessageType) func(*raftpb.Message) bool {
	return func(m *raftpb.Message) bool { return slices.Contains(types, m.GetType()) }
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

var _ raft.Logger = silent{}
