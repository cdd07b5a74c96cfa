// Package sim runs whole clusters in one goroutine and in virtual time, to find what goes wrong in none but the rarest
// interleavings. It is test support: nothing else imports it.
//
// # What is real
//
// Each member is the real replica.Replica, the real state.Machine, the real write-ahead log with its codec and its
// recovery, on a disk.Mem that forgets what was not synced, and on the leader the real lease.Clock. Simulated are the
// glue between them (node.go, which follows the same rules as the server's loop), the checkpoint (a sorted list of rows,
// replaced atomically), the network and the clients.
//
// # One seed, one run
//
// A seed decides everything: the options of the run (how many members, which faults and how often) and every draw in
// it. [Run] of the same seed and [Options] gives the same events in the same order, which Report.Trace proves. Raft
// draws its election timeouts from crypto/rand; the caller makes that deterministic with testing/cryptotest.
//
//	go test ./server/internal/sim                      the quick number of seeds, and all mutants
//	go test ./server/internal/sim -run TestSeeds -seeds=2000 -first=1 -v
//	go test ./server/internal/sim -run TestSeeds -seed=360 -v
//
// # Phases
//
// Under load and faults for Options.Active; then everything heals, and every member must serve a write and a read within
// ten election timeouts; then the load ends, leases run out, and the members must agree.
//
// # Oracles
//
// A broken rule ends the run with a [Violation] that names the oracle. The rules are checked as early as they can be:
//
//   - leader: a term has one leader, and it has every entry that was applied anywhere.
//   - log: members apply the same entries in order, each once a start; never an entry below the checkpoint on disk.
//   - state: equal digests at equal applied index, the machine's own invariants, equal revisions after each entry.
//   - ack: what was acknowledged was applied, once; what was reported as not applied never is.
//   - read: a linearizable read sees everything that any member had applied when it began; every read, also of an old
//     revision, answers what the log says for its revision.
//   - watch: a watcher gets every event once and in order, whichever members it moves between.
//   - lease: an expiry is proposed by the leader of its entry's term, and not before the send time of the last
//     acknowledged renewal plus the time to live, on that leader's clock.
//   - lock: tokens ascend, a holder's key is the oldest at the revision that made it holder, and guarded writes ascend.
//   - members: raft's configuration and the machine's members are the same at every index.
//   - history: the clients' histories are linearizable, by porcupine.
//   - liveness: what is healed makes progress, and leases end.
//
// # Mutants
//
// [Mutants] lists planted bugs, as switches in the glue. Each must be caught by a tenth of its seeds at least; a
// simulator that does not catch them proves nothing.
//
//	go test ./server/internal/sim -run TestMutants -v -hunt
package sim
