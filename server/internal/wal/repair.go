package wal

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
)

// maxTornCopies bounds the copies of torn ends that stay in the directory; the oldest go first.
const maxTornCopies = 16

// repair makes the log that was read the one that is on the disk, whatever the page cache may pretend, and ready to be
// written. Another crash inside it, or an error and another Open, finds the same log: it discards only what is discarded
// already, and otherwise writes bytes that are the same as what they replace.
func (o *opening) repair() (torn *Torn, err error) {
	c := o.config
	if o.mark == nil {
		if torn, err = o.discardTorn(); err != nil {
			return nil, err
		}
		if err := o.rewrite(); err != nil {
			return nil, err
		}
		if err := o.sealPrevious(); err != nil {
			return nil, err
		}
	}
	if err := o.dir.removeTemps(c); err != nil {
		return nil, err
	}
	for len(o.dir.torn) > maxTornCopies {
		if err := c.FS.Remove(c.path(o.dir.torn[0])); err != nil {
			return nil, fmt.Errorf("wal: remove old copy of torn bytes: %w", err)
		}
		o.dir.torn = o.dir.torn[1:]
	}
	if o.mark != nil {
		if err := c.FS.Remove(c.path(markName)); err != nil {
			return nil, fmt.Errorf("wal: remove mark: %w", err)
		}
	}
	// Also for the names that the last process made and died before it synced them: batches in that segment count from now
	// on. And the mark must be gone for good before there is a batch that it does not know.
	if err := c.FS.SyncDir(c.Dir); err != nil {
		return nil, fmt.Errorf("wal: sync directory: %w", err)
	}
	return torn, nil
}

// discardTorn copies the torn end aside and fills its place with zeros. The copy has a temporary name until the zeros are
// durable: a copy found under that name says that they may not be, even if they are what a read shows.
func (o *opening) discardTorn() (*Torn, error) {
	c := o.config
	prefix := segmentName(o.header.number) + tornInfix
	if o.used > o.end {
		b := make([]byte, o.used-o.end) // bounded by the segment
		if err := readFull(o.file, b, o.end); err != nil {
			return nil, err
		}
		name := prefix + strconv.FormatInt(o.end, 16) + tempSuffix
		if err := writeFile(c, name, b); err != nil {
			return nil, fmt.Errorf("wal: copy torn bytes: %w", err)
		}
		if err := c.FS.SyncDir(c.Dir); err != nil {
			return nil, fmt.Errorf("wal: sync name of copy of torn bytes: %w", err)
		}
		if !slices.Contains(o.dir.torn, name) {
			o.dir.torn = append(o.dir.torn, name)
		}
	}
	var torn *Torn
	kept := o.dir.torn[:0]
	for _, name := range o.dir.torn {
		if !strings.HasSuffix(name, tempSuffix) {
			kept = append(kept, name)
			continue
		}
		final := strings.TrimSuffix(name, tempSuffix)
		if at, ok := strings.CutPrefix(final, prefix); ok && at == strconv.FormatInt(o.end, 16) {
			if err := zeroRange(o.file, o.end, o.header.size, nil); err != nil {
				return nil, fmt.Errorf("wal: zero torn bytes: %w", err)
			}
			torn = &Torn{File: c.path(segmentName(o.header.number)), Offset: o.end, Bytes: o.used - o.end, Copy: c.path(final)}
		}
		if err := c.FS.Rename(c.path(name), c.path(final)); err != nil {
			return nil, fmt.Errorf("wal: name copy of torn bytes: %w", err)
		}
		kept = append(kept, final)
	}
	o.dir.torn = kept
	if o.used == o.end {
		return nil, nil
	}
	c.Logger.Warn("discarded the torn end of the log", slog.String("file", torn.File), slog.Int64("offset", torn.Offset),
		slog.Int64("bytes", torn.Bytes), slog.String("copy", torn.Copy), slog.Uint64("lastBatch", o.next-1))
	return torn, nil
}

// rewrite makes durable what is not known to be: batches whose sync never returned, or failed and left pages that look
// written and are not (a sync would skip them now). The same bytes are written again, and synced.
func (o *opening) rewrite() error {
	if o.synced == o.next-1 {
		return nil
	}
	from := o.offsets[o.synced+1-o.header.batch]
	buf := make([]byte, min(windowBytes, o.end-from))
	for at := from; at < o.end; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), o.end-at)]
		if err := readFull(o.file, buf, at); err != nil {
			return err
		}
		if _, err := o.file.WriteAt(buf, at); err != nil {
			return fmt.Errorf("wal: write recovered batches again: %w", err)
		}
	}
	if err := o.file.Sync(); err != nil {
		return fmt.Errorf("wal: sync recovered batches: %w", err)
	}
	return nil
}

// sealPrevious writes the seal before the newest segment when it is not known to be durable, which is as long as that
// segment has one batch.
func (o *opening) sealPrevious() error {
	p := o.previous
	if p == nil || len(o.offsets) > 1 {
		return nil
	}
	file, err := o.config.FS.Open(o.config.path(segmentName(p.number)))
	if err != nil {
		return fmt.Errorf("wal: open segment to seal it: %w", err)
	}
	seal := frame{kind: kindSeal, batch: o.header.batch, synced: o.header.batch, chain: p.chain}
	buf := make([]byte, sealBytes)
	seal.encode(buf, p.seed, nil)
	if _, err = file.WriteAt(buf, p.end); err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("wal: write seal: %w", err)
	}
	return nil
}
