// Package client is the typed client of Latchkey, and of any other server that speaks the etcd v3 API.
//
// # Overview
//
// A [Client] is made with [New], is safe for concurrent use, and is meant to be shared by a whole program:
//
//	c, err := client.New(client.Config{Endpoints: []string{"10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"}})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//
// It reads and writes keys ([Client.Get], [Client.Put], [Client.Delete]), executes transactions that the caller builds
// ([Client.Txn]) or that are built from what a function reads and writes ([Client.Update]), watches keys
// ([Client.Watch]), and keeps a session, which is a lease that is renewed ([Client.Session]). [Typed] puts values of one
// Go type under a prefix; [Client.Namespace] gives a part of a program its own part of the store.
//
// # Outcomes
//
// A call that fails returns an [*Error]. A call that changes something has one of three outcomes:
//   - it returned no error: it was executed, once;
//   - it returned an error that is not [ErrUncertain]: it was not executed, and will not be;
//   - it returned an error that is ErrUncertain: it may have been executed, may be executed later, or not at all.
//
// The client repeats a request only when the one before it certainly was not executed, or when repeating does no harm.
// What an error means is decided by this table, from the top:
//
//	the request was never given to a connection            not executed; tried elsewhere
//	"no leader", "not leader", "raft proposal dropped",
//	  "rpc not supported for learner", "not capable",
//	  "too many requests"                                  not executed; tried elsewhere
//	another text that names its reason (key not found,
//	  lease not found, compacted, no space, ...)           not executed; returned as the error for it
//	"request timed out ...", "leader changed",
//	  "server stopped"                                     uncertain
//	the answer is too large to be received                 uncertain
//	InvalidArgument, NotFound, AlreadyExists, OutOfRange,
//	  FailedPrecondition, ResourceExhausted, Unimplemented,
//	  PermissionDenied, Unauthenticated                    not executed; returned
//	Unavailable, Canceled, DeadlineExceeded, Internal,
//	  Aborted, Unknown, DataLoss                           uncertain
//
// Reads are tried elsewhere in the cases that are uncertain for a write, except after Unknown. Requests carry the demand
// for a leader, so that a member that has none refuses them at once instead of letting them time out.
//
// Grant, Revoke and Compact resolve an uncertain outcome by asking again, and [Client.Update] does with [ExactlyOnce];
// they return ErrUncertain only when the time is up before the answer is known. Otherwise the caller has to find out, for
// example by reading the key; but a request that is under way may be executed after such a read.
//
// No call waits for ever: one whose context has no deadline gets Config.RequestTimeout. When a context ends a call,
// errors.Is finds the context's error and its cause.
//
// # Sessions and trust
//
// A [Session] answers one question: can keys attached to its lease have been deleted, and somebody else have taken their
// place? The client takes the time t0 before it sends a renewal. When the renewal is acknowledged with a TTL of g, the
// lease can not end before t0 + g, whatever happened to the acknowledgement on its way. The session is trusted until
//
//	t0 + g - g/1000 - m        m = g/20, at most 250 ms
//
// where g/1000 is how far clocks may drift apart, and m is the time left to whoever relies on the session to stop. Then,
// or when the server says that the lease is gone, the session is [Lost], for good, and its context is done with a
// [*SessionError] as cause. With the default TTL of 10 s that is 9.74 s after the last renewal that was acknowledged.
//
//	Active     until t0 + g/2, where t0 is that of the last renewal that was acknowledged
//	Suspect    from then on, or while the machine seems to have been suspended since t0
//	Lost       final
//
// Renewals leave each g/3, a tenth earlier or later. One that is not acknowledged within g/8 (200 ms to 1 s) is sent to
// another member, at once the first time. So the loss of a member does not even make a session suspect.
//
// A clock that is used to measure may stand still while the machine is suspended. Where the wall clock ran ahead of it by
// more than m, the session is suspect, [Session.Remaining] counts the difference, and a renewal is asked for at once;
// only its acknowledgement makes the session active again.
//
// No client can notice that it was stopped between a check and the write that relies on it. Whoever needs more than a
// good chance makes the resource check a fencing token, or writes in a transaction with a guard: [Client.Guarded],
// [Tx.Require].
//
// # Failover
//
// The client keeps a connection to every endpoint and uses one of them until it fails. Only writes go to another one: to
// the leader's, once there are enough of them to look for it. The client moves to the
// next at once when the connection breaks (no time is lost), when a member says that it has no leader, when data is not
// acknowledged by the network for 2 s (where the system supports TCP_USER_TIMEOUT), or when a member with something in
// flight says nothing for 1 s (2 s with streams only) and then does not answer a health check for 1 s. A leader that does
// not answer a write is left as soon as the others have elected another one. A lost connection is tried again after 20 ms,
// then at least four times a second. When no member can be asked, a call waits for one, within its context; the error says
// why each one could not be reached.
//
// # Watches
//
// All watches of a client share one stream. [Client.Watch] yields each event once and in order, over any number of lost
// connections, as it always continues from the revision that it has reached. What can not be continued is said: events
// that were compacted away in between end the watch with a [*CompactedError]. Once in 30 s the stream asks the server
// how far it is, so that a watch of a quiet key does not fall behind the compaction of others' history, and a member that
// sends nothing any more is left for another. A loop that is slower than its events keeps 4 MiB of them; then its watch
// is taken off the stream, to be resumed when the loop has caught up.
//
// To read and then follow, without gap: Get, and watch from the Revision of its result + 1.
//
// # Goroutines
//
// A client runs one goroutine for each endpoint; two while it has watches (four if some go without a leader); two while
// it has sessions. There is none for a request, and now and then one for a moment that asks who leads. [Client.Close]
// waits for all of them.
package client
