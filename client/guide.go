package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// guideWritesMin is how many writes go to another endpoint than the leader's before the leader is looked for, so that a
	// program that has little to say asks for nothing. When it was looked for in vain, as it is not among the endpoints, it
	// takes twice as many the next time, up to guideWritesMax.
	guideWritesMin = 16
	guideWritesMax = 1 << 14
	// guideTimeout bounds the question to one member.
	guideTimeout = time.Second
	// leaderSilence is how long a request at the leader may go without a word before the other members are asked whether
	// they have elected another one.
	leaderSilence = 150 * time.Millisecond
)

// guide knows which endpoint is the leader's. Writes go there, if it is connected: another member would pass them on, which
// is two messages more, and would have less to put into one batch. Reads and watches stay with the endpoint in use, so that
// they are spread over the members.
//
// It is a guess that costs nothing when it is wrong: every member takes writes.
type guide struct {
	core *core

	at    atomic.Pointer[endpoint] // the leader's; nil while it is not known
	term  atomic.Uint64            // the newest that an answer has told
	stray atomic.Int64             // writes that went elsewhere since the leader was last looked for
	limit atomic.Int64             // of stray, when the leader is looked for
	asks  atomic.Bool              // somebody asks the members

	mu sync.Mutex // held while term and at change together
}

func newGuide(co *core) *guide {
	g := &guide{core: co}
	g.limit.Store(guideWritesMin)
	return g
}

// forWrites returns the leader's endpoint; nil if it is not known, or not connected.
func (g *guide) forWrites() *endpoint {
	if ep := g.at.Load(); ep != nil && ep.ready() {
		return ep
	}
	return nil
}

// forget makes ep not the leader's any more.
func (g *guide) forget(ep *endpoint) { g.at.CompareAndSwap(ep, nil) }

// answered notes what the header of an answer to a request at ep tells.
func (g *guide) answered(ep *endpoint, m method, h *pb.ResponseHeader) {
	term := h.GetRaftTerm()
	if term == 0 || len(g.core.pool.endpoints) == 1 {
		return
	}
	if term > g.term.Load() {
		g.found(nil, term)
	}
	if m.write && g.at.Load() != ep && g.stray.Add(1) >= g.limit.Load() {
		g.ask(func() { g.look(g.core.ctx) })
	}
}

// found notes which endpoint leads in a term: nil, if that is not known. A term that has passed says nothing.
func (g *guide) found(ep *endpoint, term uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch old := g.term.Load(); {
	case term < old || term == old && ep == nil:
		return
	case term > old:
		g.limit.Store(guideWritesMin)
		g.stray.Store(0)
	}
	g.term.Store(term)
	if old := g.at.Swap(ep); ep != nil && old != ep {
		g.core.log.Debug("writes go to the leader", "endpoint", ep.name, "term", term)
	}
}

// ask runs f on a goroutine, unless one runs.
func (g *guide) ask(f func()) {
	if !g.asks.CompareAndSwap(false, true) {
		return
	}
	if !g.core.start(func() { defer g.asks.Store(false); f() }) {
		g.asks.Store(false)
	}
}

// look asks all members who leads.
func (g *guide) look(ctx context.Context) {
	members := make(map[uint64]*endpoint)
	var leader, term uint64
	for _, ep := range g.core.pool.endpoints {
		s := g.status(ctx, ep)
		members[s.GetHeader().GetMemberId()] = ep
		if s.GetLeader() != 0 && s.GetRaftTerm() >= term {
			leader, term = s.GetLeader(), s.GetRaftTerm()
		}
	}
	g.stray.Store(0)
	if ep := members[leader]; leader != 0 && ep != nil {
		g.found(ep, term)
		return
	}
	g.limit.Store(min(2*g.limit.Load(), guideWritesMax))
}

// status asks the member at ep; nil if there is no answer.
func (g *guide) status(ctx context.Context, ep *endpoint) *pb.StatusResponse {
	if !ep.ready() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, guideTimeout)
	defer cancel()
	var resp pb.StatusResponse
	if _, err := g.core.transport.unary(ctx, ep, request{method: methodStatus.full, body: &pb.StatusRequest{}}, &resp); err != nil {
		return nil
	}
	return &resp
}

// doubt is told that a request at ep has had no answer for a while. If ep is the leader's, and another member knows a new
// leader, then ep hangs or is cut off: a leader that lives would have answered, or have been told. Its connection is given
// up, with what is in flight on it, much sooner than a member is that only says nothing.
func (g *guide) doubt(ep *endpoint) {
	if g.at.Load() != ep {
		return
	}
	g.ask(func() {
		ctx, term := g.core.ctx, g.term.Load()
		for _, other := range g.core.pool.endpoints {
			if other == ep {
				continue
			}
			s := g.status(ctx, other)
			if s.GetLeader() == 0 || s.GetRaftTerm() <= term || g.at.Load() != ep {
				continue
			}
			g.core.log.Warn("the leader does not answer and was replaced; giving up its connection", "endpoint", ep.name)
			g.found(nil, s.GetRaftTerm())
			g.core.pool.leave(ep)
			ep.reset()
			g.look(ctx)
			return
		}
	})
}
