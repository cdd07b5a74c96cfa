package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	maxCallBytes       = 1 << 20 // a question or an answer of Call
	callsMax           = 1024    // under way to one member, and served for one; further ones wait, or are refused
	defaultCallTimeout = 5 * time.Second
)

// What an answer says first.
const (
	answerOK    = 0
	answerError = 1
)

var (
	errCallTooLarge = errors.New("call of more than 1 MiB")
	errTooManyCalls = errors.New("too many calls")
)

// calls are the questions to one member that are under way.
type calls struct {
	room chan struct{} // holds a value for each; as many fit as may be under way

	mu      sync.Mutex // protects all below
	up      bool
	last    uint64 // id; one is never used again
	waiting map[uint64]chan outcome
}

// outcome is the end of a call.
type outcome struct {
	body []byte
	err  error
}

func newCalls() calls { return calls{room: make(chan struct{}, callsMax)} }

// begin registers a question. It returns false while no session is up.
func (c *calls) begin() (id uint64, end chan outcome, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.up {
		return 0, nil, false
	}
	c.last++
	end = make(chan outcome, 1) // has one sender, which must not wait
	c.waiting[c.last] = end
	return c.last, end, true
}

// finish forgets a question, and returns where its end is awaited; nil when that is known or of no interest any more.
func (c *calls) finish(id uint64) chan outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := c.waiting[id]
	delete(c.waiting, id)
	return end
}

// answer takes the body of an answer.
func (c *calls) answer(body []byte) error {
	if len(body) <= callIDBytes {
		return errFraming
	}
	end := c.finish(binary.LittleEndian.Uint64(body))
	if end == nil {
		return nil
	}
	r := outcome{body: slices.Clone(body[callIDBytes+1:])}
	if body[callIDBytes] != answerOK {
		r = outcome{err: errors.New(string(r.body))}
	}
	end <- r
	return nil
}

func (c *calls) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up, c.waiting = true, make(map[uint64]chan outcome)
}

// reset ends all of them.
func (c *calls) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, end := range c.waiting {
		end <- outcome{err: errBroken}
	}
	c.up, c.waiting = false, nil
}

// call asks the member. ctx ends it; so does the session's end.
func (r *remote) call(ctx context.Context, method byte, body []byte) ([]byte, error) {
	if len(body) > maxCallBytes {
		return nil, errCallTooLarge
	}
	select {
	case r.calls.room <- struct{}{}:
		defer func() { <-r.calls.room }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.ctx.Done():
		return nil, ErrNotConnected
	}
	id, end, ok := r.calls.begin()
	if !ok {
		return nil, ErrNotConnected
	}
	key := binary.LittleEndian.AppendUint64(nil, id)
	if !r.control.sendFrame(sealed(frameQuestion, key, []byte{method}, body)) {
		r.calls.finish(id)
		return nil, ErrNotConnected
	}
	select {
	case o := <-end:
		return o.body, o.err
	case <-ctx.Done():
		if r.calls.finish(id) != nil {
			r.control.sendFrame(sealed(frameCancel, key)) // if it is lost, so is only the work of answering
		}
		return nil, context.Cause(ctx)
	}
}

// serving are the questions of one connection that are being answered.
type serving struct {
	mu      sync.Mutex // protects cancels
	cancels map[uint64]context.CancelFunc
}

// add registers a question; false when there are too many.
func (s *serving) add(id uint64, cancel context.CancelFunc) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.cancels[id]; twice {
		return false, fmt.Errorf("%w: two calls with one id", errFraming)
	}
	if len(s.cancels) >= callsMax {
		return false, nil
	}
	if s.cancels == nil {
		s.cancels = make(map[uint64]context.CancelFunc)
	}
	s.cancels[id] = cancel
	return true, nil
}

// cancel ends the work for a question that nobody waits for.
func (s *serving) cancel(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.cancels[id]; cancel != nil {
		cancel()
	}
}

func (s *serving) remove(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cancels, id)
}

// question has a question answered by a goroutine of its own. Too many are refused: by an answer, if that can be written
// without waiting, for it is the receiver that would wait.
func (in *inbound) question(ctx context.Context, t *Transport, body []byte) error {
	if len(body) <= callIDBytes {
		return errFraming
	}
	id, method := binary.LittleEndian.Uint64(body), body[callIDBytes]
	ctx, cancel := context.WithCancel(ctx)
	ok, err := in.serving.add(id, cancel)
	if !ok {
		cancel()
		if err == nil {
			t.counters.rejected.Add(1)
			in.offer(answerFrame(id, nil, errTooManyCalls))
		}
		return err
	}
	question := slices.Clone(body[callIDBytes+1:])
	t.wg.Go(func() {
		defer cancel()
		answer, err := t.handler.Call(ctx, in.from, method, question)
		in.serving.remove(id)
		if len(answer) > maxCallBytes {
			err = fmt.Errorf("answer of %d bytes: %w", len(answer), errCallTooLarge)
		}
		if ctx.Err() == nil {
			in.say(answerFrame(id, answer, err))
		}
	})
	return nil
}

func answerFrame(id uint64, answer []byte, err error) []byte {
	key := binary.LittleEndian.AppendUint64(make([]byte, 0, callIDBytes+1), id)
	if err != nil {
		text := err.Error()
		return sealed(frameAnswer, append(key, answerError), []byte(text[:min(len(text), reasonMaxBytes)]))
	}
	return sealed(frameAnswer, append(key, answerOK), answer)
}
