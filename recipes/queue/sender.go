package queue

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

const (
	// sendsMax bounds the shared transactions of a Queue object that are under way
	// at once: the fewer there are, the more each carries.
	sendsMax = 1
	// An envelope has so many transactions at most, of so many operations each:
	// servers count those inside together with those around them, up to 128.
	envelopeTxns = 40
	innerOps     = 80
)

// sender lets the workers of a Queue object share transactions: what comes while
// others are under way is the next one. It has no goroutine: one of those who wait
// sends for all whose requests fit.
//
// Transactions inside another one are judged on the state before the whole, so
// those of two workers may share one only if neither writes what the other has as a
// condition. That is so for what workers write about jobs that are theirs, and not
// for what moves shards, see [shard.Request].
type sender struct {
	core *core

	mu       sync.Mutex // protects what follows
	waiting  []*parcel
	underWay int
}

// parcel is the requests of one worker. What came of them is readable once done is
// closed.
type parcel struct {
	requests []*shard.Request
	answers  []*shard.Answer
	err      error
	turn     chan struct{} // capacity 1: it is to send itself, and others that fit
	done     chan struct{}
}

// submit executes requests once. An error leaves them to the worker: they were
// executed if it is client.ErrUncertain, perhaps.
func (s *sender) submit(ctx context.Context, requests []*shard.Request) ([]*shard.Answer, error) {
	p := &parcel{requests: requests, turn: make(chan struct{}, 1), done: make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, p)
	s.passLocked()
	s.mu.Unlock()
	select {
	case <-p.turn:
		s.send(ctx, p)
		return p.answers, p.err
	case <-p.done:
		return p.answers, p.err
	case <-ctx.Done():
		return nil, s.giveUp(ctx, p)
	}
}

// giveUp ends a parcel's waiting.
func (s *sender) giveUp(ctx context.Context, p *parcel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, p); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return ctxError(ctx)
	}
	select {
	case <-p.turn: // somebody else has it now
		s.underWay--
		s.passLocked()
		return ctxError(ctx)
	default:
		return fmt.Errorf("%w: %w", client.ErrUncertain, ctxError(ctx))
	}
}

// passLocked gives the turn to those who wait, while there are turns.
func (s *sender) passLocked() {
	for s.underWay < sendsMax && len(s.waiting) > 0 {
		p := s.waiting[0]
		s.waiting = slices.Delete(s.waiting, 0, 1)
		s.underWay++
		p.turn <- struct{}{}
	}
}

// send executes a parcel together with what fits of those that wait, and passes
// the turn on.
func (s *sender) send(ctx context.Context, p *parcel) {
	all := append([]*parcel{p}, s.take(envelopeTxns-len(p.requests), bytesOf(p))...)
	var t shard.Txn
	for _, p := range all {
		for _, r := range p.requests {
			t.Then = append(t.Then, shard.Op{Kind: shard.Nest, Txn: &r.Txn})
		}
	}
	a, err := s.core.do(ctx, t)
	for _, p := range all {
		if p.err = err; err == nil {
			for range p.requests {
				p.answers = append(p.answers, a.Results[0].Txn)
				a.Results = a.Results[1:]
			}
		}
		close(p.done)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay--
	s.passLocked()
}

// take takes the first parcels that wait, of so many transactions, as far as they
// fit behind so many bytes.
func (s *sender) take(txns, bytes int) []*parcel {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for ; n < len(s.waiting); n++ {
		txns -= len(s.waiting[n].requests)
		bytes += bytesOf(s.waiting[n])
		if txns < 0 || bytes > batchBytesMax {
			break
		}
	}
	out := slices.Clone(s.waiting[:n])
	s.waiting = slices.Delete(s.waiting, 0, n)
	return out
}

func bytesOf(p *parcel) (n int) {
	for _, r := range p.requests {
		n += r.Txn.Bytes()
	}
	return n
}

// shareable says whether requests may be sent together with those of other
// workers.
func shareable(requests []*shard.Request) bool {
	return len(requests) <= envelopeTxns && !slices.ContainsFunc(requests, func(r *shard.Request) bool {
		return r.Read || r.Alone || len(r.Txn.If) > innerOps || len(r.Txn.Then) > innerOps || len(r.Txn.Else) > innerOps
	})
}
