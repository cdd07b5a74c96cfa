package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/latchkey-go/latchkey/server/internal/state"
	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// A transaction of an import has this much, so that memory does not grow with the file.
const (
	importRowsMax  = 20_000
	importBytesMax = 8 << 20
)

// keptBuckets go over as they are. Everything else is decoded, or made anew.
var keptBuckets = [][]byte{alarmBucket, authBucket, usersBucket, rolesBucket}

// ImportConfig says what the new checkpoint does not take from its source.
type ImportConfig struct {
	Meta    Meta // whose checkpoint it is, and at which point of the new log
	Members []state.Member
	// Bump is added to the current revision, and everything up to there counts as compacted: no revision that was given
	// out after the source was written is given out again. 0 leaves both as they are.
	Bump int64
}

// Imported is what an import made.
type Imported struct {
	Revision, Compact int64
	// Detached are the keys that named a lease that does not exist. etcd keeps such keys for ever, and so does the import:
	// without the lease.
	Detached int
}

// Import makes a checkpoint at path, which must not exist, of what the source holds. It is durable when Import returns, but
// for its name; after an error nothing is left. The entries that granted the leases are in no log any more, so the
// leases count as granted before the first one.
func (s *Source) Import(path string, c ImportConfig) (Imported, error) {
	doing := func(err error) error { return fmt.Errorf("import %s: %w", s.path, err) }
	if err := s.CheckVersion(); err != nil {
		return Imported{}, err
	}
	if c.Bump < 0 || c.Bump > math.MaxInt64/2 || s.about.Revision > math.MaxInt64/2 {
		return Imported{}, doing(fmt.Errorf("bump of revision %d by %d", s.about.Revision, c.Bump))
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return Imported{}, doing(fmt.Errorf("%s: %w", path, errors.Join(err, fs.ErrExist)))
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return Imported{}, doing(err)
	}
	var out Imported
	err := guard(func() (err error) {
		out, err = s.importTo(path, c)
		return err
	})
	if err == nil {
		err = syncFile(path)
	}
	if err != nil {
		if gone := os.Remove(path); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return Imported{}, doing(err)
	}
	return out, nil
}

