package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

const (
	// chainsMax bounds the batches of a Queue object that are under way at once,
	// plainMax those of calls that can share one: the fewer there are, the more
	// calls share each.
	chainsMax = 8
	plainMax  = 1
	// A batch has a shard more for each so many jobs, so that many workers get
	// some of what is enqueued at once.
	jobsPerShard = 8
)

// committer gathers calls into batches: what comes while others are under way is
// the next batch. It starts no goroutine that outlives its batch.
type committer struct {
	core *core

	mu     sync.Mutex // protects what follows
	plain  []*call    // waiting
	alone  []*call    // waiting, each a batch of its own
	idle   []*chain
	chains int // in use
	shared int // of them with plain batches
}

// chain is a numbered row of batches, see shard.Writer.
type chain struct {
	writer  *shard.Writer
	session *client.Session
}

var chainCount atomic.Int64 // makes the names of chains differ; the session's lease is the rest

// call is one Enqueue.
type call struct {
	reqs  []*request
	alone bool // not to share a batch
	done  chan struct{}

	batch *batch // protected by the committer's mu; nil while it waits for one
	ids   []ID
	err   error
}

// batch is some calls that share a transaction. Its context ends when none of the
// callers waits any more.
type batch struct {
	calls   []*call
	waiting int // protected by the committer's mu
	ctx     context.Context
	cancel  context.CancelFunc
}

func (m *committer) submit(ctx context.Context, c *call) ([]ID, error) {
	m.mu.Lock()
	if c.alone {
		m.alone = append(m.alone, c)
	} else {
		m.plain = append(m.plain, c)
	}
	m.startLocked()
	m.mu.Unlock()
	select {
	case <-c.done:
		return c.ids, c.err
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.batch == nil {
		gone := func(other *call) bool { return other == c }
		m.plain, m.alone = slices.DeleteFunc(m.plain, gone), slices.DeleteFunc(m.alone, gone)
		return nil, ctxError(ctx)
	}
	select {
	case <-c.done:
		return c.ids, c.err
	default:
	}
	if c.batch.waiting--; c.batch.waiting == 0 {
		c.batch.cancel()
	}
	return nil, fmt.Errorf("%w: %w", client.ErrUncertain, ctxError(ctx))
}

// startLocked starts what can be started.
func (m *committer) startLocked() {
	for m.chains < chainsMax && len(m.alone) > 0 {
		c := m.alone[0]
		m.alone = m.alone[1:]
		m.goLocked([]*call{c}, false)
	}
	for m.shared < plainMax && m.chains < chainsMax && len(m.plain) > 0 {
		n, jobs, size := 0, 0, 0
		for n < len(m.plain) {
			for _, r := range m.plain[n].reqs {
				jobs, size = jobs+1, size+r.size()
			}
			if n > 0 && (jobs > batchMax || size > batchBytesMax) {
				break
			}
			n++
		}
		calls := slices.Clone(m.plain[:n])
		m.plain = slices.Delete(m.plain, 0, n)
		m.goLocked(calls, true)
	}
}

func (m *committer) goLocked(calls []*call, shared bool) {
	b := &batch{calls: calls, waiting: len(calls)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for _, c := range calls {
		c.batch = b
	}
	var ch *chain
	if n := len(m.idle); n > 0 {
		ch, m.idle = m.idle[n-1], m.idle[:n-1]
	} else {
		ch = &chain{}
	}
	m.chains++
	if shared {
		m.shared++
	}
	go func() {
		err := m.commit(ch, b)
		b.cancel()
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, c := range calls {
			if c.err = err; err != nil {
				c.ids = nil
			}
			close(c.done)
		}
		if err == nil || !errors.Is(err, client.ErrUncertain) {
			m.idle = append(m.idle, ch)
		}
		m.chains--
		if shared {
			m.shared--
		}
		m.startLocked()
	}()
}

// commit writes a batch. It goes on as long as somebody waits for it.
func (m *committer) commit(ch *chain, b *batch) error {
	q := m.core
	again := false // a transaction may have been executed and is not known to be
	for {
		if err := ch.ready(b.ctx, q); err != nil {
			return err
		}
		conf := q.conf.Load()
		drafts, err := m.drafts(b.ctx, b.calls, conf)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(b.ctx)
		stop := context.AfterFunc(ch.session.Context(), cancel)
		a, unsure, err := q.settle(ctx, ch.writer.Batch(drafts, conf.mod))
		stop()
		cancel()
		again = again || unsure
		switch {
		case errors.Is(err, client.ErrLeaseNotFound) && !again:
			q.leases.forget()
			ch.session = nil // a new chain
			continue
		case err != nil && !again && !errors.Is(err, client.ErrUncertain) && b.ctx.Err() == nil && ch.session.Err() != nil:
			ch.session = nil // it has ended, and nothing was executed: a new chain
			continue
		case err != nil:
			ch.session = nil
			return certain(err, again)
		}
		verdict, _, taken := ch.writer.Judge(a, conf.mod)
		switch verdict {
		case shard.Written:
			return nil
		case shard.Duplicate:
			return duplicate(drafts, taken)
		case shard.Reconfigure:
			if _, err := q.load(b.ctx); err != nil {
				return err
			}
		case shard.Lost:
			ch.session = nil
			if again {
				return fmt.Errorf("%w: the session ended meanwhile", client.ErrUncertain)
			}
		case shard.Stale: // the answer has told a newer revision
		}
		again = false // that one was judged
	}
}

// certain adds that the outcome is uncertain.
func certain(err error, again bool) error {
	if again && !errors.Is(err, client.ErrUncertain) {
		return fmt.Errorf("%w: %w", client.ErrUncertain, err)
	}
	return err
}

// drafts gives all jobs of a batch their names, in order, and their shards.
func (m *committer) drafts(ctx context.Context, calls []*call, conf *config) (out []*shard.Draft, err error) {
	n, spread := 0, 0
	for _, c := range calls {
		c.ids = c.ids[:0]
		for _, r := range c.reqs {
			if n%jobsPerShard == 0 || c.alone && n == 0 {
				spread = r.spread
			}
			if !c.alone {
				r.spread = spread
			}
			d, err := m.core.draft(ctx, r, conf)
			if err != nil {
				return nil, err
			}
			c.ids = append(c.ids, ID(d.Item.Job))
			out = append(out, d)
			n++
		}
	}
	return out, nil
}

func duplicate(drafts []*shard.Draft, taken []string) error {
	err := &DuplicateError{}
	for _, d := range drafts {
		if d.Unique != "" && len(taken) > 0 {
			err.Jobs = append(err.Jobs, ID(taken[0]))
			taken = taken[1:]
		}
	}
	return err
}

// ready makes sure that the chain has a session that lives.
func (ch *chain) ready(ctx context.Context, q *core) error {
	if ch.session != nil && ch.session.Err() == nil {
		return nil
	}
	s, err := q.session(ctx)
	if err != nil {
		return err
	}
	ch.session = s
	ch.writer = &shard.Writer{ID: fmt.Sprintf("%s-%x", s.ID(), chainCount.Add(1)), Lease: int64(s.ID())}
	return nil
}
