package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

var (
	// ErrNoHash: the file does not end in the hash that a snapshot has. It may be a copy of a database file.
	ErrNoHash = errors.New("no hash at its end")
	// ErrVersion: the file is of a version of etcd's storage that this program does not read.
	ErrVersion = errors.New("unknown storage version")
)

// snapshotUnit is what the length of a database file is a multiple of. A snapshot has a SHA-256 of the file behind it.
const snapshotUnit = 512

// Origins of a Source.
const (
	OriginEtcd     = "etcd"
	OriginLatchkey = "latchkey"
)

// About is what a database file holds.
type About struct {
	Origin  string // OriginEtcd or OriginLatchkey: who wrote to it last
	Version string // of etcd's storage schema, as in "3.7.0"; empty before 3.6
	// Hash is the CRC32C of all rows that `etcdutl snapshot status` shows.
	Hash     uint32
	Revision int64 // current
	Compact  int64 // the lowest revision that can be read; -1 when nothing was ever compacted
	Keys     int   // that exist, as etcdutl counts them
	Leases   int
	Members  int
	Bytes    int64 // of the database, without the hash behind it

	Index, Term         uint64 // of the last entry applied
	ClusterID, MemberID uint64 // zero in a file of etcd, which does not say

	// Digest stands for the keys, leases, users, roles and alarms: equal contents have equal digests, whoever wrote them.
	Digest uint64
	// Hashed says that the file ends in a hash, which is right.
	Hashed bool
}

// Source is a database file of etcd 3.6 or 3.7, or of ours, that was read whole: a snapshot, or the file of a member
// that is stopped. It is locked against writers until Close.
type Source struct {
	path   string
	file   *os.File
	layout layout
	about  About
	leases map[int64]bool
}

// OpenSource reads all of a file, page by page, and refuses one that is damaged (ErrDamaged), none of etcd's or ours
// (ErrForeign) or in use (ErrInUse). With needHash it also refuses one without a hash at
// its end (ErrNoHash) and verifies that; otherwise a hash is left aside. The caller closes the source.
func OpenSource(path string, needHash bool) (*Source, error) {
	s := &Source{path: path}
	doing := func(err error) error {
		if s.file != nil {
			err = errors.Join(err, s.file.Close())
		}
		return fmt.Errorf("read %s: %w", path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	s.file = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, doing(err)
	}
	if needHash {
		if err := checkHash(f); err != nil {
			return nil, doing(err)
		}
		s.about.Hashed = true
	}
	if s.layout, err = readMeta(f); err != nil {
		return nil, doing(err)
	}
	if s.layout.metas != 2 {
		// The other one may be of an older transaction. A member has its log to tell, a copy has not.
		return nil, doing(fmt.Errorf("one of its two meta pages is not valid: %w", ErrDamaged))
	}
	if err := readAhead(f, s.layout.size()); err != nil {
		return nil, doing(err)
	}
	if err := s.survey(); err != nil {
		return nil, doing(err)
	}
	return s, nil
}

// About returns what the file holds.
func (s *Source) About() About { return s.about }

// Close lets go of the file.
func (s *Source) Close() error { return s.file.Close() }

// checkHash holds the file against the hash at its end.
func checkHash(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("not a regular file: %w", ErrForeign)
	}
	if info.Size()%snapshotUnit != sha256.Size {
		return fmt.Errorf("%w: a snapshot was cut short, or this is a copy of a database file", ErrNoHash)
	}
	body := info.Size() - sha256.Size
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, body)); err != nil {
		return err
	}
	want := make([]byte, sha256.Size)
	if _, err := f.ReadAt(want, body); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return fmt.Errorf("its SHA-256 is not the one at its end: %w", ErrDamaged)
	}
	return nil
}

// surveyed are the rows that say something about the file as a whole.
var surveyed = []string{
	"meta/consistent_index", "meta/term", "meta/confState", "meta/storageVersion", "meta/scheduledCompactRev",
	"meta/finishedCompactRev", "latchkey/identity", "latchkey/state",
}

// survey reads all rows once.
type survey struct {
	about  *About
	crc    uint32
	all    content             // etcd's buckets, as our own row `state` counts them
	digest content             // what a restore keeps
	keys   map[string]struct{} // that exist
	leases map[int64]bool
	rows   map[string][]byte // those of surveyed
	newest int64             // revision of the last version
}

func (s *Source) survey() error {
	v := &survey{about: &s.about, keys: make(map[string]struct{}), leases: make(map[int64]bool), rows: make(map[string][]byte)}
	buckets, err := walkBuckets(s.file, s.layout,
		func(name []byte) { v.crc = crc32.Update(v.crc, castagnoli, name) }, v.row)
	if err != nil {
		return err
	}
	for _, name := range [][]byte{keyBucket, metaBucket, leaseBucket} {
		if !buckets[string(name)] {
			return fmt.Errorf("has no bucket %q: %w", name, ErrForeign)
		}
	}
	if err := v.finish(buckets[string(ownBucket)]); err != nil {
		return err
	}
	s.leases = v.leases
	a := &s.about
	a.Hash, a.Keys, a.Leases, a.Bytes = v.crc, len(v.keys), len(v.leases), s.layout.size()
	return nil
}

