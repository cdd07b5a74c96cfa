// Package election elects leaders: one at a time over all processes of a
// cluster's clients, with a number of its term that fences what it does, and
// with everybody told who leads, and that nobody does.
//
// # Overview
//
// A service of which one instance works at a time, for as long as it runs:
//
//	e := election.New[string](c, "svc/leader")
//	err := e.Run(ctx, addr, func(ctx context.Context, l *election.Leadership[string]) error {
//		return serve(ctx, l.Term()) // ctx ends, with a cause, when it has to stop
//	})
//
// [Election.Run] campaigns, calls the function, waits until that has returned,
// and only then lets another lead; and so on. [Election.Campaign] is for those
// who want one term and a handle, [Leadership]: its term, a context that lives as
// long as it, and transactions that commit only while it lasts.
//
// Everybody else asks [Election.Leader], or follows [Election.Observe]:
//
//	for leader, err := range e.Observe(ctx) {
//		if err != nil {
//			return err
//		}
//		if leader.Vacant {
//			drain()
//			continue
//		}
//		dial(leader.Value)
//	}
//
// A leader changes its value with [Leadership.Proclaim], leaves with
// [Leadership.Resign], or in favour of one that it names, with
// [Leadership.HandOver]. Who wants another leader asks for it, with
// [Election.RequestStepDown], or stands with [WithPriority] and [WithPreempt].
// [WithHealth] keeps who is not healthy from standing, and [WithIdentity] lets a
// process that was restarted go on at once.
//
// # Guarantees
//
// The leader is the candidate whose key has the smallest create revision, unless
// it passes its turn on before it has led, see below. Its leadership begins at
// the revision at which that is so, and ends at the deletion of its key: by
// Resign, by an operator, or with the lease of its session. Who leads keeps
// leading, whoever comes.
//
// The term is the create revision of the leader's key. It is larger than that of
// every earlier leader of the name, does not change while it leads, and can be
// checked in the store: [Leadership.Txn] and [Leadership.Guard] do.
//
// Leadership is derived, never remembered: Campaign returns only what was proven
// in one step, that the key is there, has our lease, and is the first; and from
// then on [Leadership.Valid] holds while the key was not seen to go and the
// session is trusted. There is no flag that could outlive it. Nobody is elected
// whose session has ended while it waited.
//
// An election is not mutual exclusion by itself. The cluster never elects two,
// but a leader may be suspended, wake up after its lease has ended, and go on
// before it notices. Valid narrows that gap to the time between the check and the
// effect; a resource that refuses old terms closes it, see package
// [github.com/latchkey-go/latchkey/recipes/fence].
//
// Passing on: a candidate that is first but has not led yet gives way to the one
// that the last leader has named, or else to the one with the highest priority,
// if that is higher than its own. It leaves the line, and joins it again at the
// tail. Candidates of etcd's clients know nothing of this, and lead when they are
// first. Who looks at the election anew while a turn is being passed on may see
// the first one as the leader for that moment; who observes it does not.
//
// A request to step down is addressed to one term. It can not hit a later leader.
//
// # Keys
//
// A candidate is a key "<name>/<lease in hexadecimal>", attached to the lease,
// whose value is the proposal. These are the keys of etcd's concurrency.Election,
// of "etcdctl elect" and of the v3election service: they stand for our elections,
// and see our leaders, and the reverse. Beside it stand, with the leases that they
// belong to,
//
//	<name>.prio/<lease>       {"id":..., "priority":..., "preempts":...}: our candidates, created with the key
//	<name>.next               {"to":"<lease>", "term":...}: whom the last leader has named
//	<name>.req/<term>/<id>    {"reason":..., "to":...}: a request to the leader of that term
//
// Only keys without a further "/" after "<name>/" take part. A name must not be
// empty, end in "/", contain "//" or have "read", "write", "g" or "d" as its last
// segment, which other recipes use; signs of another recipe under the name give
// [ErrConflict]. A lock of the same name has the same keys: do not use one name
// for both.
//
// # Failure handling
//
// The process dies: the keys end with its lease, at most one TTL after the last
// renewal, and the next in line leads. If it is restarted before that, and has an
// identity, it takes the place of its former life at once.
//
// The session ends, or somebody deletes a key: the leader sees its context end
// with a [*LostError] as its cause, at once for a deleted key, and candidates
// return one. A lost handle never comes back to life. Run stands again, with a
// new session if need be. A transaction of an old term fails with [ErrLost],
// however late it arrives.
//
// The caller's context ends: Campaign returns at once. If a request is under way,
// the background waits for its answer and removes the keys. Until then nobody
// else in this process stands with this session. Run waits for its function.
//
// Answers get lost: a candidacy or a resignation of unknown outcome is repeated
// until it is known, which is safe, as the key's name is the session's and a
// resignation names the term. Nothing of this outlives the session.
//
// The cluster can not be reached: candidates wait until the context or the session
// ends, and observers until their context does. The leader's handle is valid until
// the session's trust ends, see [Leadership.Remaining].
//
// History is compacted: who waits, leads or observes reads again and goes on.
package election
