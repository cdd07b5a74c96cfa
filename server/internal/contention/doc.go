// Package contention serves etcd's lock and election services: v3lockpb.Lock and v3electionpb.Election. They let
// programs contend for a name whose client library has no recipes, or who only speak JSON.
//
// # The line
//
// A contender for a name has a key "<name>/<lease in hexadecimal>", attached to the lease. The contenders stand in line
// by the create revision of their keys; the first one has the lock, or leads. etcd's services, its concurrency package
// and our recipes keep their keys in the same place and order, so they exclude each other. As for etcd, a key counts
// however deep below "<name>/" it stands.
//
// Whoever waits watches two keys: the one in front of it, and its own. When either is deleted, one transaction tells
// whether its own key is still the one it made and who is in front now.
//
// # What is different from etcd
//
//   - A wait ends with an error as soon as the contender's key is gone, whether its lease ended or somebody deleted it.
//     etcd goes on waiting; its Lock then fails, and its Campaign reports that the dead candidate was elected.
//   - A wait that ends without success removes the key that the call made, whatever the reason. etcd's Campaign leaves
//     it where it is if it was not cancelled, and its Lock also removes a key that an earlier call made.
//   - A lease that the server made (for requests with lease 0) is renewed while the call waits, and revoked when it
//     fails. etcd's may end in the line.
//   - Observe goes on after a compaction, and ends with an error. etcd's ends as if it were over.
//   - Proclaim with lease 0 in the leader key keeps the key's lease. etcd makes a new one that nobody renews.
//
// What is the same, down to the code, are the errors: all that come from the store, or from the lack of rights, have the
// code Unknown. etcd's services are clients of their own server, and a client's errors have no code.
//
// # Rights
//
// Every read and write is a call of the KV service with the caller's context, so the caller needs the rights that the
// same requests of its own would need. A watch is only placed on keys that the caller was just allowed to read, and
// what it finds is only handed out after another such read.
//
// # Failure handling
//
// No call outlives its context, the member, or, if it requires a leader, a long absence of one. What a failed call
// leaves in the store when its clean-up fails as well ends with the lease. The package starts no goroutine.
package contention
