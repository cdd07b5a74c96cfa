// Package counter has numbers and values that many processes share: a counter to which
// each addition is made exactly once, a value of any type, and a sequence of numbers of
// which no two are the same.
//
// # Overview
//
//	orders := counter.NewInt64(c, "orders")
//	n, err := orders.Add(ctx, 1) // once, also when answers get lost
//
//	limits := counter.NewValue[Limits](c, "limits")
//	for v, err := range limits.Watch(ctx) { ... }
//
//	ids := counter.NewSequence(c, "invoice-ids", 100) // asks the cluster once in a hundred
//	id, err := ids.Next(ctx)
//
// # Guarantees
//
// Int64: all operations are linearizable. An addition whose answer is lost is neither
// forgotten nor made twice: a key of this process is written in the same transaction, and
// tells afterwards whether it was executed, and keeps it from being executed later. The
// one error after which that is open is [client.ErrUncertain]: ctx has ended, or the
// session was lost, before it could be found out. A counter that does not exist is 0. A
// sum that does not fit is [ErrOverflow], and changes nothing.
//
// Value: a Set is made once, as an addition is, so one that is delayed does not overwrite
// a newer one. [Value.TrySet] wants the revision of the value that it replaces. A
// revision is the store's, 64 bits wide, and never the same for two values, also when the
// key was deleted in between.
//
// Watch yields the value now, and then each change, in order, each once, until the loop
// or ctx ends. Changes that were compacted away before they could be seen are left out;
// the value that is yielded then is newer than the one before.
//
// Sequence: no number is given out twice, by whichever process. In one process they grow;
// over all, blocks do. A process that ends leaves the rest of its block unused, so there
// are gaps.
//
// # Keys
//
//	<name>                     the counter, in decimal; the value, as its codec has it; the end of the
//	                           last block of the sequence that was given out, in decimal
//	latchkey.tx/<lease>/<n>    in the client's namespace, with its session's lease: tells what became of a
//	                           transaction of this process; as many as there are at once
//
// # Failure handling
//
// The caller's context ends: the call returns, with [client.ErrUncertain] if it is not
// known whether it has had its effect. A Sequence then has at most lost a block.
//
// Many at once: updates are optimistic, and one that loses is made again on what it finds,
// after a short random pause. A counter that hundreds of callers add to all the time is
// better a Sequence, or several counters.
package counter
