package wal

import (
	"fmt"
	"io"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

// windowBytes is how much of a segment is read at once.
const windowBytes = 256 << 10

// segment reads one segment: all its batches go to replay. It leaves the file open.
func (o *opening) segment(number uint64, oldest, newest bool) error {
	if err := o.openSegment(number); err != nil {
		return err
	}
	if reason := o.begin(&o.header, oldest); reason != "" {
		return o.damage(0, reason)
	}
	if o.header.reset {
		for i := range o.held {
			o.held[i].max = 0
		}
	}
	o.held = append(o.held, segment{number: number, size: o.header.size, base: o.header.base, reset: o.header.reset})
	if err := o.frames(); err != nil {
		return err
	}
	switch {
	case newest && o.sealed:
		return o.damage(o.end, "the segment is sealed, but the one that follows is missing")
	case len(o.offsets) == 0:
		// A segment gets its name after its first batch was durable.
		return o.damage(o.end, "the segment's first batch is missing or damaged")
	case newest:
		return o.tail()
	case !o.sealed:
		// The crash came between the next segment's name and this one's seal: nothing was being written here.
		if at, err := o.nonZero(o.end); err != nil || at >= 0 {
			return orDamage(err, o.damage(o.end, "a batch is damaged, and another segment follows"))
		}
	}
	return nil
}

func orDamage(err, damage error) error {
	if err != nil {
		return err
	}
	return damage
}

// openSegment opens a segment and reads its header.
func (o *opening) openSegment(number uint64) (err error) {
	name := o.config.path(segmentName(number))
	o.header, o.offsets, o.sealed, o.end = segmentHeader{number: number}, nil, false, 0
	if o.file, err = o.config.FS.Open(name); err != nil {
		return fmt.Errorf("wal: open segment: %w", err)
	}
	size, err := o.file.Size()
	if err != nil {
		return fmt.Errorf("wal: size of segment: %w", err)
	}
	o.window = window{file: o.file, size: size, buffer: o.window.buffer}
	if size < headerBytes {
		return o.damage(size, "the segment ends inside its header")
	}
	b, err := o.window.at(0, headerBytes)
	if err != nil {
		return err
	}
	var h segmentHeader
	version, reason := h.decode(b)
	switch {
	case reason != "":
		return o.damage(0, reason)
	case version != formatVersion:
		return fmt.Errorf("%w %d in %s", ErrVersion, version, name)
	case h.identity != o.config.Identity:
		return foreign(name, h.identity, o.config.Identity)
	case h.number != number:
		return o.damage(0, fmt.Sprintf("the segment has the name of another: it is number %x", h.number))
	case h.size != size:
		return o.damage(size, fmt.Sprintf("the segment is %d bytes long and was made with %d", size, h.size))
	}
	o.header, o.seed = h, h.seed()
	return nil
}

// frames reads batches up to the first bytes that are not the next one, or a seal. The end is there.
func (o *opening) frames() error {
	for o.end = headerBytes; o.end+sectorBytes <= o.window.size; {
		f, ok, err := o.frameAt(o.end)
		if err != nil || !ok {
			return err
		}
		if f.batch != o.next || f.chain != o.chain {
			return o.damage(o.end, fmt.Sprintf("batch %d stands where batch %d belongs", f.batch, o.next))
		}
		if f.bytes() > o.window.size-o.end {
			return o.damage(o.end, fmt.Sprintf("batch %d is longer than its segment", f.batch))
		}
		buf := make([]byte, f.bytes()) // bounded: the length is part of a header that was verified
		if err := o.window.read(buf, o.end); err != nil {
			return err
		}
		chain, ok := whole(buf)
		if !ok {
			return nil
		}
		if f.kind == kindSeal {
			o.sealed = true
			return nil
		}
		if reason := o.apply(&f, buf[frameHeader:frameHeader+f.payload], &o.header); reason != "" {
			return o.damage(o.end, reason)
		}
		last := &o.held[len(o.held)-1]
		if f.count > 0 {
			last.max = max(last.max, f.first+uint64(f.count)-1)
		}
		o.chain = chain
		o.offsets = append(o.offsets, o.end)
		o.end += f.bytes()
	}
	return nil
}

func (o *opening) frameAt(at int64) (f frame, ok bool, err error) {
	b, err := o.window.at(at, frameHeader)
	if err != nil {
		return f, false, err
	}
	f, ok = decodeFrame(b, o.seed)
	return f, ok, nil
}

// tail decides what stands at the end of the newest segment, where batch number next would begin: nothing, or the remains
// of batches that were never durable, or damage. The file held zeros before, no two batches share a sector, and a header
// says how many sectors of its batch are zeros by right: so a sector with anything in it was written, whole, and a
// batch that is torn has more zero sectors than its header says. It is damage, then, when
//
//   - the sector of a header has something in it, and the header does not verify;
//   - a batch does not verify, and has no more zero sectors than its header says;
//   - any later frame says that this batch, or one after it, was durable when it was written; a later frame that does
//     not say so was written in the same group, before a sync that never returned.
//
// README.md tells what is left: damage that zeroes a whole sector of the last group looks like a crash.
func (o *opening) tail() error {
	o.used = o.end
	if o.end+sectorBytes > o.window.size {
		return nil
	}
	head, err := o.window.at(o.end, sectorBytes)
	if err != nil {
		return err
	}
	f, ok := decodeFrame(head, o.seed)
	switch {
	case ok: // and the rest of it does not verify, or frames would have taken it
		if torn, err := o.lacksSector(&f); err != nil || !torn {
			return orDamage(err, o.damage(o.end, fmt.Sprintf("batch %d was written whole, but its checksum does not match", f.batch)))
		}
	case !isZero(head):
		return o.damage(o.end, "the header of a batch was written whole, but its checksum does not match")
	}
	for at := o.end; at+sectorBytes <= o.window.size; at += sectorBytes {
		b, err := o.window.at(at, sectorBytes)
		if err != nil {
			return err
		}
		if isZero(b) {
			continue
		}
		o.used = at + sectorBytes
		if at == o.end {
			continue
		}
		if f, ok := decodeFrame(b, o.seed); ok && (f.synced >= o.next || f.batch <= o.next) {
			return o.damage(o.end, fmt.Sprintf(
				"batch %d is missing or damaged, but batch %d, written when it was durable, follows at offset %d",
				o.next, f.batch, at))
		}
	}
	return nil
}

// lacksSector says whether a sector of the batch at the end was never written.
func (o *opening) lacksSector(f *frame) (bool, error) {
	var zeros uint32
	for at := o.end; at < o.end+f.bytes(); at += sectorBytes {
		b, err := o.window.at(at, sectorBytes)
		if err != nil {
			return false, err
		}
		zeros += zeroSectors(b)
	}
	return zeros > f.blank, nil
}

// nonZero is the offset of the first sector from an offset on that is not zero; -1 when all are.
func (o *opening) nonZero(from int64) (int64, error) {
	for at := from; at+sectorBytes <= o.window.size; at += sectorBytes {
		b, err := o.window.at(at, sectorBytes)
		if err != nil || !isZero(b) {
			return at, err
		}
	}
	return -1, nil
}

// window reads a file forwards in large pieces.
type window struct {
	file   disk.File
	size   int64
	buffer []byte
	from   int64 // offset of the first of the bytes
	n      int   // bytes in the buffer
}

// at returns n bytes, at most windowBytes, until the next call. They are in the file.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off < w.from || off+int64(n) > w.from+int64(w.n) {
		w.n = 0
		want := int(min(windowBytes, w.size-off))
		if len(w.buffer) < want {
			w.buffer = make([]byte, want)
		}
		if err := readFull(w.file, w.buffer[:want], off); err != nil {
			return nil, err
		}
		w.from, w.n = off, want
	}
	return w.buffer[off-w.from:][:n], nil
}

// read fills dst.
func (w *window) read(dst []byte, off int64) error {
	if len(dst) > windowBytes {
		return readFull(w.file, dst, off)
	}
	b, err := w.at(off, len(dst))
	copy(dst, b)
	return err
}

// readFull fills b. The end of the file before that is an error: the length was asked for before.
func readFull(file disk.File, b []byte, off int64) error {
	n, err := file.ReadAt(b, off)
	if err == io.EOF && n == len(b) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("wal: read segment: %w", err)
	}
	return nil
}
