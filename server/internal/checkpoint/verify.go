package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"
)

// bbolt's meta page, of which there are two: after a page header, magic, version, page size, flags, root bucket (page,
// sequence), freelist page, number of pages, transaction, and an FNV-64a over all of that.
const (
	metaHeaderBytes   = 16
	metaSumOffset     = 56
	metaBytes         = metaHeaderBytes + metaSumOffset + 8
	boltMagic         = 0xED0CDAED
	boltVersion       = 2
	pageBytesMin      = 1 << 10
	pageBytesMax      = 1 << 16 // the largest page of any system that we run on
	readAheadBytes    = 1 << 20
	pagesOffset       = 40 // of the number of pages within the meta
	transactionOffset = 48
)

// inspect looks at the file's meta pages before bbolt does, which would make a new database of an empty file, map a
// truncated one and fault, and has the same words for everything else. It then reads the whole file once, in order:
// bbolt maps it for random access, where a cold start would wait for the disk page by page.
func inspect(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("not a regular file: %w", ErrForeign)
	}
	head := make([]byte, min(info.Size(), 2*pageBytesMax))
	if _, err := io.ReadFull(f, head); err != nil {
		return err
	}
	size, ok := databaseSize(head)
	if !ok {
		return fmt.Errorf("not a database, or both of its meta pages are damaged: %w", ErrForeign)
	}
	if info.Size() < size {
		return fmt.Errorf("has %d bytes of %d: %w", info.Size(), size, ErrDamaged)
	}
	for b := make([]byte, readAheadBytes); err == nil; {
		_, err = f.Read(b)
	}
	if err != io.EOF {
		return err
	}
	return nil
}

// databaseSize returns how many bytes the newest valid meta page says that the file uses.
func databaseSize(head []byte) (size int64, ok bool) {
	var newest uint64
	try := func(offset int) (pageBytes int) {
		if offset+metaBytes > len(head) {
			return 0
		}
		m := head[offset+metaHeaderBytes:]
		sum := fnv.New64a()
		sum.Write(m[:metaSumOffset])
		pageBytes = int(binary.NativeEndian.Uint32(m[8:]))
		if binary.NativeEndian.Uint32(m) != boltMagic || binary.NativeEndian.Uint32(m[4:]) != boltVersion ||
			binary.NativeEndian.Uint64(m[metaSumOffset:]) != sum.Sum64() || pageBytes < pageBytesMin || pageBytes > pageBytesMax {
			return 0
		}
		if tx := binary.NativeEndian.Uint64(m[transactionOffset:]); !ok || tx > newest {
			newest, ok = tx, true
			size = int64(binary.NativeEndian.Uint64(m[pagesOffset:])) * int64(pageBytes)
		}
		return pageBytes
	}
	if n := try(0); n > 0 {
		try(n)
		return size, ok
	}
	for n := pageBytesMin; n <= pageBytesMax && !ok; n *= 2 {
		try(n)
	}
	return size, ok
}

// verified is what a file contains once all of it has been looked at.
type verified struct {
	identity identity
	position position
	meta     Meta
}

// verify reads every row of the file without writing to it. What it accepts is safe to open for writing: bbolt then
// walks the same pages on a goroutine of its own, where a panic could not be caught.
func verify(path string) (verified, error) {
	if err := inspect(path); err != nil {
		return verified{}, err
	}
	var v verified
	err := guard(func() error {
		db, err := bolt.Open(path, fileMode, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
		if err != nil {
			return openError(err)
		}
		return errors.Join(db.View(func(tx *bolt.Tx) (err error) {
			v, err = verifyTx(tx)
			return err
		}), db.Close())
	})
	return v, err
}

func verifyTx(tx *bolt.Tx) (verified, error) {
	v, err := readRows(tx)
	if err != nil {
		return v, err
	}
	got, err := count(tx)
	if err != nil {
		return v, err
	}
	if got != v.position.content {
		return v, fmt.Errorf("content differs from its checksum (%d rows of %d): changed by another program, or %w",
			got.rows, v.position.content.rows, ErrDamaged)
	}
	return v, nil
}

// readRows reads what is said about the file as a whole.
func readRows(tx *bolt.Tx) (v verified, err error) {
	own := tx.Bucket(ownBucket)
	if own == nil {
		return v, fmt.Errorf("has no bucket %q; one of etcd's has to be restored first: %w", ownBucket, ErrForeign)
	}
	for _, name := range etcdBuckets {
		if tx.Bucket(name) == nil {
			return v, fmt.Errorf("has no bucket %q: %w", name, ErrDamaged)
		}
	}
	if v.identity, err = decodeIdentity(own.Get(identityKey)); err != nil {
		return v, damaged(err)
	}
	if v.position, err = decodePosition(own.Get(stateKey)); err != nil {
		return v, damaged(err)
	}
	conf, err := decodeConfState(tx.Bucket(metaBucket).Get(confStateKey))
	if err != nil {
		return v, damaged(err)
	}
	v.meta = Meta{
		Index: v.position.index, Term: v.position.term, ConfState: conf,
		ClusterID: v.identity.cluster, MemberID: v.identity.member,
	}
	return v, nil
}

// count reads all rows of all buckets but ours. Keys that do not ascend are a page that is used twice.
func count(tx *bolt.Tx) (c content, err error) {
	err = tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		if bytes.Equal(name, ownBucket) {
			return nil
		}
		var last []byte
		return b.ForEach(func(k, v []byte) error {
			if last != nil && bytes.Compare(last, k) >= 0 || v == nil {
				return fmt.Errorf("bucket %q: key %x after %x: %w", name, k, last, ErrDamaged)
			}
			last = k
			c.add(name, k, v)
			return nil
		})
	})
	return c, err
}

// guard makes errors of the panics and faults with which bbolt answers damage. fn must not call code of others that may
// panic for reasons of its own.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return fn()
}

func damaged(err error) error {
	if errors.Is(err, ErrForeign) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}
