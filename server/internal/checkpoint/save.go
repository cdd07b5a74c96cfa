package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/latchkey-go/latchkey/server/internal/state"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// keyFill is how full bbolt makes the leaves of the key bucket, which grows at its end only.
const keyFill = 0.9

// errOrder: changes do not follow what the file holds. Only a mistake of the caller can be the reason.
var errOrder = errors.New("out of order")

// Save makes changes durable in one transaction: rows, applied index, term, revision, and the ConfState unless nil. The
// changes must follow those of the last Save or Load. Any error is final: all later calls return it, and the process
// has to end, since what the file shows may not be what the disk holds.
func (s *Store) Save(ch state.Changes, conf *raftpb.ConfState) error {
	if ch.Empty() && conf == nil {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.failed != nil {
		return s.failed
	}
	db, p, err := s.current()
	if err != nil {
		return err
	}
	old := p
	var size int64
	err = guard(func() error {
		defer s.arena.reset()
		return db.Update(func(tx *bolt.Tx) error {
			p = old
			w := writer{tx: tx, pos: &p, arena: &s.arena}
			if !ch.Empty() {
				w.changes(ch)
			}
			if conf != nil {
				w.conf(conf)
			}
			w.finish()
			size = tx.Size()
			return w.err
		})
	})
	if err != nil {
		s.failed = fmt.Errorf("save checkpoint %s at index %d: %w", s.path, ch.Index, err)
		return s.failed
	}
	unmap(db, size)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pos = p
	s.meta.Index, s.meta.Term = p.index, p.term
	if conf != nil {
		s.meta.ConfState = proto.CloneOf(conf)
	}
	return nil
}

// Rest lets go of the memory that the last Save leaves for the next one.
func (s *Store) Rest() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.arena = arena{}
}

// writer writes rows in a transaction. Its first error stays, and nothing is written after it.
type writer struct {
	tx    *bolt.Tx
	pos   *position
	arena *arena // values, which bbolt needs until the commit
	key   []byte
	err   error
}

func (w *writer) table(name []byte) table {
	return table{bucket: w.tx.Bucket(name), name: name, content: &w.pos.content}
}

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *writer) set(bucket, k, v []byte) {
	if w.err == nil {
		w.err = w.table(bucket).set(k, v)
	}
}

func (w *writer) own(k, v []byte) {
	if w.err == nil {
		w.err = w.tx.Bucket(ownBucket).Put(k, v)
	}
}

func (w *writer) conf(c *raftpb.ConfState) {
	row, err := encodeConfState(c)
	w.fail(err)
	w.set(metaBucket, confStateKey, row)
}

func (w *writer) members(members []state.Member) {
	for _, m := range members {
		row, err := encodeMember(m)
		w.fail(err)
		w.set(membersBucket, memberKey(m.ID), row)
	}
}

// changes writes all that changed. What was written and removed since the last time is not written at all.
func (w *writer) changes(ch state.Changes) {
	if ch.Index < w.pos.index || ch.Revision < w.pos.revision || ch.Compact < w.pos.compact {
		w.fail(fmt.Errorf("index %d, revision %d, compact revision %d after %d, %d, %d: %w",
			ch.Index, ch.Revision, ch.Compact, w.pos.index, w.pos.revision, w.pos.compact, errOrder))
		return
	}
	removed := slices.SortedFunc(slices.Values(ch.Removed), state.Revision.Compare)
	w.versions(ch.Versions, removed)
	w.remove(removed)
	for _, l := range ch.Leases {
		w.set(leaseBucket, leaseKey(l.ID), encodeLease(l))
	}
	for _, id := range ch.RevokedLeases {
		if w.err == nil {
			w.err = w.table(leaseBucket).delete(leaseKey(id))
		}
	}
	w.members(ch.Members)
	w.removeMembers(ch.RemovedMembers)
	w.auth(ch.Auth)
	w.notices(ch.Notices)
	if ch.Compact != w.pos.compact {
		w.set(metaBucket, scheduledKey, appendRevision(nil, state.Revision{Main: ch.Compact}, false))
	}
	if ch.SweptTo > 0 {
		w.set(metaBucket, finishedKey, appendRevision(nil, state.Revision{Main: ch.SweptTo}, false))
	}
	w.pos.index, w.pos.term, w.pos.revision, w.pos.compact = ch.Index, ch.Term, ch.Revision, ch.Compact
}

// versions inserts versions, in revision order and all above what the file holds, except the removed ones.
func (w *writer) versions(versions []*state.Version, removed []state.Revision) {
	keys := w.table(keyBucket)
	keys.bucket.FillPercent = keyFill
	last := state.Revision{Main: w.pos.revision, Sub: 1<<63 - 1}
	for _, v := range versions {
		if w.err != nil {
			return
		}
		rev := v.Revision()
		if rev.Compare(last) <= 0 {
			w.fail(fmt.Errorf("version at %v after %v: %w", rev, last, errOrder))
			return
		}
		last = rev
		for len(removed) > 0 && removed[0].Compare(rev) < 0 {
			removed = removed[1:]
		}
		if len(removed) > 0 && removed[0] == rev {
			continue
		}
		w.key = appendRevision(w.key[:0], rev, v.Deleted)
		w.err = keys.insert(w.key, w.keep(v))
	}
}

// keep encodes v in the arena.
func (w *writer) keep(v *state.Version) []byte {
	return appendVersion(w.arena.space(versionSize(v)), v)
}

// remove deletes versions, in revision order. Whether one is a tombstone is in its key, which is looked for.
func (w *writer) remove(removed []state.Revision) {
	if len(removed) == 0 || w.err != nil {
		return
	}
	keys := w.table(keyBucket)
	cursor := keys.bucket.Cursor()
	for _, rev := range removed {
		w.key = appendRevision(w.key[:0], rev, false)
		k, row := cursor.Seek(w.key)
		if !bytes.HasPrefix(k, w.key) {
			continue // written and removed since the last time
		}
		keys.content.remove(keyBucket, k, row)
		if w.err = cursor.Delete(); w.err != nil {
			return
		}
	}
}

// finish writes the rows about the file as a whole. etcd never stores an index or term of zero.
func (w *writer) finish() {
	for _, row := range []struct {
		key []byte
		n   uint64
	}{{indexKey, w.pos.index}, {termKey, w.pos.term}} {
		if row.n > 0 {
			w.set(metaBucket, row.key, leaseKey(int64(row.n)))
		}
	}
	w.own(stateKey, w.pos.encode())
}
