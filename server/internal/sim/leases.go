package sim

import (
	"time"

	"github.com/latchkey-go/latchkey/server/internal/lease"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// maxExpiries bounds the leases in one expiry entry.
const maxExpiries = 64

// leases is the leader's side of leases: who is due, and who may be renewed.
type leases struct {
	clock *lease.Clock
	term  uint64 // of the leadership that the clock was promoted for; 0: none
	grown map[int64]time.Time
}

// renewal is a renewal that waits for its leader to prove that it still leads.
type renewal struct {
	id   int64
	sent time.Duration // by the client
	term uint64
	done func()
}

// leadershipChanged starts the clock when a leadership begins and stops it when it ends. Every lease gets its full time
// to live, since what the last leader acknowledged is not known here.
func (n *node) leadershipChanged() {
	l := &n.leases
	switch {
	case n.role != replica.Leader:
		l.clock.Demote()
		l.term = 0
	case l.term != n.term:
		l.term = n.term
		var all []lease.Lease
		for _, info := range n.mach.Leases() {
			all = append(all, lease.Lease{ID: info.ID, TTL: time.Duration(info.TTL) * time.Second})
		}
		l.clock.Promote(all, n.local(n.s.now))
		n.s.Mutant.promoted(n)
	}
}

// followLeases tells the clock what was applied.
func (n *node) followLeases() {
	for _, e := range n.mach.TakeLeaseEvents() {
		n.s.Mutant.leaseEvent(n, e)
		if e.Revoked {
			n.leases.clock.Revoke(e.ID)
		} else {
			n.leases.clock.Grant(e.ID, time.Duration(e.TTL)*time.Second, n.local(n.s.now))
		}
	}
}

// expire proposes the end of leases that are due, for this term only.
func (n *node) expire() {
	if !n.leads() {
		return
	}
	ids := n.leases.clock.Due(n.local(n.s.now), maxExpiries)
	if len(ids) == 0 {
		return
	}
	term := n.leases.term
	n.s.truth.expiring(term, ids)
	seen, _ := n.mach.Applied()
	data := encode(state.KindExpireLeases, &state.ExpireLeases{IDs: ids, Seen: seen})
	n.propose(data, term, func(o outcome, _ *state.Result) {
		if o != applied && n.leases.term == term {
			n.leases.clock.Restore(ids)
		}
	})
}

// renew renews a lease if this node leads, or passes the renewal on to the leader. done is called on the node that
// renewed, when the renewal is certain.
func (n *node) renew(id int64, sent time.Duration, hops int, done func()) {
	if !n.leads() {
		if n.lead != 0 && n.lead != n.id && hops > 0 {
			to := n.s.nodes[n.lead-1]
			n.s.net.call(n, to, func() { to.renew(id, sent, hops-1, done) })
		}
		return
	}
	if _, ok := n.leases.clock.Renew(id, n.local(n.s.now)); !ok {
		return
	}
	r := &renewal{id: id, sent: sent, term: n.leases.term, done: done}
	if n.s.Mutant.is(RenewUnconfirmed) {
		n.renewed(r)
		return
	}
	if n.rep.Read(r) == nil {
		n.pump()
	}
}

// renewed acknowledges a renewal after a quorum confirmed that this node led after it arrived. If it led all the time
// since, no other leader can have counted from an earlier time.
func (n *node) renewed(r *renewal) {
	if !n.leads() || n.leases.term != r.term {
		return
	}
	if left, ok := n.leases.clock.Remaining(r.id, n.local(n.s.now)); !ok || left <= 0 {
		return
	}
	n.s.counts.Renewals++
	n.s.truth.renewed(r.id, r.sent)
	r.done()
}

func encode(kind state.Kind, request any) []byte {
	data, err := state.Command{Kind: kind, Request: request}.AppendTo(nil)
	if err != nil {
		panic(err)
	}
	return data
}
