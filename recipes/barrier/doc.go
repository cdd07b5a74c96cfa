// Package barrier makes processes wait for each other: until all have come, until all
// have finished, until somebody opens the gate, until enough is done.
//
// # Overview
//
//	in, err := barrier.NewDouble(c, "jobs/import", 50).Enter(ctx) // all 50 are there
//	if err != nil {
//		return err
//	}
//	work(in.Context(), in.Arrival().Index) // ends, with a cause, if this member or the generation is lost
//	return in.Leave(ctx)                   // all 50 have finished
//
// [Gate] holds everybody back until somebody opens it. [Double] stands around some
// work. [Cyclic] brings the same members together after each round of theirs, and can
// have an action that one of them runs for all ([WithAction]). [Phaser] does that for
// members who come and go. [Latch] opens when a number of things are done, whoever did
// them.
//
// # Guarantees
//
// Complete: a generation of a double or cyclic barrier is complete at a revision at
// which as many members were there as it has parties, or, with [Shrink], as are left. It
// never is before, and never with more; who is too many has a place in the next one.
// All members see the same list in the same order, which is that of their arrival. It is
// written once, by whichever member sees that all are there, in a transaction that fails
// if one of them has left since.
//
// Generations: a fast member that comes again can not be taken for one of the round
// before, and what a round leaves behind lets nobody pass.
//
// Loss: a member whose process dies is known to be lost when its lease has ended, at most
// one TTL after its last renewal. Then the policy of the barrier decides: [Break] ends the
// generation for all, with [ErrBroken]; [Wait] gives its place to the next who comes;
// [Shrink] goes on without it. That holds at each moment: while the others gather, while
// they work, and while they wait for the last. A member that was there and died is never
// forgotten, also by those who could not see it: the store counts how many came.
//
// Action: it runs when all have arrived and before anybody goes on; once, unless the
// process that runs it dies. Its fencing token and its transactions then make the first
// run harmless.
//
// Token: [Arrival.Token] is a fencing token, larger than that of every earlier
// generation, and the same for all members.
//
// Latch: an id counts once, however often it is reported. The last one opens the latch, in
// the same transaction. Counts stay when those who made them die.
//
// Cost: a round of a double barrier is one request for each member to enter and one to
// leave, and three or four more in all. Two watches for each process and barrier,
// however many members, tell it one event for each end of a phase; nobody watches others
// arrive.
//
// # Keys
//
// A gate is closed while the key "<name>" exists, as with etcd's recipe.Barrier.
//
//	<name>.gen               the record of a double or cyclic barrier or a phaser: JSON with the phase,
//	                         the list of those who completed the one before, the terms; stays
//	<name>/g/m/<lease>.<n>   a member; ends with its lease
//	<name>/g/a/<lease>.<n>   the member has arrived, or wants to leave; likewise
//	<name>/g/c/came          its version is how many members there were
//	<name>/g/c/left          its version is how many of them left by themselves
//	<name>/g/c/gaveup        is written when a member gives up
//	<name>.count             a latch: the number of counts; its last change is the latch's era
//	<name>/d/<id>            the id was counted
//	<name>.downs             its version is how many were
//	<name>.open              the latch is open
//
// Below "<name>/g/" nothing is left when all members have gone; if the last of them was
// lost and no other process is left, until the next one comes. A name must not be empty,
// end in "/", contain "//" or have "read", "write", "g" or "d" as its last segment. Who
// uses a name on other terms, such as another number of parties, gets [ErrConflict] as
// long as others are there.
//
// # Failure handling
//
// The caller's context ends: the call returns at once. An Enter or Join is undone in the
// background, and is, for the others, a member that is lost. A Leave has left all the
// same. An Await has arrived all the same, and can be called again.
//
// This member is lost, as its session ends or its key is deleted: its context ends with
// a [*LostError], and calls return one. A handle that is lost or broken never comes back
// to life: leave it, and enter or join anew. A barrier that is broken begins anew when
// all its members have left, or are lost; nobody has to reset it.
//
// Answers get lost: who enters is made a member exactly once or not at all, also if the
// request arrives late. Everything else is a transaction that names what it relies on,
// so it can be repeated, and comes late without effect.
//
// The cluster can not be reached: waiting goes on until the context or the session ends.
// History is compacted while somebody waits: it reads again.
package barrier
