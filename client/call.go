package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"
)

const (
	// The pause before a request goes round the endpoints once more: short, as an election takes but a few hundred
	// milliseconds, and random, as all clients lose their member at the same time.
	retryDelayMin = 2 * time.Millisecond
	retryDelayMax = 100 * time.Millisecond
)

// bounded returns ctx with a deadline: its own, or RequestTimeout from now.
func (co *core) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, co.cfg.RequestTimeout)
}

// call executes one request on any endpoint and fills in resp. A request that certainly was not executed, or that
// changes nothing, is tried on other endpoints until ctx is done. The error, if any, is an *Error.
func (co *core) call(ctx context.Context, m method, req, resp proto.Message) error {
	if co.ctx.Err() != nil {
		return &Error{Op: m.name, Kind: ErrClosed}
	}
	r := request{method: m.full, body: req, leader: !m.local}
	ep := co.ready(m)
	if _, ok := ctx.Deadline(); ok || ep == nil {
		ctx, cancel := co.bounded(ctx)
		defer cancel()
		return co.callUntil(ctx, m, r, resp, nil)
	}
	// The first attempt is mostly the only one: it does without a context with a deadline.
	begin := time.Now()
	r.limit = co.cfg.RequestTimeout
	sent, err := co.attempt(ctx, ep, m, r, resp)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, begin.Add(r.limit))
	defer cancel()
	r.limit = 0
	last := co.failed(ctx, m, ep, sent, err)
	if !last.again {
		return last
	}
	co.pool.leave(ep)
	return co.callUntil(ctx, m, r, resp, last)
}

// callUntil is call within ctx, after an attempt that failed with last, if that is not nil.
func (co *core) callUntil(ctx context.Context, m method, r request, resp proto.Message, last *Error) error {
	attempt := 0
	if last != nil {
		attempt = 1
	}
	for ; ; attempt++ {
		if attempt > 0 && !co.pause(ctx, attempt-1) && ctx.Err() != nil {
			last.endedBy(ctx)
			return last
		}
		ep, err := co.ready(m), error(nil)
		if ep == nil {
			ep, err = co.pool.pick(ctx)
		}
		if err != nil {
			return unavailable(m, err, last)
		}
		sent, err := co.attempt(ctx, ep, m, r, resp)
		if err == nil {
			return nil
		}
		last = co.failed(ctx, m, ep, sent, err)
		if !last.again {
			return last
		}
		co.pool.leave(ep)
	}
}

// failed makes an error of an attempt. It is again if another attempt may follow.
func (co *core) failed(ctx context.Context, m method, ep *endpoint, sent bool, err error) *Error {
	last := judge(m, ep.name, sent, err)
	if co.ctx.Err() != nil {
		last.Kind, last.again = ErrClosed, false
	}
	if ctx.Err() != nil {
		last.endedBy(ctx)
		last.again = false
	}
	return last
}

// ready returns a connected endpoint for a request: the leader's for a write, if it is known. Nil if there is none.
func (co *core) ready(m method) *endpoint {
	if m.write {
		if ep := co.guide.forWrites(); ep != nil {
			return ep
		}
	}
	return co.pool.ready()
}

// attempt sends the request to one endpoint, once.
func (co *core) attempt(ctx context.Context, ep *endpoint, m method, r request, resp proto.Message) (sent bool, err error) {
	ep.requests.Add(1)
	defer ep.requests.Add(-1)
	proto.Reset(resp)
	sent, err = co.transport.unary(ctx, ep, r, resp)
	if err == nil {
		ep.heard(co.clock.now())
		co.guide.answered(ep, m, co.saw(resp))
	}
	return sent, err
}

// pause waits before the next attempt: not at all while there are endpoints that were not asked yet. It returns false
// when ctx ends first.
func (co *core) pause(ctx context.Context, attempt int) bool {
	round := attempt + 1 - len(co.pool.endpoints)
	if round < 0 {
		return true
	}
	return co.sleep(ctx, backoffDelay(round, retryDelayMin, retryDelayMax))
}

// sleep waits. It returns false when ctx, or the client, ends first.
func (co *core) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-co.ctx.Done():
		return false
	}
}

// backoffDelay returns the pause before attempt n (from 0): doubling from shortest to longest, and random between half
// and all of that.
func backoffDelay(n int, shortest, longest time.Duration) time.Duration {
	delay := longest
	if n < 16 { // so that the shift can not overflow
		delay = min(longest, shortest<<n)
	}
	return delay/2 + rand.N(delay/2+1)
}

// ctxError returns why ctx is done; both its error and its cause, when those differ.
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == err {
		return err
	}
	return &causedError{err: err, cause: cause}
}

// causedError is a context's error and its cause.
type causedError struct{ err, cause error }

func (e *causedError) Error() string   { return e.err.Error() + ": " + e.cause.Error() }
func (e *causedError) Unwrap() []error { return []error{e.err, e.cause} }

// callRepeatable is call for a request that may be executed twice: it asks again while the outcome is uncertain. Once an
// attempt was uncertain, the condition done means that it was that one which succeeded.
func (co *core) callRepeatable(ctx context.Context, m method, req, resp proto.Message, done error) error {
	ctx, cancel := co.bounded(ctx)
	defer cancel()
	uncertain := false
	for attempt := 0; ; attempt++ {
		err := co.call(ctx, m, req, resp)
		if err == nil || (uncertain && errors.Is(err, done)) {
			return nil
		}
		var e *Error
		if !errors.As(err, &e) {
			return err
		}
		if !e.Uncertain {
			e.Uncertain = uncertain // this attempt was not executed, but that says nothing about the ones before
			return err
		}
		uncertain = true
		if ctx.Err() != nil || co.ctx.Err() != nil || !co.pause(ctx, attempt) {
			return err
		}
	}
}
