package wal

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

const (
	// zeroChunk is written at once, and zeroSync between two syncs, when a segment is filled with zeros: the disk never
	// has much to do for a file that nobody waits for, while a batch waits.
	zeroChunk = 256 << 10
	zeroSync  = 4 << 20
)

// errStopped ends the filling of a segment when the log is closed.
var errStopped = errors.New("wal: stopped")

// start begins the background goroutine, which ends with Close.
func (l *Log) start() {
	if l.config.Inline {
		return
	}
	l.stock.done = make(chan struct{})
	go l.keepStock()
}

func (l *Log) keepStock() {
	defer close(l.stock.done)
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.stock.closing {
		if l.hasWork() {
			l.workOnce()
		} else {
			l.stock.wake.Wait()
		}
	}
}

// work does all that there is to do, in the caller's goroutine.
func (l *Log) work() {
	for l.hasWork() {
		l.workOnce()
	}
}

// hasWork: a released segment waits, or the next segment will be needed soon.
func (l *Log) hasWork() bool {
	return l.err == nil && (len(l.stock.garbage) > 0 || l.wantsSpare())
}

// wantsSpare holds from the middle of a segment on: by then Release has usually given one back that can be used again.
func (l *Log) wantsSpare() bool {
	return l.stock.spare == nil && l.end >= l.held[len(l.held)-1].size/2
}

// nextSize is the length of the next segment, unless one batch needs more.
func (l *Log) nextSize() int64 {
	return min(2*l.held[len(l.held)-1].size, l.config.SegmentBytes)
}

// chore is one piece of work: a spare segment to make, of nothing or of an old segment, or an old segment to remove.
type chore struct {
	old   *segment
	spare bool
	size  int64 // of the spare
}

// workOnce does one chore. The lock is released while the disk works, unless there is no other goroutine to have it.
func (l *Log) workOnce() {
	c := chore{spare: true, size: l.nextSize()}
	if len(l.stock.garbage) > 0 {
		c.old = &l.stock.garbage[0]
		c.spare = l.stock.spare == nil && c.old.size == c.size
		l.stock.garbage = l.stock.garbage[1:]
	}
	l.stock.preparing = c.spare
	if !l.config.Inline {
		l.mu.Unlock()
	}
	spare, err := l.do(c)
	if !l.config.Inline {
		l.mu.Lock()
	}
	l.stock.preparing = false
	if c.spare && err == nil {
		l.stock.spare, l.stock.spareSize = spare, c.size
	}
	if err != nil && !errors.Is(err, errStopped) {
		_ = l.fail(err)
	}
	l.stock.wake.Broadcast()
}

// do does a chore, without the lock. Old segments go one at a time, oldest first, each durably before the next: so a crash
// leaves segments without a gap. One that is used again has lost its name durably before the first zero is written.
func (l *Log) do(c chore) (disk.File, error) {
	fs, spare := l.config.FS, l.config.path(spareName)
	if c.old == nil {
		return l.newSpare(spareName, c.size, &l.stock.stop)
	}
	name := l.config.path(segmentName(c.old.number))
	var err error
	if c.spare {
		err = fs.Rename(name, spare)
	} else {
		err = fs.Remove(name)
	}
	if err != nil {
		return nil, fmt.Errorf("remove released segment: %w", err)
	}
	if err := fs.SyncDir(l.config.Dir); err != nil {
		return nil, fmt.Errorf("sync removal of released segment: %w", err)
	}
	if !c.spare {
		return nil, nil
	}
	file, err := fs.Open(spare)
	if err != nil {
		return nil, fmt.Errorf("open released segment: %w", err)
	}
	return zero(file, c.size, &l.stock.stop)
}

// blank returns a file of zeros, its temporary name and its length, which is at least need and size when it can be. No
// spare is being made.
func (l *Log) blank(size, need int64) (file disk.File, name string, bytes int64, err error) {
	if l.stock.spare != nil && l.stock.spareSize >= need {
		file, size = l.stock.spare, l.stock.spareSize
		l.stock.spare = nil
		return file, spareName, size, nil
	}
	name = spareName
	if l.stock.spare != nil {
		name = largeName
	}
	size = max(size, need)
	file, err = l.newSpare(name, size, nil) // a batch waits for it: Close does too
	return file, name, size, err
}

func (l *Log) newSpare(name string, size int64, stop *atomic.Bool) (disk.File, error) {
	file, err := l.config.FS.Create(l.config.path(name))
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	return zero(file, size, stop)
}

// zero fills a file of at most size bytes with zeros up to size, durably: all its blocks are written and its length does not
// change any more, so that a sync of a batch later on has bytes to write and no metadata. It closes the file on an error.
func zero(file disk.File, size int64, stop *atomic.Bool) (disk.File, error) {
	if err := zeroRange(file, 0, size, stop); err != nil {
		return nil, errors.Join(fmt.Errorf("fill segment with zeros: %w", err), file.Close())
	}
	return file, nil
}

// zeroRange writes zeros, durably. It gives up with errStopped when stop is not nil and set.
func zeroRange(file disk.File, from, to int64, stop *atomic.Bool) error {
	zeros := make([]byte, min(zeroChunk, to-from))
	for at, unsynced := from, int64(0); at < to; {
		if stop != nil && stop.Load() {
			return errStopped
		}
		n := min(to-at, zeroChunk)
		if _, err := file.WriteAt(zeros[:n], at); err != nil {
			return err
		}
		at, unsynced = at+n, unsynced+n
		if unsynced >= zeroSync || at == to {
			if err := file.Sync(); err != nil {
				return err
			}
			unsynced = 0
		}
	}
	return nil
}
