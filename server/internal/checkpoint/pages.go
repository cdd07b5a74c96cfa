package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// The pages of a bbolt file, as far as reading takes. All numbers are in the byte order of the machine.
//
//	page          id uint64, flags uint16, count uint16, overflow uint32, then count elements, then their data
//	branch        pos uint32, key size uint32, child page uint64
//	leaf          flags uint32, pos uint32, key size uint32, value size uint32
//	meta          magic, version, page size, flags uint32, root page, root sequence, freelist page, number of pages,
//	              transaction, FNV-64a of all that uint64
//	bucket value  root page, sequence uint64; then a leaf page when the root page is 0
//
// pos is the distance of the data, key before value, from the element.
const (
	pageHeaderBytes  = 16
	elementBytes     = 16
	bucketValueBytes = 16
	metaSumOffset    = 56

	branchFlag = 1
	leafFlag   = 2
	bucketFlag = 1

	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	noFreelist   = math.MaxUint64
	pageBytesMin = 1 << 10
	pageBytesMax = 1 << 16 // the largest page of any system that we run on
	depthMax     = 64      // of the tree; a real one has a few levels
	// chainBytesMax bounds a page with its overflow, which holds a few rows of the largest request.
	chainBytesMax = 512 << 20
)

// layout is what the newest valid meta page says.
type layout struct {
	pageBytes                     int
	root, freelist, pages, newest uint64
	metas                         int // how many of the two meta pages are valid
}

func (l layout) size() int64 { return int64(l.pages) * int64(l.pageBytes) }

// readLayout finds the meta pages in the head of a file; ok is false when none is valid. The second one is behind the
// first page, whose size only the first one tells, so all sizes are tried when that is torn.
func readLayout(head []byte) (l layout, ok bool) {
	try := func(offset int) (pageBytes int) {
		offset += pageHeaderBytes
		if offset+metaSumOffset+8 > len(head) {
			return 0
		}
		m := head[offset:]
		n := func(at int) uint64 { return binary.NativeEndian.Uint64(m[at:]) }
		sum := fnv.New64a()
		sum.Write(m[:metaSumOffset]) // a hash never fails
		pageBytes = int(binary.NativeEndian.Uint32(m[8:]))
		if binary.NativeEndian.Uint32(m) != boltMagic || binary.NativeEndian.Uint32(m[4:]) != boltVersion ||
			n(metaSumOffset) != sum.Sum64() || pageBytes < pageBytesMin || pageBytes > pageBytesMax || n(40) > math.MaxInt64>>16 {
			return 0
		}
		if !ok || n(48) > l.newest {
			metas := l.metas
			l, ok = layout{pageBytes: pageBytes, root: n(16), freelist: n(32), pages: n(40), newest: n(48), metas: metas}, true
		}
		l.metas++
		return pageBytes
	}
	if size := try(0); size > 0 {
		try(size)
		return l, true
	}
	for size := pageBytesMin; size <= pageBytesMax && !ok; size *= 2 {
		try(size)
	}
	return l, ok
}

// walker reads all rows of a file page by page, and trusts nothing that it reads: bbolt itself panics or faults on a
// damaged page, at times on a goroutine where that ends the process, and a damaged branch page can hide rows from a
// look-up that a walk over all leaves would still find.
type walker struct {
	file   io.ReaderAt
	layout layout
	seen   []uint64         // a bit a page
	bufs   [depthMax][]byte // a page each level
	names  map[string]bool  // buckets
	enter  func(bucket []byte)
	row    func(bucket, k, v []byte) error
}

// walk calls row for each row of each bucket, in order, and returns the names of the buckets. What row is given is only
// valid until it returns; its error ends the walk.
func walk(f io.ReaderAt, l layout, row func(bucket, k, v []byte) error) (buckets map[string]bool, err error) {
	return walkBuckets(f, l, func([]byte) {}, row)
}

// walkBuckets is walk, and calls enter before the first row of each bucket, also of an empty one.
func walkBuckets(f io.ReaderAt, l layout, enter func([]byte), row func(bucket, k, v []byte) error) (map[string]bool, error) {
	w := &walker{file: f, layout: l, seen: make([]uint64, l.pages/64+1), names: make(map[string]bool), enter: enter, row: row}
	err := w.page(l.root, 0, nil, nil, nil)
	return w.names, err
}

// page walks the tree under a page. Keys are at least low and below high, where not nil. bucket is nil in the tree of
// the buckets themselves.
func (w *walker) page(id uint64, depth int, bucket, low, high []byte) error {
	if depth == depthMax {
		return fmt.Errorf("page %d: deeper than %d levels: %w", id, depth, ErrDamaged)
	}
	p, err := w.read(id, depth)
	if err != nil {
		return err
	}
	return w.elements(p, id, depth, bucket, low, high)
}

