package state

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"sort"
	"unsafe"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Revision orders all writes: Main counts the commands that wrote something, Sub the writes within one command.
type Revision struct{ Main, Sub int64 }

// Compare returns -1, 0 or +1 as r is before, equal to or after s.
func (r Revision) Compare(s Revision) int {
	if r.Main != s.Main {
		return cmp.Compare(r.Main, s.Main)
	}
	return cmp.Compare(r.Sub, s.Sub)
}

// Version is one version of a key: a write, or a tombstone when Deleted. It is immutable once it was handed out, Value
// included: responses and events share its bytes, and nobody may write to them.
//
// Invariants: Mod >= Create > 0 and Count > 0 for a write; Create = Count = Lease = 0 and no Value for a tombstone.
type Version struct {
	Key     string
	Value   []byte
	Create  int64 // revision (Main) of the write that created the key
	Mod     int64 // revision (Main) of this version
	Sub     int64 // position within the command that wrote this version
	Count   int64 // writes since the key was created, etcd's "version"
	Lease   int64 // the lease that the key is attached to, 0 for none
	Deleted bool

	// sum is the checksum of all the fields above. It rides in what would be padding, and lets every later reader of
	// the archive prove that it got what was written.
	sum uint32
	// older lists the key's earlier versions that are still readable, ascending, all below this one. Successive versions
	// of a key share the backing array: only the newest is ever appended from, so what a holder sees never changes.
	older []past
}

// past is what stays in memory of a superseded version, for as long as some revision can be read at which it was
// current. Its value is in the event window or in the archive.
type past struct {
	main int64
	sub  uint32 // Sub<<1, and 1 for a tombstone
	sum  uint32
	size uint32 // bytes of Value
}

// Revision returns the revision of the write that made v.
func (v *Version) Revision() Revision { return Revision{Main: v.Mod, Sub: v.Sub} }

// KeyValue returns v as etcd's message. The Value is shared with v and must not be written to. A tombstone has only its
// key and mod revision, as in etcd's delete events.
func (v *Version) KeyValue() *mvccpb.KeyValue {
	kv := &mvccpb.KeyValue{Key: []byte(v.Key)}
	v.fill(kv)
	return kv
}

// fill sets all of kv but its key.
func (v *Version) fill(kv *mvccpb.KeyValue) {
	kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease = v.Value, v.Create, v.Mod, v.Count, v.Lease
}

// past returns the record that remains of v once it is superseded.
func (v *Version) past() past {
	p := past{main: v.Mod, sub: uint32(v.Sub) << 1, sum: v.sum, size: uint32(len(v.Value))}
	if v.Deleted {
		p.sub |= 1
	}
	return p
}

func (p past) deleted() bool      { return p.sub&1 != 0 }
func (p past) revision() Revision { return Revision{Main: p.main, Sub: int64(p.sub >> 1)} }

// at finds the version of the key that was current at revision rev: v itself (newest true), or older[i], or none (ok
// false) because the key did not exist yet. The version found may be a tombstone.
func (v *Version) at(rev int64) (i int, newest, ok bool) {
	if v.Mod <= rev {
		return 0, true, true
	}
	i = sort.Search(len(v.older), func(i int) bool { return v.older[i].main > rev }) - 1
	return i, false, i >= 0
}

// discarded returns how many of the oldest entries of older a compaction at revision rev discards, and whether it
// discards v as well. Compaction keeps what can be read at rev or later: everything above rev and the newest at or below it,
// unless that is a tombstone below rev. A tombstone exactly at rev stays, because a watch may start there (etcd #19179).
func (v *Version) discarded(rev int64) (older int, all bool) {
	if v.Mod <= rev {
		return len(v.older), v.Deleted && v.Mod < rev
	}
	i, _, ok := v.at(rev)
	switch {
	case !ok:
		return 0, false
	case v.older[i].deleted() && v.older[i].main < rev:
		return i + 1, false
	default:
		return i, false
	}
}

// trimmed returns a copy of v without the n oldest entries of older. The rest moves to an array of its own, so that the
// old one can be collected.
func (v *Version) trimmed(n int) *Version {
	c := *v
	c.older = append([]past(nil), v.older[n:]...)
	return &c
}

// castagnoli is the polynomial with hardware support on every platform that we run on.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum computes the sum of v, with scratch as working space; it returns the space for the next call.
func (v *Version) checksum(scratch []byte) (uint32, []byte) {
	b := scratch[:0]
	for _, n := range [...]int64{v.Create, v.Mod, v.Sub, v.Count, v.Lease, int64(len(v.Key))} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	if v.Deleted {
		b = append(b, 1)
	}
	b = append(b, v.Key...)
	return crc32.Update(crc32.Update(0, castagnoli, b), castagnoli, v.Value), b
}

// text returns b as a string without copying it: for as long as the string is used, nobody may write to b.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
