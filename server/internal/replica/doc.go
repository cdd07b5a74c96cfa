// Package replica drives one member's raft node. It is pure: no goroutine, no clock, no disk, no network. Inputs are
// method calls (a tick, a message, a proposal, a read, the news that a write is durable); effects leave as data in
// [Work]. One loop owns a [Replica]; nothing in here is safe for concurrent use.
//
// # Proposals
//
// [Replica.Propose] queues. Everything that waits is packed into one log entry as soon as fewer than
// Config.MaxBatchesInFlight batches of this member are unresolved, so the pressure of the pipeline alone decides how
// large a batch is; there is no timer. A batch carries who packed it (a random origin a start), a sequence number and
// the term in which it was packed.
//
// Three rules make the fate of every batch definite:
//
//  1. A batch counts only in an entry of its own term. Terms never fall along a log, so when an entry of a later term
//     is handed out, the batches of earlier terms that were not handed out before it never will be.
//  2. The leader appends the batches of one origin in increasing order of their sequence, each at most once, and
//     refuses the others. A term has one leader and a leader's term of office lies within one start of its process, so
//     the leader's memory is enough to keep this rule, and repeated or reordered messages do no harm.
//  3. A follower whose batch was not resolved for an election timeout sends it again, unchanged. By rule 2 this is
//     harmless if the first message was only slow.
//
// So each proposal is either handed out once in [Entry.Proposals] on the member that proposed it, or comes back in
// [Work.Retry], which promises that it was not and will not be applied. The one exception is a member that fell so far
// behind that it was given a checkpoint instead of the log: what happened inside is not visible to it, and the
// proposals concerned come back in [Work.Unknown].
//
// # Reads
//
// A linearizable read needs the commit index at a moment after the read began, confirmed by a quorum. Reads that
// arrive while one confirmation is on its way form the next batch. Every attempt has a fresh id; an answer counts only
// for the batch that the attempt was made for, and only in the term and under the leader that it was sent to. Among three
// voters a follower's question is itself the proof that the leader needs (vouched tells why).
//
// # Members
//
// A [Proposal] with a Change is a batch that travels as raft's own change of configuration. The owner's state machine may
// refuse the command when it is applied, which it tells by Entry.Refused; raft's configuration follows in
// [Replica.Applied]. See changes in membership.go for when a leader proposes one, and why that is safe.
//
// # Storage
//
// Raft runs with asynchronous storage writes: [Work.Append] goes to the log, [Work.Apply] to the state machine, each
// in order, neither waiting for the other, and [Replica.Appended] and [Replica.Applied] report their completion. Raft
// reads entries back only from this package's memory, which keeps what is not in a durable checkpoint yet and, beyond
// that, up to Config.MaxLogBytes for followers that are behind.
package replica
