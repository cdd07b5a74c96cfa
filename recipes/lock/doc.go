// Package lock is a distributed lock: one holder at a time over all processes of
// a cluster's clients, first come, first served, given back by itself when its
// holder dies, and with a fencing token for what it protects.
//
// # Overview
//
//	err := lock.New(c, "jobs/nightly").Do(ctx, func(ctx context.Context, h *lock.Held) error {
//		return store.Write(ctx, data, h.Token()) // ctx ends, with a cause, if the lock is lost
//	})
//
// [Lock.Acquire] waits for the lock, [Lock.TryAcquire] does not, and both return a
// [Held]: one acquisition, with its token, a context that lives as long as it,
// and a transaction that commits only while it lasts. [Lock.Do] wraps the three
// steps. [AcquireAll] does the same with several locks at once.
//
// The lock belongs to a session, by default the client's own, which all locks and
// recipes of a program share. It is not re-entrant: who holds it and acquires it
// again, in the same process or another, waits for himself, unless the lock was
// made with [WithReentrant] and the context carries it.
//
// For operators: [Inspect], [Watch] and [List] show who holds locks and who
// waits, [RequestRelease] asks a holder to give a lock up, [Break] takes it away.
//
// # Guarantees
//
// Taken: at the revision at which no older key is left in the queue: that of our
// own key's creation, or that of the last older key's deletion. TryAcquire takes
// it at the revision of its one transaction, which creates the key only if the
// lock is free, and never queues.
//
// Order: by the create revision of the keys, so by the order in which requests
// reached the cluster. Goroutines that share a session are served in the order
// of their calls, one at a time, and the session has one place in the queue of
// all.
//
// Together: AcquireAll takes the locks at the revision at which no older key is left
// in any of the queues. All keys come into being at one revision, so of any two
// callers one is first in every queue that they share: they can not wait for each
// other.
//
// Ended: at the deletion of the key, by Release, by an operator, or with the lease
// of the session.
//
// Token: the create revision of the key. It is larger than that of every earlier
// holder of the name, does not change during the hold, and can be checked in the
// store: [Held.Txn] and [Held.Guard] do.
//
// A lock is not mutual exclusion by itself. The cluster never grants it to two,
// but a holder may be suspended, wake up after its lease has ended, and go on
// before it notices. [Held.Valid] narrows that gap to the time between the check
// and the effect; a resource that refuses old tokens closes it, see package
// [github.com/latchkey-go/latchkey/recipes/fence]. [Held.Context] ends before the
// lease can end on the server, by the margin that the session keeps, so a holder
// that runs and heeds it does not overlap with the next one.
//
// # Keys
//
// A holder or waiter is one key, "<name>/<lease in hexadecimal>", attached to the
// lease; the one with the smallest create revision holds the lock. These are the
// keys of etcd's concurrency.Mutex, of "etcdctl lock" and of the v3lock service:
// they exclude our locks, and ours theirs. The value is JSON with the owner, the
// info, and what operators have to say to the holder; clients of etcd leave it
// empty and ignore ours. A lock with [WithDelay] has a second key while it is held,
// "<name>.delay", with a lease of its own.
//
// Only keys without a further "/" after "<name>/" take part, so locks on "a" and
// "a/b" are independent. (etcd's clients count the keys below "a/b" as well and
// wait for them: stricter, never less safe.) A lock that is wanted at a name with
// many keys below it reads more of them than one without. A name must not be
// empty, end in "/", contain "//" or have "read", "write", "g" or "d" as its last
// segment, which other recipes use; signs of another recipe under the name give
// [ErrConflict].
//
// # Failure handling
//
// The process dies: the key ends with its lease, at most one TTL after the last
// renewal, and the next in the queue has the lock; with WithDelay, after the delay.
//
// The session ends, or somebody deletes the key: holders see their context end
// with a [*LostError] as its cause, at once for a deleted key, and waiters return
// one. A lost handle never comes back to life; acquire anew. A transaction of a
// lost handle fails with [ErrLost], however late it arrives.
//
// The caller's context ends: Acquire returns at once. If a request is under way,
// the background waits for its answer and removes the key. Until then nobody else
// in this process gets the lock with this session.
//
// Answers get lost: a create or a release of unknown outcome is repeated until it
// is known, which is safe, as the key's name is the session's and a release names
// the create revision. A create that arrives after everybody has forgotten it
// would leave a key that lives as long as the session; for half a minute after a
// create without an answer, such a key is watched for and removed. Nothing of
// this outlives the session.
//
// The cluster can not be reached: waiting goes on until the context or the session
// ends. The holder's lock is valid until the session's trust ends, see
// [Held.Remaining]; [Held.States] tells when half a TTL has passed without a
// renewal.
//
// # Costs
//
// A lock that nobody else wants costs one transaction, and one to give it back,
// whether it is one lock or forty together. A waiter costs one transaction, and
// one read when its predecessor has gone; in between it sends nothing but the
// session's renewals. A key that exists for more than 10 ms is watched. Valid and
// Remaining are local and allocate nothing.
//
// # Read-write locks
//
// [NewRW] gives a lock that any number have together to read ([RWLock.RLock]), or
// one alone to write ([RWLock.Lock]). All wait in one queue, in the order in which
// their keys were created: a reader waits for the writers before it, whether they
// have the lock or wait for it, and a writer for all before him. So nobody starves,
// and readers that follow each other get in together. In between is
// [RWLock.ULock]: it reads beside others, excludes its like, and can become a
// writer without letting go ([UpgradeableHeld.Upgrade]), as it waits for those only
// that read at that moment. A writer can become a reader
// ([WriteHeld.Downgrade]); no other writer comes in between, as the key and its
// place in the queue stay.
//
// Two that both read and both want to write would wait for each other; therefore
// readers can not be upgraded. Who acquires a read-write lock with a context that
// comes from a live handle of the same lock would wait for himself, if he had to
// wait at all, and gets [ErrWouldDeadlock].
//
// The tokens of writers grow from one to the next, also of those that were
// upgraded. Give them along with writes only: the token of a reader says nothing
// about who is stale, as readers overlap.
//
// The keys are "<name>/read/<lease>.<n>", and "<name>/write/<lease>.<n>" for all but
// readers; n tells those of one session apart. The value is JSON with the owner
// and the mode, which may differ from what the key says after a downgrade. The
// keys of etcd's experimental recipe.RWMutex stand at the same places and take
// part; as it orders by the last change, it must not share a name with programs
// that downgrade or upgrade.
//
// # Semaphores
//
// [NewSemaphore] gives out permits, several at once if so wanted, all or none
// ([Semaphore.Acquire]). No more are out than the limit, which is in the store, so
// that programs that come with different limits hear of it ([ErrLimitConflict])
// and an operator can change it while they run ([Semaphore.SetLimit]). A lower
// limit takes nothing away from those who have permits. The queue is strictly first
// come, first served; with [WithBarging], one does not wait in line and takes what
// is free.
//
// Permits were granted at the first revision at which they, those of all that came
// before, and those that were granted under an earlier limit and are still out, fit
// into the limit.
//
// The keys are "<name>/<lease>.<n>", one for each acquisition. The value is JSON with
// the owner, the permits and, while it is so, that it waits: the first in the queue
// watches those that have permits, and each other waiter the one before it. The
// limit is in "<name>.limit". It is deleted when the last one releases, unless
// somebody has set it; after a crash it stays until the next release.
package lock
