package wal

import (
	"cmp"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

const (
	// minSegmentBytes has room for a header, one batch and a seal, with some to spare.
	minSegmentBytes = 8 * sectorBytes
	// firstSegmentBytes is where sizes begin: each segment is twice as long as the one before it, up to
	// Config.SegmentBytes, so that a log that is hardly used is small and made at once.
	firstSegmentBytes = 1 << 20
	// keptSegments is how many Release leaves whatever it is told.
	keptSegments = 2
	// maxIdleBuffer bounds what the encoder keeps between batches.
	maxIdleBuffer = 4 << 20
)

// Names in the log's directory. A segment's is its number in hexadecimal and the suffix.
const (
	segmentSuffix = ".wal"
	spareName     = "spare.tmp" // zeros, ready to become a segment
	largeName     = "large.tmp" // the same for one batch that no usual segment holds
	markName      = "closed"    // exists after a clean stop, until the next start
	markTemp      = "closed.tmp"
	tornInfix     = ".torn-" // segment, this, offset: what Open cut off
	tempSuffix    = ".tmp"
)

// Log is an open log. Its methods are safe for concurrent use; Append holds the lock while the disk works.
type Log struct {
	config Config // immutable

	mu     sync.Mutex // protects all below
	err    error      // the first failure, or ErrClosed: final
	file   disk.File  // the last segment
	seed   uint32     // of the last segment
	end    int64      // where its next frame goes; all bytes from here on are zero, durably
	batch  uint64     // number of the last batch
	synced uint64     // the highest batch known durable
	chain  uint32
	hard   hardState
	wrote  bool      // hard was ever set
	base   Base      // what the log starts after
	terms  terms     // of the entries above base
	held   []segment // oldest first; the last one is being written
	buffer []byte    // reused by every Append
	stats  Stats

	stock stock // segments to come and segments to go
}

// segment is what the log remembers of one of its files.
type segment struct {
	number uint64
	size   int64
	base   Base
	reset  bool
	max    uint64 // the highest index ever written in it; 0 when a Reset made all its entries void
}

// stock is the work that is done ahead of Append and behind Release, and its result. Protected by Log.mu.
type stock struct {
	wake      sync.Cond
	spare     disk.File // zeros of spareSize bytes, durable; nil when there is none
	spareSize int64
	garbage   []segment // released and not yet removed, oldest first
	preparing bool      // a spare is being made, without the lock
	closing   bool
	stop      atomic.Bool   // the same as closing, for who has no lock
	done      chan struct{} // closed when the goroutine has ended; nil when Config.Inline
}

// Create makes a log whose first entry will be base.Index+1, and opens it. It fails with ErrExists where a log is. A
// Create that was cut off leaves nothing that Open finds.
func Create(c Config, base Base) (*Log, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := c.FS.MkdirAll(c.Dir); err != nil {
		return nil, fmt.Errorf("wal: create directory: %w", err)
	}
	d, err := listDirectory(c)
	if err != nil {
		return nil, err
	}
	if len(d.segments) > 0 || d.mark {
		return nil, fmt.Errorf("%w in %s", ErrExists, c.Dir)
	}
	if err := d.removeTemps(c); err != nil {
		return nil, err
	}
	l := newLog(c)
	l.base = base
	// A segment never stands under its name without a complete batch, so the first one gets one that says nothing.
	if err := l.begin(&Batch{}, base, false); err != nil {
		return nil, errors.Join(err, l.closeFiles())
	}
	l.stats = Stats{}
	l.start()
	return l, nil
}

func (c Config) withDefaults() (Config, error) {
	c.SegmentBytes = cmp.Or(c.SegmentBytes, DefaultSegmentBytes)
	if c.SegmentBytes < minSegmentBytes || c.SegmentBytes%sectorBytes != 0 {
		return c, fmt.Errorf("wal: SegmentBytes is %d: want a multiple of %d, at least %d", c.SegmentBytes, sectorBytes, minSegmentBytes)
	}
	if c.FS == nil {
		c.FS = disk.OS()
	}
	if c.Salt == nil {
		c.Salt = randomSalt
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func randomSalt() uint64 {
	var b [8]byte
	_, _ = crand.Read(b[:]) // it never fails
	return binary.LittleEndian.Uint64(b[:])
}

func newLog(c Config) *Log {
	l := &Log{config: c}
	l.stock.wake.L = &l.mu
	return l
}

// Append writes a batch, and makes it and all batches before it durable when sync is set; without, it may be lost in a
// crash, with all batches after it, until a later one is synced. It returns after that. Entries are copied. An error is
// final: the batch may or may not be found by the next Open, every later call fails with the same error, and the caller
// must stop without acting on the batch. An empty batch writes nothing.
func (l *Log) Append(b Batch, sync bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if err := l.append(&b, sync); err != nil {
		return l.fail(err)
	}
	if l.config.Inline {
		l.work()
	} else if l.hasWork() {
		l.stock.wake.Broadcast()
	}
	return l.err
}

// fail makes the first failure final.
func (l *Log) fail(err error) error {
	if l.err == nil {
		l.err = fmt.Errorf("wal: %w", err)
	}
	return l.err
}

func (l *Log) append(b *Batch, sync bool) error {
	if hs := b.HardState; hs.GetTerm()|hs.GetVote()|hs.GetCommit() == 0 {
		b.HardState = nil
	}
	if len(b.Entries) == 0 && b.HardState == nil && b.Reset == nil {
		if sync {
			return l.flush()
		}
		return nil
	}
	for {
		cut, err := l.check(b)
		if err != nil {
			return err
		}
		need := frameBytes(payloadBytes(b.Entries))
		switch {
		case b.Reset == nil && l.fits(cut, need):
			return l.write(b, cut, need, sync)
		case !l.stock.preparing:
			return l.rotate(b, cut)
		}
		l.stock.wake.Wait() // it lets go of the lock: everything is looked at anew
		if l.err != nil {
			return l.err
		}
	}
}

// fits says whether a batch may go to the last segment. A segment's entries are all above its base: so what remains after
// Release never lacks the term before its first entry. Entries that replace others below the base, which takes a change of
// leader just then, begin a segment.
func (l *Log) fits(cut Base, need int64) bool {
	last := &l.held[len(l.held)-1]
	return cut.Index >= last.base.Index && l.end+need+sealBytes <= last.size
}

// write adds a batch to the last segment.
func (l *Log) write(b *Batch, cut Base, need int64, sync bool) error {
	buf := l.room(need)
	chain := l.encode(buf, b, l.seed, l.chain)
	if _, err := l.file.WriteAt(buf, l.end); err != nil {
		return fmt.Errorf("write batch: %w", err)
	}
	l.end += need
	l.took(b, cut, chain, need)
	if !sync {
		return nil
	}
	return l.flush()
}

// check says where the log is cut before the batch's entries are added, which is at its end when there are none.
func (l *Log) check(b *Batch) (cut Base, err error) {
	cut, base := l.last(), l.base
	if b.Reset != nil {
		cut, base = *b.Reset, *b.Reset
	}
	if len(b.Entries) > 0 {
		first := b.Entries[0].GetIndex()
		if first <= base.Index || first > cut.Index+1 {
			return cut, fmt.Errorf("entries from %d do not join a log of %d to %d", first, base.Index+1, cut.Index)
		}
		for i, e := range b.Entries {
			if e.GetIndex() != first+uint64(i) {
				return cut, fmt.Errorf("entries are not contiguous: %d at place %d after %d", e.GetIndex(), i, first)
			}
			if e.GetType() < 0 {
				return cut, fmt.Errorf("entry %d has the impossible type %d", e.GetIndex(), e.GetType())
			}
		}
		if first <= cut.Index {
			cut = Base{Index: first - 1, Term: l.termAt(first - 1)}
		}
	}
	if n := payloadBytes(b.Entries); n > MaxBatchBytes {
		return cut, fmt.Errorf("a batch of %d bytes is more than %d", n, MaxBatchBytes)
	}
	return cut, nil
}

// encode writes the batch as the log's next frame.
func (l *Log) encode(buf []byte, b *Batch, seed uint32, chain uint32) uint32 {
	f := frame{
		kind: kindBatch, payload: int(payloadBytes(b.Entries)), count: uint32(len(b.Entries)),
		batch: l.batch + 1, synced: l.synced, chain: chain,
	}
	if f.count > 0 {
		f.first = b.Entries[0].GetIndex()
	}
	if b.HardState != nil {
		f.hard, f.hasHard = hardStateOf(b.HardState), true
	}
	return f.encode(buf, seed, b.Entries)
}

func hardStateOf(hs *raftpb.HardState) hardState {
	return hardState{term: hs.GetTerm(), vote: hs.GetVote(), commit: hs.GetCommit()}
}

// took takes a batch that is in the file into what the log remembers.
func (l *Log) took(b *Batch, cut Base, chain uint32, n int64) {
	l.batch++
	l.chain = chain
	l.stats.Appends++
	l.stats.Bytes += uint64(n)
	if b.HardState != nil {
		l.hard, l.wrote = hardStateOf(b.HardState), true
	}
	if len(b.Entries) > 0 {
		last := &l.held[len(l.held)-1]
		last.max = max(last.max, b.Entries[len(b.Entries)-1].GetIndex())
		l.terms.cut(cut.Index)
		for _, e := range b.Entries {
			l.terms.add(e.GetIndex(), e.GetTerm())
		}
	}
}

// flush makes everything that was written durable.
func (l *Log) flush() error {
	if l.synced == l.batch {
		return nil
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("sync segment: %w", err)
	}
	l.synced = l.batch
	l.stats.Syncs++
	return nil
}

// room returns n bytes of the reused buffer, with anything in them.
func (l *Log) room(n int64) []byte {
	if int64(cap(l.buffer)) >= n {
		return l.buffer[:n]
	}
	buf := make([]byte, n)
	if n <= maxIdleBuffer {
		l.buffer = buf
	}
	return buf
}

// last is the last entry, or the base of an empty log.
func (l *Log) last() Base {
	if last, ok := l.terms.last(); ok {
		return last
	}
	return l.base
}

// termAt is the term of an entry from the base to the last.
func (l *Log) termAt(index uint64) uint64 {
	if index == l.base.Index {
		return l.base.Term
	}
	return l.terms.at(index)
}

// Release gives up segments whose entries are all at or below index: the caller has them durably in another form. The
// two newest segments stay. They are removed, or made ready to be used again, in the background, oldest first.
func (l *Log) Release(index uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	n := 0
	for n < len(l.held)-keptSegments && l.held[n].max <= index {
		n++
	}
	if n == 0 {
		return nil
	}
	l.stock.garbage = append(l.stock.garbage, l.held[:n]...)
	l.held = append([]segment(nil), l.held[n:]...)
	l.base = baseOf(l.held)
	l.terms.release(l.base.Index)
	if l.config.Inline {
		l.work()
	} else {
		l.stock.wake.Broadcast()
	}
	return l.err
}

// baseOf is what a log of these segments starts after: what the oldest one does, unless a later one cut below that.
func baseOf(held []segment) Base {
	base := held[0].base
	for _, s := range held[1:] {
		if s.reset || s.base.Index < base.Index {
			base = s.base
		}
	}
	return base
}

// Close makes everything durable, leaves a mark that says where the log ends, and ends the background goroutine. With
// the mark the next Open takes nothing for torn. It returns the failure of a log that failed, which gets no mark.
func (l *Log) Close() error {
	l.mu.Lock()
	if errors.Is(l.err, ErrClosed) {
		l.mu.Unlock()
		return ErrClosed
	}
	l.stock.closing = true
	l.stock.stop.Store(true)
	l.stock.wake.Broadcast()
	l.mu.Unlock()
	if l.stock.done != nil {
		<-l.stock.done
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.err
	if err == nil {
		err = l.seeOff()
	}
	l.err = ErrClosed
	return errors.Join(err, l.closeFiles())
}

func (l *Log) seeOff() error {
	if err := l.flush(); err != nil {
		return fmt.Errorf("wal: close: %w", err)
	}
	if err := l.config.FS.Remove(l.config.path(spareName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wal: close: remove spare segment: %w", err)
	}
	last := l.held[len(l.held)-1]
	m := mark{identity: l.config.Identity, segment: last.number, end: l.end, batch: l.batch, chain: l.chain}
	if err := m.write(l.config); err != nil {
		return fmt.Errorf("wal: close: %w", err)
	}
	return nil
}

func (l *Log) closeFiles() error {
	var errs []error
	for _, f := range []disk.File{l.file, l.stock.spare} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	l.file, l.stock.spare = nil, nil
	return errors.Join(errs...)
}

// Stats returns the counts so far.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Segments = len(l.held) + len(l.stock.garbage)
	return s
}

func (c *Config) path(name string) string { return path.Join(c.Dir, name) }

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }

// segmentNumber is the inverse of segmentName; false for any other name.
func segmentNumber(name string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimSuffix(name, segmentSuffix), 16, 64)
	return n, err == nil && segmentName(n) == name
}
