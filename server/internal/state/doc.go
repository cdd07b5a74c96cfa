// Package state is the replicated machine: a keyspace with revisions, transactions, leases and members, with the
// semantics of the etcd v3 API. It is pure. Commands go in through Machine.Apply, results come out of it, and what it
// holds depends on nothing but the commands: it has no goroutine, lock, clock, randomness, disk or network, never
// ranges over a map where the order could show, and never lets what it happens to hold in memory decide an outcome.
//
// # Keyspace
//
// Every write makes a Version with a Revision of its own. All writes of one command share the revision's Main and count
// its Sub; a command that writes nothing makes no revision. Two copy-on-write trees hold the newest version of each key:
// one the keys that exist, the other the tombstones of those that do not. So a read at the current revision touches the
// first tree only, and its cost does not depend on history.
//
// A version carries the revisions of the older versions of its key, oldest first, and these records are all that has to
// stay in memory of them. Their values are in the event window, a log of the newest events in chunks, or once they were
// dropped from there in the Archive. No version points to another: what holds one never holds a chain.
//
// # Reading
//
// A View is the state at one applied index, a History the events in memory at one point. Both are immutable, cost O(1)
// to take, and are what other goroutines get to see; the Machine itself has one owner. Everything that they reach,
// Value bytes included, is shared and must not be written to.
//
// # Compaction
//
// A compaction takes effect at once: reads below its revision are refused. Sweep then removes what can not be read any
// more, in slices as small as the caller likes, and tells which versions the Archive may forget. Neither a sweep nor
// the movement of versions to the Archive changes an answer or the Digest, so members need not agree on their timing.
//
// # The way to disk
//
// Machine.TakeChanges gives what changed since the last call, for the checkpoint; Machine.Archived tells that it is
// durable, which allows versions to leave memory; a Loader builds the machine again. What the Archive gives back is
// checked against a checksum that was taken when it was written.
//
// # Invariants
//
// Machine.Check verifies all of them, and is the best description of the data structures. See invariants.go.
package state
