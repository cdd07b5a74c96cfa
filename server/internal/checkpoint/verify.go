package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"
)

const readAheadBytes = 1 << 20

// verified is what a file says about itself once all of it has been looked at.
type verified struct {
	identity identity
	position position
	meta     Meta
}

// verify reads every row of the file without writing to it. What it accepts is safe to open for writing.
func verify(path string) (verified, error) {
	f, err := os.Open(path)
	if err != nil {
		return verified{}, err
	}
	defer f.Close()
	if _, err := inspect(f); err != nil {
		return verified{}, err
	}
	// bbolt's lock, shared, without having bbolt look at any page but the meta pages.
	lock, err := bolt.Open(path, fileMode, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return verified{}, openError(err)
	}
	v, err := verifyFile(f)
	return v, errors.Join(err, lock.Close())
}

// inspect looks at the meta pages before bbolt does, which makes a new database of an empty file, maps a truncated one
// and faults, and has the same words for everything else.
func inspect(f *os.File) (layout, error) {
	l, err := readMeta(f)
	if err == nil && l.freelist != noFreelist {
		err = fmt.Errorf("has a stored freelist, so another program wrote it: %w", ErrForeign)
	}
	return l, err
}

func readMeta(f *os.File) (layout, error) {
	info, err := f.Stat()
	if err != nil {
		return layout{}, err
	}
	if !info.Mode().IsRegular() {
		return layout{}, fmt.Errorf("not a regular file: %w", ErrForeign)
	}
	head := make([]byte, min(info.Size(), 2*pageBytesMax))
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return layout{}, err
	}
	l, ok := readLayout(head)
	switch {
	case !ok:
		return l, fmt.Errorf("not a database, or both of its meta pages are damaged: %w", ErrForeign)
	case info.Size() < l.size():
		return l, fmt.Errorf("has %d bytes of %d: %w", info.Size(), l.size(), ErrDamaged)
	}
	return l, nil
}

// verifyFile requires that nobody writes to f meanwhile.
func verifyFile(f *os.File) (v verified, err error) {
	l, err := inspect(f) // again: the file may have been written to before the lock was had
	if err != nil {
		return v, err
	}
	if err := readAhead(f, l.size()); err != nil {
		return v, err
	}
	own := make(map[string][]byte)
	var conf []byte
	var got content
	buckets, err := walk(f, l, func(bucket, k, v []byte) error {
		switch {
		case bytes.Equal(bucket, ownBucket):
			own[string(k)] = bytes.Clone(v)
			return nil
		case bytes.Equal(bucket, metaBucket) && bytes.Equal(k, confStateKey):
			conf = bytes.Clone(v)
		}
		got.add(bucket, k, v)
		return nil
	})
	if err != nil {
		return v, err
	}
	if !buckets[string(ownBucket)] {
		return v, fmt.Errorf("has no bucket %q; a file of etcd has to be restored first: %w", ownBucket, ErrForeign)
	}
	for _, name := range etcdBuckets {
		if !buckets[string(name)] {
			return v, fmt.Errorf("has no bucket %q: %w", name, ErrDamaged)
		}
	}
	if v, err = describe(own[string(identityKey)], own[string(stateKey)], conf); err != nil {
		return v, err
	}
	if got != v.position.content {
		return v, fmt.Errorf("content differs from its checksum (%d rows of %d): changed by another program, or %w",
			got.rows, v.position.content.rows, ErrDamaged)
	}
	return v, nil
}

// readAhead reads the file once in order, into the page cache: the walk over its pages, and after it bbolt, which maps
// the file for random access, would wait for a cold disk page by page.
func readAhead(f *os.File, size int64) (err error) {
	b := make([]byte, readAheadBytes)
	for at := int64(0); at < size && err == nil; at += readAheadBytes {
		_, err = f.ReadAt(b[:min(readAheadBytes, size-at)], at)
	}
	return err
}

// readRows reads what the file says about itself, by way of bbolt.
func readRows(tx *bolt.Tx) (verified, error) {
	own, meta := tx.Bucket(ownBucket), tx.Bucket(metaBucket)
	if own == nil || meta == nil {
		return verified{}, fmt.Errorf("no bucket %q or %q: %w", ownBucket, metaBucket, ErrDamaged)
	}
	return describe(own.Get(identityKey), own.Get(stateKey), meta.Get(confStateKey))
}

// describe decodes the rows that concern the file as a whole.
func describe(identityRow, stateRow, confRow []byte) (v verified, err error) {
	if v.identity, err = decodeIdentity(identityRow); err != nil {
		return v, damaged(err)
	}
	if v.position, err = decodePosition(stateRow); err != nil {
		return v, damaged(err)
	}
	conf, err := decodeConfState(confRow)
	if err != nil {
		return v, damaged(err)
	}
	v.meta = Meta{
		Index: v.position.index, Term: v.position.term, ConfState: conf,
		ClusterID: v.identity.cluster, MemberID: v.identity.member,
	}
	return v, nil
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
