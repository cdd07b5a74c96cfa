package replica

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// entryOverhead is what an entry costs in memory beside its payload, in bytes: the struct, its pointers' targets and
// the slot that holds it.
const entryOverhead = 160

// Snapshot names a durable checkpoint: it holds the effects of all entries up to Index, and the members as of Index.
type Snapshot struct {
	Index, Term uint64
	ConfState   *raftpb.ConfState // read-only
}

func (s Snapshot) proto() *raftpb.Snapshot {
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		ConfState: s.ConfState, Index: new(s.Index), Term: new(s.Term),
	}}
}

// memLog is the raft.Storage: all entries that are durable here and not trimmed yet. Owned by the Replica; raft reads
// it on the same goroutine.
//
// Invariants: entries are contiguous from base+1; base <= snapshot.Index unless there was never a snapshot; entries
// are removed at the front only when a checkpoint covers them and raft has seen them applied, so that raft never asks
// for an entry that neither the log nor the checkpoint has.
type memLog struct {
	baseIndex, baseTerm uint64
	entries             []*raftpb.Entry // entries[head:] are the log's; nil before head
	head                int
	bytes               int // of entries[head:]
	maxBytes            int

	snapshot Snapshot
	initial  *raftpb.HardState
}

var _ raft.Storage = (*memLog)(nil)

func newMemLog(rec Recovered, hs *raftpb.HardState, maxBytes int) *memLog {
	l := &memLog{
		baseIndex: rec.BaseIndex, baseTerm: rec.BaseTerm,
		maxBytes: maxBytes, snapshot: rec.Snapshot, initial: hs,
	}
	l.append(rec.Entries)
	return l
}

func (l *memLog) live() []*raftpb.Entry { return l.entries[l.head:] }

func (l *memLog) last() uint64 { return l.baseIndex + uint64(len(l.entries)-l.head) }

// append adds entries, replacing those that the log has from the first one's index on.
func (l *memLog) append(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	first := entries[0].GetIndex()
	if first <= l.baseIndex || first > l.last()+1 {
		panic(fmt.Sprintf("replica: append at %d to a log of (%d, %d]", first, l.baseIndex, l.last()))
	}
	keep := l.head + int(first-l.baseIndex-1)
	for i := keep; i < len(l.entries); i++ {
		l.bytes -= entrySize(l.entries[i])
	}
	clear(l.entries[keep:])
	l.entries = append(l.entries[:keep], entries...)
	for _, e := range entries {
		l.bytes += entrySize(e)
	}
}

// reset makes the log empty behind an installed checkpoint.
func (l *memLog) reset(s Snapshot) {
	l.baseIndex, l.baseTerm = s.Index, s.Term
	l.entries, l.head, l.bytes = nil, 0, 0
	l.snapshot = s
}

// trim drops entries from the front while the log is over its budget, up to and including index.
func (l *memLog) trim(index uint64) {
	for l.bytes > l.maxBytes && l.baseIndex < index {
		e := l.entries[l.head]
		l.bytes -= entrySize(e)
		l.baseIndex, l.baseTerm = e.GetIndex(), e.GetTerm()
		l.entries[l.head] = nil
		l.head++
	}
	// Moving down when at least half is dead costs a constant an entry, and Entries hands out copies, so nobody sees it.
	if l.head > len(l.entries)/2 {
		n := copy(l.entries, l.live())
		clear(l.entries[n:])
		l.entries, l.head = l.entries[:n], 0
	}
}

// InitialState implements raft.Storage.
func (l *memLog) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return l.initial, l.snapshot.ConfState, nil
}

// Entries implements raft.Storage. The slice is a copy.
func (l *memLog) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	if lo <= l.baseIndex {
		return nil, raft.ErrCompacted
	}
	if lo >= hi || hi > l.last()+1 {
		return nil, raft.ErrUnavailable
	}
	es := l.live()[lo-l.baseIndex-1 : hi-l.baseIndex-1]
	size := uint64(proto.Size(es[0]))
	n := 1
	for ; n < len(es); n++ {
		if size += uint64(proto.Size(es[n])); size > maxSize {
			break
		}
	}
	return append([]*raftpb.Entry(nil), es[:n]...), nil
}

// Term implements raft.Storage.
func (l *memLog) Term(i uint64) (uint64, error) {
	switch {
	case i < l.baseIndex:
		return 0, raft.ErrCompacted
	case i == l.baseIndex:
		return l.baseTerm, nil
	case i > l.last():
		return 0, raft.ErrUnavailable
	}
	return l.live()[i-l.baseIndex-1].GetTerm(), nil
}

// LastIndex implements raft.Storage.
func (l *memLog) LastIndex() (uint64, error) { return l.last(), nil }

// FirstIndex implements raft.Storage.
func (l *memLog) FirstIndex() (uint64, error) { return l.baseIndex + 1, nil }

// Snapshot implements raft.Storage: the newest durable checkpoint, by its metadata only. The transport streams the
// checkpoint itself.
func (l *memLog) Snapshot() (*raftpb.Snapshot, error) {
	if l.snapshot.Index == 0 || l.snapshot.Index < l.baseIndex {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return l.snapshot.proto(), nil
}

func entrySize(e *raftpb.Entry) int { return entryOverhead + len(e.GetData()) }
