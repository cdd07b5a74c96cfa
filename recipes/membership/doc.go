// Package membership tells a group of processes who belongs to it, and lets them
// share out work so that each part is done by one of them at a time.
//
// # Overview
//
//	m, err := membership.Join(ctx, c, "workers", hostname, Tags{Rack: 7})
//	...
//	defer m.Leave(ctx)
//	err = membership.NewPartitioner(m, []string{"shard-0", "shard-1", "shard-2"}).
//		Run(ctx, func(ctx context.Context, s *membership.Share) error {
//			return serve(ctx, s.Item(), s.Token()) // until ctx ends
//		})
//
// [Members] yields the group, as a [View] after each change.
//
// # Guarantees
//
// Member: from the revision at which the key is written until it is deleted, by
// Leave or with the lease of the session. One id has one member: who comes second is
// refused. A membership whose session or key is lost comes back by itself. Who dies
// is gone at most one TTL after the last renewal that the cluster acknowledged.
//
// View: the group at one revision, never an older one than before.
//
// Share: which member an item belongs to follows from the names of those who share
// the work and that of the item (rendezvous hashing), so all agree without talking,
// and a member that comes or goes moves only the items that it gets or had. It is
// had by whoever holds the lock of the item. A member lets go of an item first: its
// function returns, then the lock is released, then the next member has it. So no
// two functions serve an item at a time, unless one of them was suspended longer
// than its lease; for that, each share has a fencing token that grows from holder to
// holder, and transactions that commit only while it is held.
//
// # Keys
//
// A member is one key, "<group>/<id>", attached to the lease, with JSON as value:
// "meta" is what the member tells, "shares" says whether it takes part in a
// Partitioner, "by" names this very membership. An item is the lock
// "<group>.shares/<item>" of package recipes/lock. Groups are named as locks are; an
// id must not be empty or contain "/", nor must an item, which can not be called
// "read", "write", "g" or "d" either.
//
// # Failure handling
//
// As with package [github.com/latchkey-go/latchkey/recipes/discovery], whose keys
// are kept in the same way. A share that is lost with its session ends the context of
// its function, before anybody else can have it; when the session is back, the
// item is acquired anew by whom it belongs to then. A function that does not heed its
// context keeps the item from others for as long as it runs, and the session lives.
package membership
