package state

import (
	"fmt"

	"github.com/tidwall/btree"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// reader is the state that a read works on: a View's, or the machine's in the middle of a command. It never writes.
type reader struct {
	live, dead *btree.Map[string, *Version]
	history    History
	archive    Archive
	revision   int64 // the current one
	compact    int64
	lost       error // what it means when a version is nowhere
}

// bounds is a range of keys: one key, or [from, to), or everything from from on when open.
type bounds struct {
	from, to     string
	single, open bool
}

// boundsOf reads a range as etcd's requests give it: no end is the one key, an end of "\x00" is open. An empty end and
// an absent one are the same. The strings are the request's bytes: they must not be kept.
func boundsOf(key, end []byte) bounds {
	b := bounds{from: text(key), to: text(end)}
	b.single = len(end) == 0
	b.open = len(end) == 1 && end[0] == 0
	return b
}

// ascend calls fn for the live versions in the range, in order of their keys, until it returns false.
func (r *reader) ascend(b bounds, fn func(*Version) bool) {
	if b.single {
		if v, ok := r.live.Get(b.from); ok {
			fn(v)
		}
		return
	}
	r.live.Ascend(b.from, func(key string, v *Version) bool {
		return (b.open || key < b.to) && fn(v)
	})
}

// rangeKeys answers a range request.
func (r *reader) rangeKeys(q *pb.RangeRequest) (*pb.RangeResponse, error) {
	return nil, fmt.Errorf("not yet")
}
