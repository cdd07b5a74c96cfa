package sequence

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

const (
	// A reader that is at most so many revisions behind asks for the history, which
	// has the order of commits; one that is further behind reads the keys.
	historyMax = 10_000
	// backlogBytesMax bounds the values that a reader holds back until their place
	// is settled; beyond, it reads them a second time.
	backlogBytesMax = 8 << 20
	// backlogMax bounds the entries that it holds back. There are more only if
	// writers had seen nothing new for that many entries.
	backlogMax = 1 << 20
	// readsMax bounds the reads in one transaction.
	readsMax = 64
	// The pause before a reader tries again whose cluster could not be reached.
	pauseMin = 10 * time.Millisecond
	pauseMax = time.Second
)

// ErrBacklog: more entries were written by writers that had seen nothing new than
// a reader holds back.
var ErrBacklog = errors.New("too many entries out of order")

// Reader reads a log in the order of commits. It is immutable and holds nothing
// open; each Read is on its own.
type Reader struct {
	log          Log
	src          source
	history      client.Revision // historyMax
	backlogBytes int             // backlogBytesMax
	// settled says up to which revision all entries were seen. Only tests replace
	// it, to show that they notice.
	settled func(*scan) client.Revision
}

// NewReader returns a reader of the log, with a client in the namespace that the
// log's keys are in.
func NewReader(c *client.Client, l Log) *Reader {
	return newReader(l, store{client: c, log: l})
}

// NewKeyReader returns a reader that reads the keys of entries without their
// values, and each entry that there is once, never the history.
func NewKeyReader(c *client.Client, l Log) *Reader {
	r := newReader(l, store{client: c, log: l, keysOnly: true})
	r.history = -1
	return r
}

func newReader(l Log, src source) *Reader {
	return &Reader{log: l, src: src, history: historyMax, backlogBytes: backlogBytesMax, settled: (*scan).settled}
}

// Read yields what follows a position, each entry once and in order, until the
// loop breaks; an error is the last thing that it yields. Entries that are deleted
// may be yielded or not.
//
// The first batch that is Live comes when all that there was at the beginning was
// yielded. A loop that is slow makes the reader lag; it then starts again from
// where the loop is, and what it holds meanwhile is bounded.
//
// Errors: that of ctx; ErrMissing when the log does not exist, or is deleted;
// ErrBacklog; and those of the client.
func (r *Reader) Read(ctx context.Context, from Position) iter.Seq2[Batch, error] {
	return r.read(ctx, from, true)
}

// Pass is Read for who has to look around before the reader starts again: it then
// ends with client.ErrCompacted.
func (r *Reader) Pass(ctx context.Context, from Position) iter.Seq2[Batch, error] {
	return r.read(ctx, from, false)
}

func (r *Reader) read(ctx context.Context, from Position, again bool) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		run := &reading{Reader: r, ctx: ctx, at: from, yield: yield, lanes: r.log}
		err := run.start()
		for n := 0; ctx.Err() == nil; n++ {
			at := run.at
			if !(again && errors.Is(err, client.ErrCompacted)) && !(retry.Unreached(err) && retry.BackoffWithin(ctx, n, pauseMin, pauseMax)) {
				break
			}
			if err = run.start(); run.at != at {
				n = 0
			}
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(Batch{}, fmt.Errorf("read log %q: %w", r.log.Under, err))
		}
	}
}

// errStopped: the loop wants no more.
var errStopped = errors.New("stopped")

// reading is one Read. It is owned by the loop's goroutine.
type reading struct {
	*Reader
	ctx   context.Context
	at    Position
	yield func(Batch, error) bool
	lanes Log // the log, with the lanes that were found
	// raised is a floor that counts once the reader is at the revision at which it
	// was written: what commits later stands above it.
	raised floor
	// head is the revision at the beginning: what is behind it is new.
	head client.Revision
}

// start reads from the position until the loop stops, which is errStopped, or
// until something fails.
func (r *reading) start() error {
	f, err := r.src.floor(r.ctx)
	if err != nil {
		return err
	}
	r.raised, r.head = f, f.now
	if behind := f.now - r.at.Revision; r.at.Revision > 0 && behind <= r.history {
		err := r.follow()
		if !errors.Is(err, client.ErrCompacted) {
			return err
		}
		if f, err = r.src.floor(r.ctx); err != nil {
			return err
		}
		r.head = f.now
	}
	if err := r.catchUp(f); err != nil {
		return err
	}
	return r.follow()
}

