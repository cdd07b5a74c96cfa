package election

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// withdrawTimeout bounds how long a request that is over is tried to be removed.
const withdrawTimeout = time.Second

// request is the value of a key "<name>.req/<term>/<id>".
type request struct {
	Reason string `json:"reason,omitempty"`
	To     string `json:"to,omitempty"` // the ID of a candidate
}

// RequestStepDown asks the leader to step down, and waits until it does not lead
// any more. A leader in [Election.Run] finishes first and then hands over to the
// next in line; one by Campaign finds the request in StepDownRequested.
//
// The request is of the session, and ends with the call: when ctx ends before
// the leader has left, it is withdrawn. The leader may have heard of it.
//
// Errors: [ErrNoLeader]; [ErrUnheard] when the leader is a client of etcd; those
// of ctx; and those of the client.
func (e *Election[T]) RequestStepDown(ctx context.Context, reason string) error {
	if err := e.request(ctx, request{Reason: reason}); err != nil {
		return fmt.Errorf("ask the leader of %q to step down: %w", e.name, err)
	}
	return nil
}

// RequestHandOver is RequestStepDown for a leader who is to hand over to the
// candidate with the ID. [ErrNoCandidate] when nobody else of that ID stands.
func (e *Election[T]) RequestHandOver(ctx context.Context, to, reason string) error {
	if err := e.request(ctx, request{Reason: reason, To: to}); err != nil {
		return fmt.Errorf("ask the leader of %q to hand over to %q: %w", e.name, to, err)
	}
	return nil
}

func (e *Election[T]) request(ctx context.Context, req request) error {
	r, err := e.roll(ctx)
	if err != nil {
		return err
	}
	if r.leader == "" {
		return ErrNoLeader
	}
	leader, known := r.candidate(r.leader), req.To == ""
	for _, c := range r.line() {
		known = known || c.answersTo(req.To) && c.Key != leader.Key
	}
	switch {
	case !known:
		return ErrNoCandidate
	case !leader.Ours:
		return ErrUnheard
	}
	s, err := e.open(ctx)
	if err != nil {
		return err
	}
	key := e.keys.requests(leader.Term) + rand.Text()
	leads := client.CreateRevision(leader.Key).Equal(client.Revision(leader.Term))
	put := client.OpPut(key, encode(req), client.WithLease(s.ID()))
	defer e.withdraw(ctx, key)
	var res *client.TxnResult
	err = retry.Do(ctx, func() error { // nobody else has a key of that name
		res, err = e.client.Txn().If(leads).Then(put).Commit(ctx)
		return err
	})
	if err != nil || !res.Succeeded {
		return err // nil: it does not lead any more
	}
	return e.awaitEnd(ctx, leader, res.Revision)
}

// withdraw removes a request. If that fails, it ends with the term, or with the
// session.
func (e *Election[T]) withdraw(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTimeout)
	defer cancel()
	_, _ = e.client.Delete(ctx, key)
}

// awaitEnd returns when the leader's key, which existed at rev, is gone.
func (e *Election[T]) awaitEnd(ctx context.Context, leader Candidate, rev client.Revision) error {
	for {
		var err error
		for _, err = range e.client.Watch(ctx, leader.Key, client.FromRevision(rev+1), client.WithoutPuts()) {
			break
		}
		if !errors.Is(err, client.ErrCompacted) {
			return err
		}
		kv, err := e.client.GetOne(ctx, leader.Key)
		if errors.Is(err, client.ErrNotFound) || err == nil && fence.Token(kv.CreateRevision) != leader.Term {
			return nil
		}
		if err != nil {
			return err
		}
		rev = kv.ModRevision // any later one at which it was there would do
	}
}

// listen hears what is asked of the leader for as long as it leads.
func (l *Leadership[T]) listen(line *line) {
	keys, ctx := l.election.keys, l.ctx
	for _, kv := range line.requests {
		l.hear(line, kv)
	}
	rev := line.revision
	for ctx.Err() == nil {
		from, to := keys.beside()
		var err error
		for ev, failed := range l.election.client.Watch(ctx, from, to, client.FromRevision(rev+1), client.WithoutDeletes()) {
			if err = failed; err == nil {
				l.hear(line, ev.KV)
			}
		}
		if !errors.Is(err, client.ErrCompacted) {
			return // the end; or who may not look is not asked, and leads all the same
		}
		// What was asked may be among what is gone: look, and go on from there.
		res, err := l.claim.Get(ctx, from, to, client.Limit(besideMax))
		if err != nil {
			return
		}
		for _, kv := range res.KVs {
			l.hear(line, kv)
		}
		rev = res.Revision
	}
}

// hear judges a key beside the candidates: a request to us, or the record of one
// who preempts.
func (l *Leadership[T]) hear(line *line, kv client.KV) {
	keys := l.election.keys
	if strings.HasPrefix(kv.Key, keys.requests(l.Term())) {
		var req request
		if json.Unmarshal(kv.Value, &req) == nil {
			l.stepDown(&StepDown{Kind: ErrAsked, Reason: req.Reason, To: req.To})
		}
		return
	}
	id, ok := keys.recordID(kv.Key)
	rec := decodeRecord(kv.Value)
	if !ok || line.named || !rec.Preempts || rec.Priority <= l.election.record.Priority {
		return
	}
	// A record alone outranks nobody.
	term, err := line.stands(l.ctx, id, 0)
	if err != nil || term == 0 {
		return
	}
	if rec.ID != "" {
		id = rec.ID
	}
	l.stepDown(&StepDown{Kind: ErrPreempted, Reason: "candidate " + id})
}