// read returns a page with its overflow, and checks that it is used once.
func (w *walker) read(id uint64, depth int) ([]byte, error) {
	size := uint64(w.layout.pageBytes)
	if id < 2 || id >= w.layout.pages {
		return nil, fmt.Errorf("page %d of %d: %w", id, w.layout.pages, ErrDamaged)
	}
	if cap(w.bufs[depth]) == 0 {
		w.bufs[depth] = make([]byte, size)
	}
	p := w.bufs[depth][:size]
	if _, err := w.file.ReadAt(p, int64(id*size)); err != nil {
		return nil, fmt.Errorf("page %d: %w: %w", id, ErrDamaged, err)
	}
	overflow := uint64(binary.NativeEndian.Uint32(p[12:]))
	if binary.NativeEndian.Uint64(p) != id || id+overflow >= w.layout.pages || (1+overflow)*size > chainBytesMax {
		return nil, fmt.Errorf("page %d says that it is %d and %d more: %w", id, binary.NativeEndian.Uint64(p), overflow, ErrDamaged)
	}
	for i := id; i <= id+overflow; i++ {
		if w.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, fmt.Errorf("page %d is used twice: %w", i, ErrDamaged)
		}
		w.seen[i/64] |= 1 << (i % 64)
	}
	if overflow == 0 {
		return p, nil
	}
	if need := int((1 + overflow) * size); cap(p) < need {
		p = append(make([]byte, 0, need), p...)
		w.bufs[depth] = p
	}
	p = p[:(1+overflow)*size]
	if _, err := w.file.ReadAt(p[size:], int64((id+1)*size)); err != nil {
		return nil, fmt.Errorf("page %d: %w: %w", id, ErrDamaged, err)
	}
	return p, nil
}

// elements walks what a page holds.
func (w *walker) elements(p []byte, id uint64, depth int, bucket, low, high []byte) error {
	bad := func(what string, i int) error {
		return fmt.Errorf("page %d, element %d: %s: %w", id, i, what, ErrDamaged)
	}
	flags, n := binary.NativeEndian.Uint16(p[8:]), int(binary.NativeEndian.Uint16(p[10:]))
	if flags != branchFlag && flags != leafFlag || flags == branchFlag && n == 0 || pageHeaderBytes+n*elementBytes > len(p) {
		return bad("no branch or leaf page", n)
	}
	last, child := low, uint64(0)
	for i := range n {
		e := readElement(p, i, flags)
		if e.k == nil {
			return bad("data outside of the page", i)
		}
		if order := bytes.Compare(e.k, last); last != nil && (order < 0 || order == 0 && i > 0) || high != nil && bytes.Compare(e.k, high) >= 0 {
			return bad("key out of order", i)
		}
		var err error
		switch {
		case flags == branchFlag && i > 0:
			err = w.page(child, depth+1, bucket, last, e.k)
		case flags == branchFlag:
		case (e.flags&bucketFlag != 0) != (bucket == nil):
			err = bad("bucket and row mixed", i)
		case bucket == nil:
			err = w.bucket(e, depth)
		default:
			err = w.row(bucket, e.k, e.v)
		}
		if err != nil {
			return err
		}
		last, child = e.k, e.child
	}
	if flags == branchFlag {
		return w.page(child, depth+1, bucket, last, high)
	}
	return nil
}

// bucket walks the tree of one bucket, whose root may be within the element.
func (w *walker) bucket(e element, depth int) error {
	if len(e.v) < bucketValueBytes {
		return fmt.Errorf("bucket %q: %w", e.k, ErrDamaged)
	}
	w.names[string(e.k)] = true
	w.enter(e.k)
	root := binary.NativeEndian.Uint64(e.v)
	if root != 0 {
		return w.page(root, depth+1, e.k, nil, nil)
	}
	inline := e.v[bucketValueBytes:]
	if len(inline) < pageHeaderBytes || binary.NativeEndian.Uint16(inline[8:]) != leafFlag {
		return fmt.Errorf("bucket %q: %w", e.k, ErrDamaged)
	}
	return w.elements(inline, 0, depth, e.k, nil, nil)
}

// element is one entry of a page. k is nil when it does not lie within the page, and never otherwise.
type element struct {
	flags uint32
	child uint64
	k, v  []byte
}

func readElement(p []byte, i int, pageFlags uint16) element {
	at := uint64(pageHeaderBytes + i*elementBytes)
	n := func(offset uint64) uint64 { return uint64(binary.NativeEndian.Uint32(p[at+offset:])) }
	var e element
	var pos, keySize, valueSize uint64
	if pageFlags == branchFlag {
		pos, keySize, e.child = n(0), n(4), binary.NativeEndian.Uint64(p[at+8:])
	} else {
		e.flags, pos, keySize, valueSize = uint32(n(0)), n(4), n(8), n(12)
	}
	start := at + pos
	if end := start + keySize + valueSize; end <= uint64(len(p)) {
		e.k, e.v = p[start:start+keySize:start+keySize], p[start+keySize:end:end]
	}
	return e
}
