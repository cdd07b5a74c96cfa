// Package disk is the small part of a file system that the log stands on, and says which promises the log relies on:
// bytes are durable after Sync of their file, names are durable after SyncDir of their directory, and nothing else is.
// OS is the real one. Mem keeps everything in memory, can lose power at any operation and can fail any operation.
package disk

import "io"

// SectorBytes is the unit that a disk is assumed to write whole: after a power cut every sector holds either what it
// held before a write or what the write put there, never a mixture. Sectors of one write may survive in any combination.
const SectorBytes = 512

// FS is a file system. Names are slash-separated paths. Its errors match fs.ErrNotExist and fs.ErrExist where they
// apply. It is safe for concurrent use.
type FS interface {
	// Create opens an empty file for reading and writing; it truncates one that exists. The name is durable after SyncDir.
	Create(name string) (File, error)
	// Open opens a file that exists for reading and writing.
	Open(name string) (File, error)
	// Rename gives a file another name at once, replacing a file that has it. It is durable after SyncDir.
	Rename(oldname, newname string) error
	// Remove deletes a name. It is durable after SyncDir.
	Remove(name string) error
	// List returns the base names of the files in a directory, sorted.
	List(dir string) ([]string, error)
	// MkdirAll makes a directory and its missing parents, durably: each new name is synced in its parent.
	MkdirAll(dir string) error
	// SyncDir makes the names in a directory durable: what was created, renamed and removed in it.
	SyncDir(dir string) error
}

// File is an open file. After an error from WriteAt or Sync nothing is known about what the disk holds of the bytes
// that were not synced before, and a later Sync that succeeds says nothing about them: stop.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Size is the length in bytes.
	Size() (int64, error)
	// Sync makes all bytes written before it durable (fdatasync: the length too, times not).
	Sync() error
	Close() error
}
