package pubsub

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

const (
	// A publisher sends what it has when so many messages or bytes are there, or
	// when the oldest of them has waited for the linger time.
	defaultLinger      = 2 * time.Millisecond
	lingerMessages     = 64
	recordBytesMax     = 256 << 10
	writeMessagesMax   = 2048
	writeBytesMax      = 1 << 20
	defaultQueued      = 16 << 10 // messages
	queuedBytesMax     = 16 << 20
	inFlightMax        = 64
	defaultDeliverTime = 30 * time.Second
)

// PublisherOption is an option of Topic.Publisher.
type PublisherOption func(*publisherConfig)

type publisherConfig struct {
	linger   time.Duration
	inFlight int
	queued   int
	deliver  time.Duration
}

// Linger sets how long a message waits for others to share a commit with, while
// nothing is under way. Default 2 ms; zero sends at once. What comes while a commit
// is under way shares the next one in any case.
func Linger(d time.Duration) PublisherOption {
	return func(c *publisherConfig) { c.linger = max(d, 0) }
}

// InFlight allows so many commits at once, up to 64. Default 1: then messages have
// the order of the calls. With more, only those of one key have it.
func InFlight(n int) PublisherOption {
	return func(c *publisherConfig) { c.inFlight = min(max(n, 1), inFlightMax) }
}

// Queued bounds the messages that wait in the publisher; beyond, Publish waits.
// Default 16,384. They are bounded to 16 MiB in any case.
func Queued(n int) PublisherOption { return func(c *publisherConfig) { c.queued = max(n, 1) } }

// DeliverTimeout bounds how long a message is tried to be committed. Default 30 s.
func DeliverTimeout(d time.Duration) PublisherOption {
	return func(c *publisherConfig) { c.deliver = max(d, time.Millisecond) }
}

// Publisher publishes in the background: messages that come within a moment share a
// commit and a key. It must be closed. It is safe for concurrent use.
type Publisher[T any] struct {
	topic  *Topic[T]
	conf   publisherConfig
	boxes  []*outbox
	turn   atomic.Uint32
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// Publisher starts a publisher. It has a goroutine for each commit that may be in
// flight, until Close.
func (t *Topic[T]) Publisher(opts ...PublisherOption) *Publisher[T] {
	conf := publisherConfig{linger: defaultLinger, inFlight: 1, queued: defaultQueued, deliver: defaultDeliverTime}
	for _, o := range opts {
		o(&conf)
	}
	p := &Publisher[T]{topic: t, conf: conf}
	ctx, cancel := context.WithCancelCause(context.Background())
	p.cancel = cancel
	for range conf.inFlight {
		box := newOutbox(conf, t.topic.commit)
		p.boxes = append(p.boxes, box)
		p.wg.Go(func() { box.run(ctx) })
	}
	return p
}

// Publish hands a message over and returns what will tell its offset. It waits
// only while too much is queued; ctx bounds that.
//
// Errors: [ErrTooLarge], [ErrClosed], those of the codec and of ctx. Then the
// message was not handed over.
func (p *Publisher[T]) Publish(ctx context.Context, v T, opts ...PublishOption) (*Pending, error) {
	d, pub, err := p.topic.draft(v, opts)
	if err != nil {
		return nil, fmt.Errorf("publish to topic %q: %w", p.topic.name, err)
	}
	box := p.boxes[0]
	if n := uint32(len(p.boxes)); n > 1 {
		i := p.turn.Add(1)
		if d.key != "" {
			h := fnv.New32()
			h.Write([]byte(d.key))
			i = h.Sum32()
		}
		box = p.boxes[i%n]
	}
	item := &Pending{draft: d, dedup: pub.dedup, done: make(chan struct{})}
	if err := box.put(ctx, item); err != nil {
		return nil, fmt.Errorf("publish to topic %q: %w", p.topic.name, err)
	}
	return item, nil
}

// Flush waits until all messages that were handed over before are committed, or
// have failed. It returns the error of ctx if that ends first.
func (p *Publisher[T]) Flush(ctx context.Context) error {
	for _, box := range p.boxes {
		if last := box.latest(); last != nil {
			select {
			case <-last.done:
			case <-ctx.Done():
				return fmt.Errorf("flush topic %q: %w", p.topic.name, retry.Why(ctx))
			}
		}
	}
	return nil
}

// Close commits what was handed over and ends the publisher. When ctx ends first,
// messages that are left fail with [ErrClosed], or client.ErrUncertain if they were
// under way. Nothing of the publisher runs when Close has returned. Further calls
// do nothing.
func (p *Publisher[T]) Close(ctx context.Context) error {
	for _, box := range p.boxes {
		box.close()
	}
	err := p.Flush(ctx)
	p.cancel(ErrClosed)
	p.wg.Wait()
	return err
}

// Pending is a message that was handed to a publisher.
type Pending struct {
	draft *draft
	dedup string

	done   chan struct{} // closed when the rest is known
	offset Offset
	err    error
}

// Done is closed when the message is committed or has failed.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Wait returns the message's offset, or why it failed, as Topic.Publish does; or
// the error of ctx, while nothing is known of the message.
func (p *Pending) Wait(ctx context.Context) (Offset, error) {
	select {
	case <-p.done:
		return p.offset, p.err
	case <-ctx.Done():
		return Offset{}, retry.Why(ctx)
	}
}

// outbox is a queue of messages that are committed in order, one commit at a time.
type outbox struct {
	conf   publisherConfig
	commit func(ctx context.Context, batch []*Pending) // tells what became of each
	more   chan struct{}                               // capacity 1: something was put
	full   chan struct{}                               // capacity 1: enough is there to send at once

	mu     sync.Mutex // protects what follows
	queue  []*Pending
	bytes  int
	last   *Pending
	space  chan struct{} // closed and replaced when something was taken
	closed bool
}

func newOutbox(conf publisherConfig, commit func(context.Context, []*Pending)) *outbox {
	return &outbox{
		conf: conf, commit: commit, space: make(chan struct{}),
		more: make(chan struct{}, 1), full: make(chan struct{}, 1),
	}
}

// put adds a message, when there is space for it.
func (b *outbox) put(ctx context.Context, p *Pending) error {
	size := p.draft.bytes()
	for {
		b.mu.Lock()
		switch {
		case b.closed:
			b.mu.Unlock()
			return ErrClosed
		case len(b.queue) < b.conf.queued && (b.bytes+size <= queuedBytesMax || len(b.queue) == 0):
			b.queue = append(b.queue, p)
			b.bytes += size
			b.last = p
			full := len(b.queue) >= lingerMessages || b.bytes >= recordBytesMax
			b.mu.Unlock()
			notify(b.more)
			if full {
				notify(b.full)
			}
			return nil
		}
		space := b.space
		b.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return retry.Why(ctx)
		}
	}
}