func (s *Source) importTo(path string, c ImportConfig) (out Imported, err error) {
	o := options()
	o.NoSync = true // until the end
	db, err := bolt.Open(path, fileMode, o)
	if err != nil {
		return out, openError(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	p := position{index: c.Meta.Index, term: c.Meta.Term, revision: s.about.Revision, compact: s.about.Compact}
	if c.Bump > 0 {
		p.revision += c.Bump
		p.compact = p.revision
	}
	m := &importer{db: db, pos: p, leases: s.leases, dangling: make(map[string]state.Revision)}
	defer m.rollback()
	if err := m.begin(); err != nil {
		return out, err
	}
	for _, name := range append(append([][]byte(nil), etcdBuckets...), ownBucket) {
		if _, err := m.tx.CreateBucket(name); err != nil {
			return out, err
		}
	}
	if _, err := walk(s.file, s.layout, m.row); err != nil {
		return out, err
	}
	if err := m.detach(); err != nil {
		return out, err
	}
	if err := m.finish(c); err != nil {
		return out, err
	}
	return Imported{Revision: p.revision, Compact: p.compact, Detached: m.detached}, db.Sync()
}

// importer writes rows in transactions of a bounded size.
type importer struct {
	db       *bolt.DB
	tx       *bolt.Tx
	writer   writer
	arena    arena
	pos      position
	leases   map[int64]bool            // that exist
	dangling map[string]state.Revision // the newest version of each key whose lease does not
	detached int
	rows     int // in this transaction
	bytes    int
}

func (m *importer) begin() (err error) {
	if m.tx, err = m.db.Begin(true); err != nil {
		return err
	}
	m.arena.reset()
	m.writer, m.rows, m.bytes = writer{tx: m.tx, pos: &m.pos, arena: &m.arena}, 0, 0
	return nil
}

func (m *importer) commit() error {
	if m.writer.err != nil {
		return m.writer.err
	}
	tx := m.tx
	m.tx = nil
	return tx.Commit()
}

func (m *importer) rollback() {
	if m.tx != nil {
		_ = m.tx.Rollback() // the file is removed
	}
}

// row takes over one row. Its bytes are copied: they are valid for this call only.
func (m *importer) row(bucket, k, row []byte) error {
	switch {
	case string(bucket) == string(keyBucket):
		if err := m.version(k, row); err != nil {
			return err
		}
	case string(bucket) == string(leaseBucket):
		l, err := decodeLease(k, row)
		if err != nil {
			return damaged(err)
		}
		l.Index, l.TTL = 0, min(max(l.TTL, 1), state.MaxLeaseTTL)
		m.put(bucket, leaseKey(l.ID), encodeLease(l))
	case string(bucket) == string(alarmBucket) && isOwnSpaceAlarm(k, row):
		return nil
	case isKept(bucket):
		m.put(bucket, append([]byte(nil), k...), append([]byte(nil), row...))
	default:
		return nil
	}
	m.rows++
	m.bytes += len(k) + len(row)
	if m.rows < importRowsMax && m.bytes < importBytesMax {
		return m.writer.err
	}
	if err := m.commit(); err != nil {
		return err
	}
	return m.begin()
}

// isOwnSpaceAlarm recognises a NOSPACE alarm that a member raised and would clear itself: the member is no more, and the
// new ones raise their own.
func isOwnSpaceAlarm(k, row []byte) bool {
	kind := pb.AlarmType_NONE
	err := eachField(k, func(field protowire.Number, n uint64, _ []byte) {
		if field == fieldAlarmType {
			kind = pb.AlarmType(n)
		}
	})
	return err == nil && kind == pb.AlarmType_NOSPACE && bytes.Equal(row, raisedMark)
}

func (m *importer) put(bucket, k, v []byte) {
	if m.writer.err == nil {
		m.writer.err = m.writer.table(bucket).insert(k, v)
	}
}

func (m *importer) version(k, row []byte) error {
	if isBump(len(k) > revisionBytes, row) {
		return nil
	}
	var v state.Version
	if err := decodeVersion(&v, k, row); err != nil {
		return damaged(err)
	}
	if v.Lease != 0 && !m.leases[v.Lease] {
		m.dangling[v.Key] = v.Revision()
	} else if len(m.dangling) > 0 {
		delete(m.dangling, v.Key)
	}
	m.tx.Bucket(keyBucket).FillPercent = keyFill
	m.put(keyBucket, appendRevision(nil, v.Revision(), v.Deleted), m.writer.keep(&v))
	return nil
}

// detach takes the lease off the keys whose newest version names one that does not exist.
func (m *importer) detach() error {
	for _, rev := range m.dangling {
		k := appendRevision(nil, rev, false)
		var v state.Version
		if err := decodeVersion(&v, k, m.tx.Bucket(keyBucket).Get(k)); err != nil {
			return damaged(err)
		}
		v.Lease = 0
		m.writer.set(keyBucket, k, m.writer.keep(&v))
		m.detached++
	}
	return m.writer.err
}

// finish writes the rows that are not the source's.
func (m *importer) finish(c ImportConfig) error {
	w := &m.writer
	w.members(c.Members)
	w.conf(c.Meta.ConfState)
	w.set(metaBucket, storageVersionKey, []byte(etcdVersion))
	w.set(clusterBucket, clusterVersionKey, []byte(etcdVersion))
	if m.pos.compact >= 0 {
		w.set(metaBucket, scheduledKey, appendRevision(nil, state.Revision{Main: m.pos.compact}, false))
	}
	w.finish()
	w.own(identityKey, identity{c.Meta.ClusterID, c.Meta.MemberID}.encode())
	return m.commit()
}
