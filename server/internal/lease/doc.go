// Package lease keeps the leader's clock of leases: who expires when.
//
// # Overview
//
// A [Clock] is plain data. It has no goroutine, lock, timer or source of time: every method that needs the time is
// handed it, so a test or a simulation can run years in a second. It is owned by one goroutine at a time.
//
// Only a leader runs the clock. [Clock.Promote] fills it when a member begins to lead, [Clock.Demote] empties it
// when it stops; in between, [Clock.Grant] and [Clock.Revoke] follow the replicated log and [Clock.Renew] follows the
// clients. [Clock.Due] names the leases that ran out. Nothing expires here: the caller proposes the names through
// the log, the replicated machine deletes the leases, and Revoke is the echo of that.
//
// # State model
//
// A lease is unknown, running or expiring. Due moves it from running to expiring; from there it is not renewed and
// not named again. Revoke makes it unknown; [Clock.Restore] makes it running again, with its old deadline, when the
// entry that was to expire it is known to be dead.
//
// # Cost
//
// Deadlines stand in a 4-ary min-heap, but lazily: Renew writes the new deadline into the lease's record and leaves
// the heap alone, so it is one map lookup and one store. A heap entry is therefore never later than its lease's
// deadline; Due re-inserts those that turn out to be early. A lease pays for one re-insertion per time to live
// however often it is renewed. A revoked lease leaves its entry behind until half of the heap is such leftovers.
//
// # Guarantees
//
// No lease is named before its deadline, which is the time of its grant, promotion or last renewal plus its time to
// live. A deadline never moves backwards, whatever times Renew is handed. Leases are named in the order of deadline,
// then id, so that equal histories give equal proposals.
package lease
