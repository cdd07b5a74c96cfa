// Package wal is the replicated log's durable form on one member: entries and raft's HardState, in batches that are there
// as a whole or not at all.
//
// # What it promises
//
// A batch that a synced Append returned for is found by every later Open, or Open refuses with the file and the offset of
// the damage. A crash at any time leaves a log that opens. Open discards bytes only when a crash explains them: they
// belong to batches written after the last sync that returned, sectors of theirs were never written, and the log was
// not closed. README.md is the format's specification and says precisely what is left to trust in.
//
// # How it is written
//
// A log is a row of segments, files of a fixed length that are filled with zeros before they are used. A batch is one
// frame: a header with a checksum of its own, the entries, and a trailer with the checksum of everything, which goes on from
// that of the frame before. It begins on a sector and shares none, so an Append is one write of bytes that were zero and
// one fdatasync that changes no metadata, and no write ever touches what was acknowledged before.
//
// # Goroutines
//
// One per log, unless Config.Inline: it fills the next segment with zeros and removes released ones. Close ends it.
package wal
