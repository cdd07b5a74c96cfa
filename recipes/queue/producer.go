package queue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

const (
	defaultLinger = 2 * time.Millisecond
	defaultPack   = 64
	packMax       = 64 // messages of a chunk: as many as its end can take apart in one transaction
	packBytesMax  = 64 << 10
	pendingMax    = 65536
)

// ProducerOption is an option of Producer.
type ProducerOption func(*producerOptions)

type producerOptions struct {
	linger  time.Duration
	pack    int
	pending int
}

// WithLinger sets how long a job may wait for others to share a key with. Default
// 2 ms; zero: only for what is sent at the same time.
func WithLinger(d time.Duration) ProducerOption { return func(o *producerOptions) { o.linger = d } }

// WithPack sets how many jobs share a key, 1 to 64. Default 64, or 64 KiB of them.
func WithPack(n int) ProducerOption { return func(o *producerOptions) { o.pack = n } }

// WithPending bounds the jobs that wait to be written: with so many, Send waits.
// Default 65536.
func WithPending(n int) ProducerOption { return func(o *producerOptions) { o.pending = n } }

// Producer puts many small jobs into the queue, several to a key: it costs the
// store a twentieth of what single ones do. Jobs that have a group, a unique key, a
// delay or a kept result, and large ones, go single. It is safe for concurrent use.
//
// Jobs of one chunk are claimed together by one worker, and each of them ends for
// itself. They are in order only if they share a chunk.
type Producer[T any] struct {
	q   *Queue[T]
	o   producerOptions
	put func(context.Context, *request) (ID, error) // only tests replace it

	mu     sync.Mutex // protects what follows
	open   map[int]*bundle
	live   map[*Pending]struct{}
	room   chan struct{} // has an element for each job that is pending
	closed bool
}

// bundle is a chunk that is being filled.
type bundle struct {
	priority int
	payloads [][]byte
	pending  []*Pending
	bytes    int
	timer    *time.Timer
}

// Pending is a job that was given to a Producer.
type Pending struct {
	done chan struct{}
	id   ID
	err  error
}

// Producer returns a producer. It should be closed.
func (q *Queue[T]) Producer(opts ...ProducerOption) (*Producer[T], error) {
	o := producerOptions{linger: defaultLinger, pack: defaultPack, pending: pendingMax}
	for _, opt := range opts {
		opt(&o)
	}
	if o.linger < 0 || o.pack < 1 || o.pack > packMax || o.pending < 1 {
		return nil, fmt.Errorf("producer for %q: %w: linger %v, pack %d, pending %d", q.name, ErrOption, o.linger, o.pack, o.pending)
	}
	put := func(ctx context.Context, r *request) (ID, error) {
		ids, err := q.enqueue(ctx, []*request{r}, false)
		if err != nil {
			return "", err
		}
		return ids[0], nil
	}
	return &Producer[T]{q: q, o: o, put: put, open: make(map[int]*bundle), live: make(map[*Pending]struct{}), room: make(chan struct{}, o.pending)}, nil
}

// Send gives a job to the producer, and waits only while too many are pending. What
// became of it is told by the Pending.
//
// Errors: those of ctx, [ErrClosed], [ErrOption] and [ErrTooLarge]; the job is not
// enqueued then.
func (p *Producer[T]) Send(ctx context.Context, v T, opts ...EnqueueOption) (*Pending, error) {
	payload, err := p.q.encode(v)
	if err != nil {
		return nil, err
	}
	r := &request{payload: payload, opts: newEnqueueOptions(opts)}
	if err := p.q.check(r); err != nil {
		return nil, fmt.Errorf("send to %q: %w", p.q.name, err)
	}
	select {
	case p.room <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("send to %q: %w", p.q.name, ctxError(ctx))
	}
	done := &Pending{done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		<-p.room
		return nil, fmt.Errorf("send to %q: %w", p.q.name, ErrClosed)
	}
	p.live[done] = struct{}{}
	if !r.packable() {
		p.goLocked([]*Pending{done}, r)
		return done, nil
	}
	b := p.open[r.opts.priority]
	if b != nil && b.bytes+len(payload) > packBytesMax {
		p.shipLocked(b)
		b = nil
	}
	if b == nil {
		b = &bundle{priority: r.opts.priority}
		p.open[b.priority] = b
		b.timer = time.AfterFunc(p.o.linger, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.open[b.priority] == b {
				p.shipLocked(b)
			}
		})
	}
	b.payloads, b.pending, b.bytes = append(b.payloads, payload), append(b.pending, done), b.bytes+len(payload)
	if len(b.payloads) >= p.o.pack {
		p.shipLocked(b)
	}
	return done, nil
}

// packable says whether the job can share a key.
func (r *request) packable() bool {
	o := &r.opts
	return o.group == "" && o.unique == "" && o.due.IsZero() && o.delay == 0 && o.result == 0 && o.ttl == 0 &&
		o.attempts == 0 && o.header == nil && len(r.payload) <= packBytesMax/2
}

// shipLocked sends a bundle.
func (p *Producer[T]) shipLocked(b *bundle) {
	delete(p.open, b.priority)
	b.timer.Stop()
	r := &request{payload: b.payloads[0], opts: enqueueOptions{priority: b.priority}}
	if len(b.payloads) > 1 {
		r.payload, r.chunk = shard.Pack(b.payloads), len(b.payloads)
	}
	p.goLocked(b.pending, r)
}

// goLocked enqueues a request for those that wait for it.
func (p *Producer[T]) goLocked(pending []*Pending, r *request) {
	r.opts.wait = true // what was accepted is not refused later
	go func() {
		id, err := p.put(context.Background(), r)
		for i, d := range pending {
			if d.err = err; err == nil {
				d.id = id
				if r.chunk > 0 {
					d.id = ID(shard.PartID(string(id), i))
				}
			}
			close(d.done)
			<-p.room
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, d := range pending {
			delete(p.live, d)
		}
	}()
}

// Wait waits until the job is durable, and returns its name. An error of ctx says
// nothing about the job.
func (d *Pending) Wait(ctx context.Context) (ID, error) {
	select {
	case <-d.done:
		return d.id, d.err
	case <-ctx.Done():
		return "", fmt.Errorf("%w: %w", client.ErrUncertain, ctxError(ctx))
	}
}

// Flush sends what waits, and waits until everything that was sent before is
// durable or has failed, as its Pending tells.
func (p *Producer[T]) Flush(ctx context.Context) error {
	p.ship()
	p.mu.Lock()
	live := slices.Collect(maps.Keys(p.live))
	p.mu.Unlock()
	for _, d := range live {
		select {
		case <-d.done:
		case <-ctx.Done():
			return fmt.Errorf("flush producer for %q: %w", p.q.name, ctxError(ctx))
		}
	}
	return nil
}

// ship sends what waits for company.
func (p *Producer[T]) ship() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.open {
		p.shipLocked(b)
	}
}

// Close is Flush, and lets nothing be sent any more.
func (p *Producer[T]) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	return p.Flush(ctx)
}