func (v *survey) row(bucket, k, row []byte) error {
	v.crc = crc32.Update(crc32.Update(v.crc, castagnoli, k), castagnoli, row)
	name := string(bucket)
	if name == string(ownBucket) || name == string(metaBucket) {
		if id := name + "/" + string(k); slices.Contains(surveyed, id) {
			v.rows[id] = bytes.Clone(row)
		}
	}
	if name == string(ownBucket) {
		return nil
	}
	v.all.add(bucket, k, row)
	switch name {
	case string(membersBucket):
		v.about.Members++
	case string(keyBucket):
		return v.key(k, row)
	case string(leaseBucket):
		lease, err := decodeLease(k, row)
		if err != nil {
			return damaged(err)
		}
		v.leases[lease.ID] = true
		lease.Index = 0
		v.digest.add(bucket, k, encodeLease(lease))
	default:
		if isKept(bucket) {
			v.digest.add(bucket, k, row)
		}
	}
	return nil
}

func (v *survey) key(k, row []byte) error {
	rev, deleted, err := parseRevision(k)
	if err != nil {
		return damaged(err)
	}
	if rev.Main < 1 || rev.Sub > math.MaxInt32 {
		return damaged(fmt.Errorf("version at revision %v: %w", rev, errRow))
	}
	key, err := checkVersion(rev.Main, deleted, row)
	if err != nil {
		return damaged(fmt.Errorf("version at revision %v: %w", rev, err))
	}
	v.newest = rev.Main
	if deleted {
		delete(v.keys, string(key))
	} else {
		v.keys[string(key)] = struct{}{}
	}
	v.digest.add(keyBucket, k, row)
	return nil
}

// checkVersion decodes a row as far as its key, without a copy, and holds it against what a store can have written.
// The key shares memory with row.
func checkVersion(main int64, deleted bool, row []byte) (key []byte, err error) {
	if isBump(deleted, row) {
		return nil, nil
	}
	var create, mod, count int64
	err = eachField(row, func(field protowire.Number, n uint64, b []byte) {
		switch field {
		case fieldKey:
			key = b
		case fieldCreate:
			create = int64(n)
		case fieldMod:
			mod = int64(n)
		case fieldVersion:
			count = int64(n)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case len(key) == 0, !deleted && (mod != main || create < 1 || create > mod || count < 1):
		return nil, errRow
	}
	return key, nil
}

// isBump recognises the row that `etcdutl snapshot restore --bump-revision` leaves behind: a version of no key, which
// only says how far revisions have come.
func isBump(deleted bool, row []byte) bool { return !deleted && len(row) == 0 }

// finish makes sense of the rows about the file as a whole.
func (v *survey) finish(own bool) error {
	a := v.about
	meta := func(key []byte) []byte { return v.rows[string(metaBucket)+"/"+string(key)] }
	var err error
	if a.Index, err = number(meta(indexKey)); err != nil {
		return err
	}
	if a.Term, err = number(meta(termKey)); err != nil {
		return err
	}
	a.Compact = -1
	for _, key := range [][]byte{scheduledKey, finishedKey} {
		if row := meta(key); row != nil {
			rev, _, err := parseRevision(row)
			if err != nil {
				return damaged(fmt.Errorf("%s: %w", key, err))
			}
			a.Compact = max(a.Compact, rev.Main)
		}
	}
	a.Revision = max(v.newest, a.Compact, 1)
	a.Origin, a.Digest = OriginEtcd, v.digest.sum+v.digest.rows
	a.Version = string(meta(storageVersionKey))
	if !own {
		return nil
	}
	return v.finishOwn()
}

// finishOwn looks at our own bucket. etcd carries it along when it runs on a file of ours, and its rows are then stale:
// the applied index, which we write in the same transaction, is another.
func (v *survey) finishOwn() error {
	a := v.about
	ours, err := describe(v.rows[string(ownBucket)+"/"+string(identityKey)], v.rows[string(ownBucket)+"/"+string(stateKey)],
		v.rows[string(metaBucket)+"/"+string(confStateKey)])
	if err != nil {
		return err
	}
	p := ours.position
	same := v.all // but for these two, that damage must not make our rows look stale
	for key, n := range map[string]uint64{string(indexKey): p.index, string(termKey): p.term} {
		if row := v.rows[string(metaBucket)+"/"+key]; row != nil {
			same.remove(metaBucket, []byte(key), row)
			same.add(metaBucket, []byte(key), leaseKey(int64(n)))
		}
	}
	if p.content != same && (p.index != a.Index || p.term != a.Term) {
		return nil
	}
	if p.content != v.all {
		return fmt.Errorf("content differs from its checksum (%d rows of %d): %w", v.all.rows, p.content.rows, ErrDamaged)
	}
	a.Origin, a.Revision, a.Compact = OriginLatchkey, p.revision, p.compact
	a.ClusterID, a.MemberID = ours.identity.cluster, ours.identity.member
	return nil
}

// CheckVersion refuses a file whose storage version is not one that Import reads, with ErrVersion. It reads those of
// etcd 3.6 and 3.7, which are the same.
func (s *Source) CheckVersion() error {
	switch found := s.about.Version; {
	case found == "":
		return fmt.Errorf("read %s: %w: it has none, so etcd 3.5 or older wrote it, or 3.6 in its first seconds; upgrade that "+
			"cluster to 3.6 or 3.7 and take a new snapshot", s.path, ErrVersion)
	case strings.HasPrefix(found, "3.6."), strings.HasPrefix(found, "3.7."):
		return nil
	default:
		return fmt.Errorf("read %s: %w %q: this program reads 3.6 and 3.7", s.path, ErrVersion, found)
	}
}

func number(row []byte) (uint64, error) {
	switch len(row) {
	case 0:
		return 0, nil
	case 8:
		return binary.BigEndian.Uint64(row), nil
	}
	return 0, damaged(errRow)
}

// isKept says whether a restore keeps the rows of a bucket as they are.
func isKept(bucket []byte) bool {
	for _, name := range keptBuckets {
		if bytes.Equal(bucket, name) {
			return true
		}
	}
	return false
}
