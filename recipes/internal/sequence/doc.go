// Package sequence is a log in the store that writers append to without
// contention and readers read in exact commit order. Queues keep their items in
// one, topics their messages.
//
// # Overview
//
// There is no counter key and no sequencer. A writer names its key itself: an [ID]
// is the newest revision that the writer has seen (the seed), a tag of the writer
// and a count. Every key of a log is created by a transaction that comes after what
// its writer had seen, so
//
//	seed < create revision, always
//
// and the order of keys is nearly the order of commits. A [Reader] makes it exact:
// it reads pages in the order of keys at one revision, and holds back what is not
// settled. Once it has come to a key with seed s, all keys that it has not seen have
// larger seeds, so were created after s; whatever was created up to s is complete.
// Behind the last page it goes on with a watch, which has the order of commits by
// itself.
//
// # The floor
//
// A writer that was idle for long has an old seed, and its key would come far
// behind where readers have been. The log has a key, its floor, that only ever
// rises; an append has the condition that the floor is below its id ([Log.Append]).
// So what commits after a revision stands above the floor as it was at that
// revision, and a reader that starts again begins there ([Position]). A writer that
// is refused has a fresh seed from the answer and tries once more.
//
// What stands below the floor of a revision was committed up to that revision: it
// may be deleted when all that is so old may go.
//
// # Failure handling
//
// The end of a reader's connection, a compaction while it pages or watches, and a
// slow loop cost time only: the reader starts again from its Position. Current keys
// are never compacted. Appending the same id with the same conditions twice does
// nothing the second time, so an append of unknown outcome may be repeated as it is,
// as long as entries are deleted only below the floor.
package sequence