// catchUp reads the log as it was when the floor was read.
func (r *reading) catchUp(f floor) error {
	s := newScan(len(r.log.Lanes), r.at.From, f.now)
	late := backlog{limitBytes: r.backlogBytes}
	seen := r.at.Revision
	for !s.done() {
		windows := s.windows()
		pages, err := r.src.pages(r.ctx, f.now, windows)
		if err != nil {
			return err
		}
		for i, p := range pages {
			s.read(windows[i], p)
			for _, e := range p.entries {
				if e.Revision > seen {
					late.add(e)
				}
			}
		}
		s.advance()
		if len(late.entries) > backlogMax {
			return ErrBacklog
		}
		if err := r.settle(s, &late, f); err != nil {
			return err
		}
	}
	r.at.From, r.raised = f.bound, f
	return r.say(Batch{Position: Position{Revision: f.now, From: f.bound}})
}

// settle yields what is settled.
func (r *reading) settle(s *scan, late *backlog, f floor) error {
	settled := r.settled(s)
	for {
		// What comes later and is in the log already is in the backlog, or was not
		// seen; what is not in it yet will stand above the floor.
		from := min(s.lowest(), f.bound)
		if low := late.lowest(); low != "" {
			from = min(from, low)
		}
		ready := late.take(settled, pageBytes, readsMax)
		if len(ready) == 0 {
			return nil
		}
		entries, err := r.complete(ready, f.now)
		if err != nil {
			return err
		}
		at := Position{Revision: entries[len(entries)-1].Revision, From: from}
		if err := r.say(Batch{Entries: entries, Position: at}); err != nil {
			return err
		}
	}
}

// complete reads the values again that were dropped.
func (r *reading) complete(ready []held, at client.Revision) ([]Entry, error) {
	entries := make([]Entry, len(ready))
	var dropped []int
	for i, h := range ready {
		if entries[i] = h.Entry; h.dropped {
			dropped = append(dropped, i)
		}
	}
	if len(dropped) == 0 {
		return entries, nil
	}
	missing := make([]Entry, len(dropped))
	for i, at := range dropped {
		missing[i] = entries[at]
	}
	values, err := r.src.values(r.ctx, at, missing)
	if err != nil {
		return nil, err
	}
	for i, at := range dropped {
		entries[at].Value = values[i]
	}
	return entries, nil
}

// follow watches from the position on.
func (r *reading) follow() error {
	for b, err := range r.src.watch(r.ctx, r.at.Revision+1) {
		if err != nil {
			return err
		}
		entries, floors := r.sort(b)
		// The floor that was raised counts from its revision on, so it does for
		// what follows the batch.
		at := Position{Revision: max(b.Revision, r.at.Revision), From: r.at.From}
		if err := r.say(Batch{Entries: entries, Position: at, Live: at.Revision >= r.head}); err != nil {
			return err
		}
		for _, kv := range floors {
			if kv.Version == 0 {
				return fmt.Errorf("floor %q was deleted: %w", r.log.Floor, ErrMissing)
			}
			r.raised = floor{bound: string(kv.Value), written: kv.ModRevision}
		}
		if r.at.Revision >= r.raised.written {
			r.at.From = max(r.at.From, r.raised.bound)
		}
	}
	return errStopped
}

// sort makes entries of events, and returns what became of the floor.
func (r *reading) sort(b client.WatchBatch) (entries []Entry, floors []client.KV) {
	for _, ev := range b.Events {
		if ev.KV.Key == r.log.Floor {
			floors = append(floors, ev.KV)
			continue
		}
		lane := r.lanes.lane(ev.KV.Key)
		if lane < 0 || !ev.Created() {
			continue
		}
		if e, ok := r.lanes.entry(lane, ev.KV); ok {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, compareEntries)
	return entries, floors
}

// say yields a batch and goes on behind it.
func (r *reading) say(b Batch) error {
	if !r.yield(b, nil) {
		return errStopped
	}
	r.at = b.Position
	return nil
}
