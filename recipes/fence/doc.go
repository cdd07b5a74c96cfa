// Package fence carries proofs of order from a lock to what the lock protects.
//
// # Overview
//
// A lock that a server grants for a time can not stop its holder: a process
// that was suspended, or whose packets were late, may still write after its lock
// has passed on to another. The holder can not know; only what it writes to can
// refuse it. A fencing [Token] makes that possible. It is a number that grows
// from holder to holder. Who writes sends it along, and the resource refuses a
// token that is smaller than one it has seen:
//
//	err := gate.Do("invoice/42", held.Token(), func() error {
//		return write(ctx, invoice)
//	})
//	if errors.Is(err, fence.ErrStale) { ... } // somebody newer has been here
//
// [Gate] is the resource's side for a process that owns the resource. Where the
// resource is a database or a file store, the same rule is a condition there:
//
//	UPDATE invoices SET state = $1, fence = $2 WHERE id = $3 AND fence <= $2
//
// and no row updated means that the token is stale.
//
// A token travels in a context: [NewContext] puts it there, and the handles of a
// lock do so by themselves; [FromContext] and [Tokens] take it out. Over gRPC it
// travels with package [github.com/latchkey-go/latchkey/recipes/fence/fencegrpc].
//
// # Guarantees
//
// Tokens of one lock strictly increase in the order in which it was held. After
// a Gate has admitted a token for a resource, it never again admits a smaller
// one for that resource. Equal tokens are admitted as often as they come: one
// holder may write more than once.
//
// A Gate lives in memory. A resource that outlives its process must store the
// newest token with its data, and [Gate.Raise] the gate to it after a restart.
package fence
