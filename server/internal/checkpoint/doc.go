// Package checkpoint keeps the durable copy of a member's state in one bbolt file.
//
// # Overview
//
// The log is what makes a write durable; the checkpoint is what lets the log be cut. A background goroutine of the
// server gives [Store.Save] everything that changed since the last time, and Save writes it in one transaction
// together with the applied index. On start [Open] verifies the file, [Store.Load] rebuilds the machine, and the log
// above the index is applied again. Versions that left memory are read back through the methods of state.Archive.
//
// # File format
//
// The file has the buckets of etcd 3.6 and later, so that etcd's own tools read it and a team can move in and out:
//
//	key              revision (8 bytes main, '_', 8 bytes sub, then 't' for a tombstone) -> mvccpb.KeyValue
//	meta             consistent_index, term        8 bytes
//	                 confState                     raftpb.ConfState as JSON
//	                 storageVersion                "3.7.0"
//	                 scheduledCompactRev           a revision: the compact revision
//	                 finishedCompactRev            a revision: the one that has been swept
//	lease            id (8 bytes) -> leasepb.Lease
//	cluster          clusterVersion                "3.7.0"
//	members          id in hex -> etcd's membership.Member as JSON
//	members_removed  id in hex -> "removed"
//	alarm, auth, authUsers, authRoles
//
// All integers are big-endian. One bucket is ours and etcd ignores it:
//
//	latchkey         identity   format version, cluster id, member id, hash          4 * 8 bytes
//	                 state      index, term, revision, compact, rows, sum, hash      7 * 8 bytes
//
// # Integrity
//
// bbolt has checksums on its two meta pages only; most flipped bits elsewhere would change data without anyone
// noticing. So the row `state` carries the number of all rows of etcd's buckets and the sum, modulo 2^64, of a 64-bit
// hash of each (bucket, key, value); the rows of our own bucket end in a hash of themselves. Save keeps it up to date at the cost of hashing what it writes; Open and Install
// count again. A changed, missing or additional row is refused, as is a file that another program wrote to. While the
// server runs, state checks each version that it reads back against a checksum of its own.
//
// # Crash safety
//
// bbolt writes the new pages, syncs, writes one of two meta pages, and syncs again. A crash at any point leaves the
// file at one transaction or the next. As data, applied index, term, ConfState and revision are one transaction, what
// is loaded is always the state at exactly the index that it says (R27), and replaying the log from there is right.
// A new file is made under a temporary name and renamed when it is complete; see [Store.Install] for the arrival of
// another member's checkpoint.
//
// # Import
//
// A snapshot is such a file with its SHA-256 behind it, of ours or of etcd 3.6 and 3.7, whose files have no bucket of
// ours. [OpenSource] reads one whole, and [Source.Import] makes the checkpoint of a new member of it: keys, leases, users,
// roles and alarms are the source's; members, index and term are new. Where etcd ran on a file that came from us, our
// bucket is still there, and stale: the applied index in it is not the one in meta, and the rows do not add up.
//
// # Failure handling
//
// Any error of Save is final and the process has to end (R26): after a failed sync the page cache may show a
// transaction that the disk does not have. A file that is damaged, foreign or in use gives one error that says so and
// wraps [ErrDamaged], [ErrForeign] or [ErrInUse]. bbolt panics on damaged pages, and reading a mapped page that the
// disk can not deliver is a fault; both become errors here.
package checkpoint
