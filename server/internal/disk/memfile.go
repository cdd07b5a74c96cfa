package disk

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
)

// maxIdleImages bounds the images that a file keeps room for between syncs (16 KiB); filling a file with zeros would
// otherwise leave room for its whole length behind.
const maxIdleImages = 32

var errOffset = errors.New("disk: negative offset")

// inode is a file's content. Writes go to data; what they overwrite is kept, sector by sector, until a Sync.
type inode struct {
	name    string // the latest
	data    []byte
	size    int64   // durable length; data is at least as long
	pending []image // sectors as they were before each write since the last Sync, oldest first
	lost    []image // the same for writes whose Sync failed: no later Sync writes them
}

// image is what a sector held before a write.
type image struct {
	sector int64
	bytes  [SectorBytes]byte
}

func (f *inode) clone() *inode {
	return &inode{name: f.name, data: slices.Clone(f.data), size: f.size, pending: slices.Clone(f.pending), lost: slices.Clone(f.lost)}
}

// settle makes what programs see durable.
func (f *inode) settle() {
	f.size, f.pending, f.lost = int64(len(f.data)), nil, nil
}

func (f *inode) write(b []byte, off int64) {
	end := off + int64(len(b))
	for s := off / SectorBytes; s*SectorBytes < end; s++ {
		f.pending = append(f.pending, image{sector: s})
		if at := s * SectorBytes; at < int64(len(f.data)) {
			copy(f.pending[len(f.pending)-1].bytes[:], f.data[at:])
		}
	}
	if grow := end - int64(len(f.data)); grow > 0 {
		f.data = slices.Grow(f.data, int(grow))
		old := len(f.data)
		f.data = f.data[:end]
		clear(f.data[old:])
	}
	copy(f.data[off:], b)
}

func (f *inode) sync() {
	f.size = int64(len(f.data))
	if len(f.lost) > 0 { // a sector that was written again after its failed Sync is whole on the disk now
		again := map[int64]bool{}
		for i := range f.pending {
			again[f.pending[i].sector] = true
		}
		f.lost = slices.DeleteFunc(f.lost, func(im image) bool { return again[im.sector] })
	}
	f.clean()
}

func (f *inode) failSync() {
	f.lost = append(f.lost, f.pending...)
	f.clean()
}

// clean forgets the pending writes, and most of the room that they took.
func (f *inode) clean() {
	if cap(f.pending) > maxIdleImages {
		f.pending = nil
	}
	f.pending = f.pending[:0]
}

// crash picks a state for every sector that was not durable: one that it had at some time since the last Sync. How likely
// the latest one is differs from file to file, so that all survive, none survive, and every mixture come up.
func (f *inode) crash(rng *rand.Rand) {
	newest := rng.IntN(5) // of 4
	states := map[int64][]*image{}
	var order []int64
	for _, images := range [][]image{f.lost, f.pending} {
		for i := range images {
			im := &images[i]
			if states[im.sector] == nil {
				order = append(order, im.sector)
			}
			states[im.sector] = append(states[im.sector], im)
		}
	}
	for _, s := range order {
		if rng.IntN(4) < newest {
			continue
		}
		old := states[s]
		if at := s * SectorBytes; at < int64(len(f.data)) {
			copy(f.data[at:], old[rng.IntN(len(old))].bytes[:])
		}
	}
	if grown := int64(len(f.data)) - f.size; grown > 0 { // the length is metadata with a fate of its own
		switch rng.IntN(3) {
		case 0:
			f.data = f.data[:f.size]
		case 1:
			f.data = f.data[:f.size+rng.Int64N(grown)]
		}
	}
	f.settle()
}

// memFile is an open inode. Owned by whoever opened it, but safe for concurrent use: all state is under the lock of mem.
type memFile struct {
	mem        *Mem
	file       *inode
	generation uint64
	closed     bool
}

// begin counts the operation, asks the fault, and takes the lock; the caller releases it. A fault has taken it too.
func (f *memFile) begin(kind OpKind, off int64, n int) error {
	err := f.mem.begin(Op{Kind: kind, Offset: off, Length: n}, f.file)
	f.mem.mu.Lock()
	if err != nil {
		return pathError(kind.String(), f.file.name, err)
	}
	return f.usable(kind)
}

func (f *memFile) usable(kind OpKind) error {
	switch {
	case f.generation != f.mem.generation:
		return pathError(kind.String(), f.file.name, ErrPowerCut)
	case f.closed:
		return pathError(kind.String(), f.file.name, fs.ErrClosed)
	default:
		return nil
	}
}

// ReadAt implements File.
func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	err := f.begin(OpRead, off, len(b))
	defer f.mem.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case off < 0:
		return 0, pathError("read", f.file.name, errOffset)
	case off >= int64(len(f.file.data)):
		return 0, io.EOF
	}
	n := copy(b, f.file.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements File.
func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.begin(OpWrite, off, len(b))
	defer f.mem.mu.Unlock()
	if err != nil {
		if f.usable(OpWrite) != nil || len(b) == 0 {
			return 0, err
		}
		n := f.mem.rng.IntN(len(b))
		n -= int((off + int64(n)) % SectorBytes) // a short write ends with a sector
		n = max(n, 0)
		f.file.write(b[:n], off)
		return n, err
	}
	if off < 0 {
		return 0, pathError("write", f.file.name, errOffset)
	}
	f.file.write(b, off)
	return len(b), nil
}

// Size implements File.
func (f *memFile) Size() (int64, error) {
	err := f.begin(OpSize, 0, 0)
	defer f.mem.mu.Unlock()
	return int64(len(f.file.data)), err
}

// Sync implements File.
func (f *memFile) Sync() error {
	err := f.begin(OpSync, 0, 0)
	defer f.mem.mu.Unlock()
	if err != nil {
		if f.usable(OpSync) == nil {
			f.file.failSync()
		}
		return err
	}
	f.file.sync()
	return nil
}

// Close implements File. Like the operating system's it makes nothing durable.
func (f *memFile) Close() error {
	err := f.begin(OpClose, 0, 0)
	defer f.mem.mu.Unlock()
	f.closed = true
	return err
}
