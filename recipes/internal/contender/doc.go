// Package contender is what locks, elections, semaphores and owners of shards
// have in common: keys of a session that contend with those of others, from
// before their creation until they are known to be gone.
//
// # Overview
//
// A recipe says in a [Spec] which keys it wants, and what it calls the things
// that can happen. [Take] waits for its turn inside this process, [Try] does not,
// and both give a [Claim], which is good for one acquisition:
//
//	c, err := contender.Take(ctx, contender.Spec{Client: cl, Session: s, Keys: keys, Lost: lost, Released: ErrReleased})
//	if err != nil {
//		return nil, err
//	}
//	err = c.Run(ctx, func(ctx context.Context) error { return c.Queue(ctx, rule) })
//
// [Claim.Run] executes what the recipe does to get what it wants, and undoes all
// of it if that fails or the caller gives up. Inside, [Claim.Queue] creates the
// keys and waits as long as the recipe's [Rule] names somebody to wait for; or the
// recipe builds that itself of [Claim.Create], [Claim.Await], [Claim.Watch],
// [Claim.Confirm] and [Claim.Get]. Afterwards the claim is what the recipe's
// handle stands on: [Claim.Token], [Claim.Context], [Claim.Remaining],
// [Claim.Guard], [Claim.Txn],
// [Claim.Rewrite] and [Claim.Release].
//
// The layout of the keys and what their values say is the recipe's. Whether a
// name may be one of a recipe, and what a key below a name is, is the same for
// all: [ValidName] and [Classify].
//
// # Guarantees
//
// The keys of a claim are created in one transaction and so have one create
// revision, the claim's token. While a claim has a key, no other claim of this
// process touches it.
//
// A create of unknown outcome is repeated until the outcome is known, which is
// safe, as the key's name is the session's; keys that are found to exist are
// taken over only if they have the session's lease. A create that arrives when
// everybody has given it up leaves a key that is removed.
//
// The claim's context ends, with the cause that the recipe made, when the session
// ends, when one of the keys is deleted or loses its lease, and when the claim is
// released. Then all keys are deleted: again and again until that is known, or
// the session has ended.
//
// # Goroutines
//
// Run has one while it works. A claim that has its keys for more than a few
// milliseconds has one for each key, which watches it. The removal has one, and
// so has the sweep of a key whose creation may still arrive. None outlives the
// session.
package contender
