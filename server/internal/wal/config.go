package wal

import (
	"errors"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

// Limits. They are part of the format: a log that breaks one is not written and not read.
const (
	// DefaultSegmentBytes is Config.SegmentBytes when zero.
	DefaultSegmentBytes = 64 << 20
	// MaxBatchBytes bounds one Append: entries, their headers and padding.
	MaxBatchBytes = 128 << 20
)

// Errors of Create, Open and a closed log; match with errors.Is.
var (
	// ErrExists: Create found a log.
	ErrExists = errors.New("wal: a log exists already")
	// ErrNotFound: Open found no log.
	ErrNotFound = errors.New("wal: no log")
	// ErrForeign: the log belongs to another cluster or member.
	ErrForeign = errors.New("wal: the log belongs to another cluster or member")
	// ErrVersion: the log's format is not one that this program reads.
	ErrVersion = errors.New("wal: unknown format version")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("wal: the log is closed")
)

// DamageError says that the log holds damage which a crash can not have caused, and where it begins. The log was left
// as it is. Opening it again fails again: the member has lost a part of what it promised and must not go on as itself.
type DamageError struct {
	File   string // path of the damaged file
	Offset int64  // bytes from its start
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("wal: %s is damaged at offset %d: %s", e.File, e.Offset, e.Reason)
}

// Identity is whose log it is. Every segment carries it.
type Identity struct{ ClusterID, MemberID uint64 }

// Base is the entry that the log starts after: the first one that it can hold is Index+1. Zero for a new cluster.
type Base struct{ Index, Term uint64 }

// Config says where the log is and whose. FS defaults to disk.OS(), Logger to none.
type Config struct {
	FS       disk.FS
	Dir      string
	Identity Identity
	// SegmentBytes is the size that segments grow to; the first ones are smaller. Default DefaultSegmentBytes.
	SegmentBytes int64
	// Inline does the work of the background goroutine (writing zeros ahead, removing released segments) inside Append
	// and Release. For simulations, which have one goroutine.
	Inline bool
	// Salt makes a segment's records differ from those of any other segment; it is called once a segment. The default
	// draws from crypto/rand.
	Salt   func() uint64
	Logger *slog.Logger
}

// Batch is what one Append makes durable, all of it or nothing.
type Batch struct {
	// Entries are contiguous. When their first index is not above the log's last, they replace what stands from there on.
	Entries []*raftpb.Entry
	// HardState replaces the last one; nil or empty leaves it.
	HardState *raftpb.HardState
	// Reset, when not nil, restarts the log after a snapshot that the caller made durable before: all earlier entries
	// are forgotten and Entries, if any, start at Reset.Index+1.
	Reset *Base
}

// Recovery is what Open found.
type Recovery struct {
	Base      Base
	Entries   []*raftpb.Entry   // contiguous from Base.Index+1
	HardState *raftpb.HardState // nil when none was ever appended
	Torn      *Torn             // nil when nothing was discarded
}

// Torn is the end of the log that Open discarded because a crash cut it off before it was durable.
type Torn struct {
	File   string // path of the segment
	Offset int64  // where the discarded bytes began
	Bytes  int64  // up to the last one that was not zero
	Copy   string // path of the file that has them now
}

// Stats counts since Create or Open.
type Stats struct {
	Appends  uint64 // batches written
	Syncs    uint64 // syncs of segments on behalf of Append
	Bytes    uint64 // bytes of batches written, padding included
	Rotated  uint64 // segments begun
	Segments int    // segments that exist
}