func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (b *outbox) latest() *Pending {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *outbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	close(b.space)
	b.space = make(chan struct{})
	notify(b.full) // nothing lingers any more
}

// run commits what is put until ctx is done; then it fails what is left. What has
// come during a commit does not linger.
func (b *outbox) run(ctx context.Context) {
	for ctx.Err() == nil {
		batch := b.take()
		if batch == nil {
			select {
			case <-b.more:
				b.linger(ctx)
			case <-ctx.Done():
			}
			continue
		}
		b.deliver(ctx, batch)
	}
	for batch := b.take(); batch != nil; batch = b.take() {
		for _, p := range batch {
			p.err = context.Cause(ctx)
			close(p.done)
		}
	}
}

// linger waits for company for the first message.
func (b *outbox) linger(ctx context.Context) {
	if b.conf.linger == 0 {
		return
	}
	timer := time.NewTimer(b.conf.linger)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.full:
	case <-ctx.Done():
	}
}

// take takes what fits into one commit, in order; nil when there is nothing. A
// message with a dedup id is one by itself.
func (b *outbox) take() []*Pending {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, bytes := 0, 0
	for ; n < len(b.queue) && n < writeMessagesMax; n++ {
		p := b.queue[n]
		size := p.draft.bytes()
		if n > 0 && (bytes+size > writeBytesMax || p.dedup != "" || b.queue[0].dedup != "") {
			break
		}
		bytes += size
	}
	if n == 0 {
		return nil
	}
	batch := append([]*Pending(nil), b.queue[:n]...)
	clear(b.queue[:n])
	b.queue = b.queue[n:]
	b.bytes -= bytes
	close(b.space)
	b.space = make(chan struct{})
	select {
	case <-b.full:
	default:
	}
	return batch
}

// deliver commits a batch, within the time for it.
func (b *outbox) deliver(ctx context.Context, batch []*Pending) {
	ctx, cancel := context.WithTimeout(ctx, b.conf.deliver)
	defer cancel()
	b.commit(ctx, batch)
}

// commit commits a batch and tells its messages.
func (t *topic) commit(ctx context.Context, batch []*Pending) {
	drafts := make([]*draft, len(batch))
	// What has no key goes together, into one record.
	together, bytes := t.anyPartition(), 0
	for i, p := range batch {
		drafts[i] = p.draft
		if p.draft.partition >= 0 {
			continue
		}
		if bytes += p.draft.bytes(); bytes > recordBytesMax {
			together, bytes = t.anyPartition(), p.draft.bytes()
		}
		p.draft.partition = together
	}
	w := newWrite(drafts, time.Now().UnixMilli())
	w.dedup = batch[0].dedup
	at, err := t.write(ctx, w)
	if err != nil && errors.Is(context.Cause(ctx), ErrClosed) {
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	for i, p := range batch {
		if p.err = err; err == nil {
			p.offset = Offset{Revision: at.Revision, Index: at.Index + uint64(i)}
		}
		close(p.done)
	}
	if err == nil {
		t.trimmer.published(ctx, w.messages, w.bytes)
	}
}
