package state

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// View is the state at one applied index. It is immutable and may be read from any number of goroutines, for any time:
// what is applied, swept or archived later does not change its answers. The one exception is a read of an old revision
// that was compacted since: its versions may have left both memory and the archive, and then it gives ErrCompacted.
type View struct {
	reader reader
	index  uint64
	auth   *Auth
}

// View returns the present state. It is O(1): the trees are copied when they are next written to, node by node. While
// nothing is applied it returns the same View.
func (m *Machine) View() *View {
	if m.view == nil {
		r := m.reader()
		r.live, r.dead, r.lost = m.live.Copy(), m.dead.Copy(), ErrCompacted
		m.view = &View{reader: r, index: m.index, auth: m.Auth()}
	}
	return m.view
}

// Revision returns the current revision of the view.
func (v *View) Revision() int64 { return v.reader.revision }

// CompactRevision returns the lowest revision that the view can read, -1 when nothing was ever compacted.
func (v *View) CompactRevision() int64 { return v.reader.compact }

// AppliedIndex returns the index of the last entry whose effects the view shows.
func (v *View) AppliedIndex() uint64 { return v.index }

// History returns the events that were in memory when the view was taken.
func (v *View) History() History { return v.reader.history }

// Get returns the live version of a key, nil when it does not exist.
func (v *View) Get(key string) *Version {
	version, _ := v.reader.live.Get(key)
	return version
}

// AtMost reports whether a range has no more than n keys now. It visits n+1 keys at most.
func (v *View) AtMost(n int, key, rangeEnd []byte) bool {
	v.reader.ascend(boundsOf(key, rangeEnd), func(*Version) bool {
		n--
		return n >= 0
	})
	return n >= 0
}

// CountTo returns how many keys a range has now, or n if it has more. It visits n keys at most.
func (m *Machine) CountTo(n int, key, rangeEnd []byte) int {
	count := 0
	if n > 0 {
		r := reader{live: m.live}
		r.ascend(boundsOf(key, rangeEnd), func(*Version) bool {
			count++
			return count < n
		})
	}
	return count
}

// Range answers a range request at the view's revision, or at the older one that it names: ErrCompacted below the
// compact revision, ErrFutureRevision above the current one, ErrArchive when the archive fails. The response shares
// values with the store and must not be written to; its header has only the view's revision.
func (v *View) Range(r *pb.RangeRequest) (*pb.RangeResponse, error) { return v.reader.rangeKeys(r) }

// Txn answers a transaction that holds only compares and ranges, also in nested transactions; ErrNotReadOnly for any
// other. Errors are those of Range.
func (v *View) Txn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if !IsReadOnly(r) {
		return nil, ErrNotReadOnly
	}
	t := txn{read: v.reader}
	return t.run(r)
}
