package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

// outbox has what a worker's shards want executed.
type outbox struct {
	requests []*shard.Request // writes that wait
	underWay int              // requests whose answers are awaited
	writes   int              // of them, transactions that write
}

// noSpacePause is how long a worker waits before it tries again to write into a
// store that is full.
const noSpacePause = time.Second

// push takes a request. Reads go at once; writes wait for their turn, so that
// what gathers meanwhile shares a transaction.
func (w *worker) push(r *shard.Request) {
	w.underWay++
	if !r.Read {
		w.requests = append(w.requests, r)
		return
	}
	w.task(func() { w.execute([]*shard.Request{r}) })
}

// flush sends what waits, as one transaction with independent parts, while fewer
// than requestsMax are under way.
func (w *worker) flush() {
	for w.writes < requestsMax && len(w.requests) > 0 {
		n, ops := 0, 0
		for n < len(w.requests) {
			ops += max(len(w.requests[n].Txn.Then), len(w.requests[n].Txn.Else), len(w.requests[n].Txn.If)) + 1
			if n > 0 && ops > opsPerEnvelope {
				break
			}
			n++
		}
		batch := append([]*shard.Request(nil), w.requests[:n]...)
		w.requests = append(w.requests[:0], w.requests[n:]...)
		w.writes++
		w.task(func() { w.execute(batch) })
	}
}

// execute sends requests until they are answered, or the worker ends.
func (w *worker) execute(batch []*shard.Request) {
	read := batch[0].Read
	answers, err := w.send(batch)
	w.post(func() {
		w.underWay -= len(batch)
		if !read {
			w.writes--
		}
		if err != nil {
			w.kill(err)
			return
		}
		for i, r := range batch {
			r.Answer(answers[i])
		}
	})
}

func (w *worker) send(batch []*shard.Request) ([]*shard.Answer, error) {
	if shareable(batch) {
		answers, err := w.q.sends.submit(w.life, batch)
		if err == nil {
			return answers, nil
		}
		if errors.Is(err, client.ErrUncertain) {
			for _, r := range batch {
				r.Again = true
			}
		}
	}
	return w.sendAlone(batch)
}

// sendAlone sends requests of this worker, until they are answered or it ends.
func (w *worker) sendAlone(batch []*shard.Request) ([]*shard.Answer, error) {
	t := batch[0].Txn
	if len(batch) > 1 {
		t = shard.Txn{}
		for _, r := range batch {
			t.Then = append(t.Then, shard.Op{Kind: shard.Nest, Txn: &r.Txn})
		}
	}
	a, err := w.persist(t, func() {
		for _, r := range batch {
			r.Again = true
		}
	})
	switch {
	case err == nil && len(batch) > 1:
		answers := make([]*shard.Answer, len(batch))
		for i := range batch {
			answers[i] = a.Results[i].Txn
		}
		return answers, nil
	case err == nil:
		return []*shard.Answer{a}, nil
	case errors.Is(err, client.ErrCompacted):
		return []*shard.Answer{{Compacted: true}}, nil
	case len(batch) == 1:
		return nil, err
	}
	// What is wrong with one of them must not keep the others from being executed.
	var answers []*shard.Answer
	for _, r := range batch {
		one, err := w.sendAlone([]*shard.Request{r})
		if err != nil {
			return nil, err
		}
		answers = append(answers, one...)
	}
	return answers, nil
}

// persist executes a transaction until the answer is known, whatever it takes.
func (w *worker) persist(t shard.Txn, again func()) (*shard.Answer, error) {
	for n := 0; ; n++ {
		a, err := w.q.do(w.life, t)
		switch {
		case err == nil:
			return a, nil
		case w.life.Err() != nil:
			return nil, context.Cause(w.life)
		case errors.Is(err, client.ErrNoSpace):
			w.q.opts.log.Warn("store is full", "queue", w.q.name)
			if !sleep(w.life, noSpacePause) {
				return nil, context.Cause(w.life)
			}
			continue
		case errors.Is(err, client.ErrLeaseNotFound):
			if err := w.renew(&t); err != nil {
				return nil, err
			}
			continue
		case errors.Is(err, client.ErrUncertain):
			again()
		case !retry.Temporary(err):
			return nil, fmt.Errorf("write claims: %w", err)
		}
		if !pause(w.life, n) {
			return nil, context.Cause(w.life)
		}
	}
}

// renew replaces the leases of results, one of which has ended early. Without one
// it is better kept for too short than not at all.
func (w *worker) renew(t *shard.Txn) error {
	w.q.leases.forget()
	lease, err := w.q.leases.get(w.life, time.Hour)
	if err != nil {
		return err
	}
	replaceLeases(t, int64(lease))
	return nil
}

func replaceLeases(t *shard.Txn, lease int64) {
	for i := range t.Then {
		if t.Then[i].Lease != 0 {
			t.Then[i].Lease = lease
		}
		if t.Then[i].Txn != nil {
			replaceLeases(t.Then[i].Txn, lease)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
