package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

// window bounds what a feed keeps for its subscribers.
type window struct {
	messages int
	bytes    int
}

const (
	// What a feed keeps unless told otherwise.
	windowMessages = 64 << 10
	windowBytes    = 8 << 20
	// A slab is what a subscriber that stands still keeps alive.
	slabMessagesMax = 1024
	slabBytesMax    = 256 << 10
)

// WithWindow bounds what this Topic keeps of its newest messages for all its
// subscribers together. Default 65,536 messages, 8 MiB. One that falls further
// behind reads from the store, unless its policy says otherwise.
func WithWindow(messages, bytes int) Option {
	return func(o *options) { o.window = window{messages: max(messages, 1), bytes: max(bytes, 1)} }
}

// feed reads the end of a topic once for all subscribers of a Topic object. It
// keeps the newest messages in slabs, in order; subscribers are cursors, so that a
// slow one costs nothing but the slab that it stands in. It runs while it has
// subscribers.
type feed struct {
	reader *sequence.Reader
	window window

	mu      sync.Mutex // protects what follows
	users   int
	run     *feedRun // nil while there are no users
	slabs   []slab   // oldest first
	first   uint64   // number of slabs[0]
	base    client.Revision
	held    window // what the slabs hold
	peak    window // the most that they have held
	total   uint64 // messages that have come
	changed chan struct{}
}

// feedRun is the goroutine of a feed, and how it ended.
type feedRun struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // readable once done is closed
}

// slab is some messages in a row. It is immutable.
type slab struct {
	messages []*message
	bytes    int
	before   uint64            // messages of the feed before it
	at       sequence.Position // behind it
}

// spot is a subscriber's place in a feed.
type spot struct {
	next   uint64 // number of the next slab
	before uint64 // messages of the feed before it
}

func newFeed(r *sequence.Reader, w window) *feed {
	return &feed{reader: r, window: w, changed: make(chan struct{})}
}

// join makes a subscriber that has everything up to a revision one of the feed, if
// the feed has all that follows. The first one starts it there. Each join that
// succeeds needs a leave.
func (f *feed) join(at sequence.Position) (spot, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.run == nil {
		f.slabs, f.base, f.held = nil, at.Revision, window{}
		ctx, cancel := context.WithCancel(context.Background())
		f.run = &feedRun{cancel: cancel, done: make(chan struct{})}
		go f.read(ctx, f.run, at)
	}
	if at.Revision < f.base {
		return spot{}, false
	}
	f.users++
	s := spot{next: f.first, before: f.total}
	for _, slab := range f.slabs {
		if slab.at.Revision > at.Revision {
			s.before = slab.before
			break
		}
		s.next++
	}
	return s, true
}

// leave ends a subscriber's use; that of the last one ends the feed.
func (f *feed) leave() {
	f.mu.Lock()
	f.users--
	run := f.run
	last := f.users == 0
	if last {
		f.run, f.slabs, f.held = nil, nil, window{}
		run.cancel()
	}
	f.mu.Unlock()
	if last {
		<-run.done
	}
}

// read is the goroutine of a run.
func (f *feed) read(ctx context.Context, run *feedRun, at sequence.Position) {
	defer close(run.done)
	for b, err := range f.reader.Read(ctx, at) {
		if err != nil {
			f.mu.Lock()
			run.err = feedError(err)
			f.wakeLocked()
			f.mu.Unlock()
			return
		}
		if !f.push(run, b) {
			return
		}
	}
}

// feedError makes the error that subscribers see.
func feedError(err error) error {
	if errors.Is(err, sequence.ErrMissing) {
		return fmt.Errorf("%w: %w", ErrNoTopic, err)
	}
	return err
}

// push adds a batch in slabs and forgets the oldest ones. It returns false when the
// run has been replaced.
func (f *feed) push(run *feedRun, b sequence.Batch) bool {
	messages := decodeBatch(b.Entries)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.run != run {
		return false
	}
	for len(messages) > 0 {
		var s slab
		for len(messages) > len(s.messages) && len(s.messages) < slabMessagesMax && s.bytes < slabBytesMax {
			s.bytes += messages[len(s.messages)].bytes()
			s.messages = messages[:len(s.messages)+1]
		}
		messages = messages[len(s.messages):]
		s.before, s.at = f.total, b.Position
		if len(messages) > 0 { // the commit may go on in the next one
			s.at.Revision = s.messages[len(s.messages)-1].offset.Revision - 1
		}
		f.total += uint64(len(s.messages))
		f.slabs = append(f.slabs, s)
		f.held.messages += len(s.messages)
		f.held.bytes += s.bytes
	}
	for len(f.slabs) > 1 && (f.held.messages > f.window.messages || f.held.bytes > f.window.bytes) {
		s := f.slabs[0]
		f.slabs[0] = slab{}
		f.slabs = f.slabs[1:]
		f.first++
		f.base = max(f.base, s.at.Revision)
		f.held.messages -= len(s.messages)
		f.held.bytes -= s.bytes
	}
	f.peak = window{max(f.peak.messages, f.held.messages), max(f.peak.bytes, f.held.bytes)}
	if len(b.Entries) > 0 {
		f.wakeLocked()
	}
	return true
}

func (f *feed) wakeLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// view is what a subscriber finds at its spot.
type view struct {
	slab    *slab         // nil when it has to wait
	lost    bool          // the slab is gone
	oldest  uint64        // number of the oldest slab
	waiting uint64        // messages from the spot to the end of the feed
	changed chan struct{} // closed when there is more
	done    chan struct{} // closed when the feed has ended
	run     *feedRun
}

func (f *feed) look(s spot) view {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := view{oldest: f.first, changed: f.changed, run: f.run, done: f.run.done}
	i := int(s.next) - int(f.first)
	switch {
	case i < 0:
		v.lost = true
	case i < len(f.slabs):
		slab := f.slabs[i]
		v.slab, v.waiting = &slab, f.total-slab.before
	}
	return v
}

// Buffered tells what a Topic object keeps for its subscribers.
type Buffered struct {
	Subscribers int
	// Messages and Bytes are what the shared window holds.
	Messages, Bytes int
	// MessagesPeak and BytesPeak are the most that it has held.
	MessagesPeak, BytesPeak int
}

// Buffered returns what is kept for the subscribers of this object that read the
// end of the topic: never more than the window and one slab, of up to 1,024
// messages or 256 KiB and a commit, for each that stands still.
func (t *topic) Buffered() Buffered {
	f := t.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	return Buffered{
		Subscribers: f.users, Messages: f.held.messages, Bytes: f.held.bytes,
		MessagesPeak: f.peak.messages, BytesPeak: f.peak.bytes,
	}
}
