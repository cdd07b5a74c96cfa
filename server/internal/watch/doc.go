// Package watch tells clients about changes: it feeds watchers from the history of events.
//
// # Overview
//
// There is one history, the machine's, and a [Hub] that is handed an immutable snapshot of it after each batch that
// was applied. A watcher is a cursor: a range of keys and the next revision to look at. Nothing is queued for a
// watcher but references that may be thrown away, because whatever a watcher needs can be read again.
//
// Watchers live on a [Stream], one for each gRPC stream. The goroutine that owns the stream calls [Stream.Step]
// whenever [Stream.Ready] says so, and Step writes responses to a [Sink]. A Sink that blocks stops its own stream
// only.
//
// # State model
//
// The watchers of a stream with one range form a group. A group is live or lagging.
//
// A live group stands in the hub's index. One goroutine, the dispatcher, walks over new events, looks each key up in
// the index and appends (group, event) to the queues of the streams. All events of a revision are appended before the
// hub's dispatched revision moves to it, and a stream takes nothing above the dispatched revision; so a revision is
// never seen in halves.
//
// A lagging group reads for itself, in bounded turns: from the history in memory if its cursor is inside, else from
// the archive. All groups of the stream whose cursors a turn meets share it. When a group has read up to the present
// and the dispatcher is not beyond it, it becomes live.
//
// A live group whose stream does not keep up turns to lagging at the first event that was not queued for it (queues
// are bounded) or whose bytes were given up meanwhile (the cache of encoded events is bounded).
//
// # Guarantees
//
// For every watcher: events come in the order of revisions, each once, none missing from the start revision on; the
// events of one revision come together. A watcher whose cursor falls behind the compact revision is cancelled with
// that revision, it is never advanced silently. A progress revision P is reported when everything up to P has been
// handed to the Sink for all the watchers that it speaks for, and P is not below the revision they asked to start at.
//
// # Cost
//
// [Hub.Publish] stores a pointer and wakes the dispatcher; it never takes a lock. Matching an event costs a hash
// look-up for exact keys, one for each prefix length in use, and a walk down a balanced tree for other ranges. An
// event is encoded once for all the watchers of all the streams, and once more if some want the previous version.
//
// # Failure handling
//
// The only errors come from the Sink and from the archive; either ends the stream. A snapshot that replaces the
// machine shows as a gap between what was dispatched and the first event in memory; every group then lags from the
// gap on, and is fed from the archive or cancelled.
package watch
