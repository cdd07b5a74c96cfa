// Package cache keeps a typed copy of all keys under a prefix in this process: reads
// cost a look into memory, and whoever wants to know of changes is told, with what
// was there before.
//
// # Overview
//
//	routes, err := cache.New[Route](c, "routes/",
//		cache.WithIndex("host", func(r Route) []string { return r.Hosts }))
//	if err != nil {
//		return err
//	}
//	defer routes.Close()
//	if err := routes.WaitSynced(ctx); err != nil {
//		return err
//	}
//	route, ok := routes.Get("checkout")           // never waits
//	for r := range routes.ByIndex("host", host) { ... }
//	for ev, err := range routes.Events(ctx) { ... } // first a Resynced with everything, then each change
//
// [Cache.View] gives a content that does not change, for several reads that agree.
// [Cache.WaitRev] waits until a write is in the cache, [Cache.Sync] until all writes
// are that anybody knows of. [NewPersistent] is the other side: one key that is in
// the store while this process lives.
//
// # Guarantees
//
// One revision: what is read from a [View], and from one call of a Cache, is what the
// store had under the prefix at [View.Rev]: all of it, and nothing newer. A
// transaction is seen whole or not at all.
//
// Forward only: [Cache.Rev] never decreases, whichever member answers. A member that
// is behind what the cache has seen is not believed.
//
// Read your writes: after WaitRev with the revision of a write, every read shows it.
//
// Events: each loop gets changes in order of revision, each once, and can rebuild the
// content from them alone. Where that is not possible, because history was compacted
// while the cache could not see it, or because the loop was more than 1,024 events
// behind, the loop gets one [Resynced] with the difference, computed from what that
// loop has seen. Nothing is skipped silently. Inside the difference, what was changed
// and changed back does not show.
//
// Nobody waits for anybody: reads take no lock; a loop that stands still holds up
// neither the cache nor other loops, and costs the memory of what has changed since.
//
// Not promised: that the cache is up to date at this moment. It lags behind the store
// by what an event takes, or for as long as no member can be reached; [Cache.Stale]
// says how long ago a member spoke. What must be decided on the newest state is
// decided in a transaction: an item has the revision to compare with.
//
// # Keys
//
// The cache writes nothing. It reads every key that begins with the prefix, also
// those that other recipes or programs have put there; a key is named without the
// prefix. Values are JSON, or what [WithCodec] says.
//
// A Persistent is one key of the given name, attached to the lease of a session.
// docs/keys.md has both for clients in other languages.
//
// # Failure handling
//
// A value that is no T: its key is kept out, whatever was there before is gone, and
// a [Rejected] event, [View.Rejected] and the log say so. The next value of the key
// is looked at afresh.
//
// Connections and members get lost: the watch goes on with another member from where
// it was. Reads serve what there is.
//
// History is compacted: the prefix is read again, in pages of one revision, and loops
// get a Resynced. A compaction in the middle of the pages makes it begin again.
//
// The cluster refuses (permissions, no user): the content stays, [Cache.Err] has the
// reason, and it is tried again, at most 5 s later.
//
// A member answers with a revision before the cache's: it is asked again later. Should
// a cluster have been restored from a backup so that its revisions are lower than
// before, the cache stays where it is and [Cache.Err] says so; close it and make
// another.
//
// The process dies: nothing of the cache is left; a Persistent's key ends with the
// lease, at most one TTL later.
//
// Answers to the writes of a Persistent get lost: a write names what it replaces, or
// that there is nothing, so it is repeated until its outcome is known. A write that
// comes after Close is looked for, for half a minute, and deleted.
package cache
