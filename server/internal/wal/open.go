package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

// directory is what the log's directory holds, by kind. Other files are nobody's business.
type directory struct {
	segments []uint64 // ascending
	mark     bool
	temps    []string
	torn     []string // copies of what Open cut off, by segment
}

func listDirectory(c Config) (d directory, err error) {
	names, err := c.FS.List(c.Dir) // sorted
	if err != nil {
		return d, fmt.Errorf("wal: list directory: %w", err)
	}
	for _, name := range names {
		number, ok := segmentNumber(name)
		switch {
		case ok:
			d.segments = append(d.segments, number)
		case name == markName:
			d.mark = true
		case name == spareName || name == largeName || name == markTemp:
			d.temps = append(d.temps, name)
		case strings.Contains(name, segmentSuffix+tornInfix):
			d.torn = append(d.torn, name)
		}
	}
	return d, nil
}

func (d *directory) removeTemps(c Config) error {
	for _, name := range d.temps {
		if err := c.FS.Remove(c.path(name)); err != nil {
			return fmt.Errorf("wal: remove unfinished file: %w", err)
		}
	}
	return nil
}

// Open reads the log, all of it, and goes on where it ends. After a crash it discards what was cut off while it was
// written and makes everything that it returns durable again before it returns. It changes nothing when it refuses: with
// *DamageError where a crash can not have made what it found, ErrNotFound, ErrForeign or ErrVersion.
func Open(c Config) (*Log, Recovery, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, Recovery{}, err
	}
	o := &opening{config: c}
	if err := o.read(); err != nil {
		return nil, Recovery{}, errors.Join(err, o.close())
	}
	torn, err := o.repair()
	if err != nil {
		return nil, Recovery{}, errors.Join(err, o.close())
	}
	l := newLog(c)
	l.file, l.seed, l.end, l.held = o.file, o.seed, o.end, o.held
	l.batch, l.synced, l.chain = o.next-1, o.next-1, o.chain
	l.hard, l.wrote, l.base = o.hard, o.wrote, o.base
	for _, e := range o.entries {
		l.terms.add(e.GetIndex(), e.GetTerm())
	}
	l.start()
	rec := Recovery{Base: o.base, Entries: o.entries, Torn: torn}
	if o.wrote {
		hs := o.hard
		rec.HardState = &raftpb.HardState{Term: &hs.term, Vote: &hs.vote, Commit: &hs.commit}
	}
	return l, rec, nil
}

// opening is a log being read: first all segments into replay, then, when nothing is wrong, the repairs.
type opening struct {
	config Config
	dir    directory
	mark   *mark // nil after a crash
	held   []segment
	replay

	// Of the segment that was read last.
	file    disk.File
	header  segmentHeader
	seed    uint32
	window  window
	offsets []int64 // of its batches
	end     int64   // after its last valid batch
	sealed  bool
	used    int64 // in the newest one: where the torn bytes from end on stop; end when there are none

	previous *ended // the segment before it
}

// ended is how a segment that another one follows ends.
type ended struct {
	number uint64
	seed   uint32
	end    int64  // where the seal is, or should be
	chain  uint32 // there
	sealed bool
}

func (o *opening) close() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}

func (o *opening) read() (err error) {
	c := o.config
	o.dir, err = listDirectory(c)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(o.dir.segments) == 0 && !o.dir.mark:
		return fmt.Errorf("%w in %s", ErrNotFound, c.Dir)
	case err != nil:
		return err
	case len(o.dir.segments) == 0:
		return &DamageError{File: c.path(markName), Reason: "there is a mark of a clean stop, but no segment"}
	}
	if o.dir.mark {
		if o.mark, err = readMark(c); err != nil {
			return err
		}
	}
	for i, number := range o.dir.segments {
		if i > 0 && number != o.header.number+1 {
			return &DamageError{File: c.path(segmentName(o.header.number + 1)), Reason: "the segment is missing"}
		}
		newest := i == len(o.dir.segments)-1
		if err := o.segment(number, i == 0, newest); err != nil {
			return err
		}
		if err := o.checkSeal(newest); err != nil {
			return err
		}
		if newest {
			break
		}
		o.previous = &ended{number: number, seed: o.seed, end: o.end, chain: o.chain, sealed: o.sealed}
		if err := o.file.Close(); err != nil {
			return fmt.Errorf("wal: close segment: %w", err)
		}
		o.file = nil
	}
	return o.checkMark()
}

// checkSeal refuses a segment that follows one without a seal, unless a crash can have come just before the seal.
func (o *opening) checkSeal(newest bool) error {
	p := o.previous
	if p == nil || p.sealed || newest && o.mark == nil && len(o.offsets) == 1 {
		return nil
	}
	return &DamageError{File: o.config.path(segmentName(p.number)), Offset: p.end,
		Reason: "the segment's seal is missing, and what was written after it is there"}
}

// checkMark holds the log against the mark of a clean stop.
func (o *opening) checkMark() error {
	m := o.mark
	if m == nil {
		return nil
	}
	if m.segment != o.header.number {
		return &DamageError{File: o.config.path(segmentName(m.segment)),
			Reason: fmt.Sprintf("the log was closed in this segment, but it ends in segment %x", o.header.number)}
	}
	if m.end != o.end || m.batch != o.next-1 || m.chain != o.chain {
		return o.damage(o.end, fmt.Sprintf("the log was closed after batch %d at offset %d, but it ends after batch %d here",
			m.batch, m.end, o.next-1))
	}
	if o.used != o.end {
		return o.damage(o.end, "the log was closed here, but bytes follow that are not zero")
	}
	return nil
}

// damage says that the segment at hand is damaged.
func (o *opening) damage(offset int64, reason string) error {
	return &DamageError{File: o.config.path(segmentName(o.header.number)), Offset: offset, Reason: reason}
}
