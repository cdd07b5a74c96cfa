package checkpoint

import (
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// unmap lets go of the pages of the file, size bytes, that are mapped into the
// process. They stay in the kernel's cache and come again when they are looked at:
// a save looks at a few, a compaction and a load at all, and they would count as
// the member's memory from then on. The caller holds Store.writing, so the mapping
// stays where it is; who reads at the same time just maps pages again. Should the
// kernel refuse, nothing is lost.
func unmap(db *bolt.DB, size int64) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, db.Info().Data, uintptr(size), unix.MADV_DONTNEED)
}
