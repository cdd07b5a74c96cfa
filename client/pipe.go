package client

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
	"github.com/latchkey-go/latchkey/internal/codec"
)

const (
	// pipeRequestBytesMax is the largest request that a pipe takes: one that is larger would hold up the others.
	pipeRequestBytesMax = 64 << 10
	// pipeBatchBytes is how large a message of requests grows before the next one is begun. With one request more it is
	// below what any server takes.
	pipeBatchBytes = 128 << 10
	// pipeBufferBytes is what a message begins with, one of the sizes that gRPC's pool has.
	pipeBufferBytes = 4 << 10
	// pipeQueueBytes is what may wait to be sent before requests become unary RPCs instead.
	pipeQueueBytes = 4 << 20
	// pipeDirectBytes is what may be without an answer for a caller to send by itself. gRPC keeps 64 KiB that were not
	// written yet without blocking the sender, so that a caller's context always counts.
	pipeDirectBytes = 32 << 10
	// pipeDirectCalls is how many calls may be under way for the same: when there are more of them, it is better to
	// gather what they send at the same time.
	pipeDirectCalls = 2
)

// pipe is one stream of latchkey.v1.Pipe. What waits while a message is sent is the next message, so nothing lingers for
// company and nobody waits in line.
//
// The goroutine that opened it receives. Another one, made when needed, sends.
type pipe struct {
	core   *core
	ep     *endpoint
	stream grpc.ClientStream

	mu         sync.Mutex // protects the rest
	max        int        // calls that the server takes; 0 until it has said so
	calls      map[uint64]*pipeCall
	unanswered int         // bytes of the requests of calls
	lastID     uint64      // of a call
	sentID     uint64      // of the last call whose request was given to the stream
	queue      []pipeBatch // messages to send; the last one may grow
	queued     int         // bytes of queue
	sending    bool        // somebody sends, or nobody ever will again
	closing    bool        // the server wants no more
	err        error       // why it ended
}

// pipeBatch is a message of requests.
type pipeBatch struct {
	message []byte
	lastID  uint64 // of its last request
}

// pipeCall is a request that was sent, or will be, and the caller who waits for its answer.
type pipeCall struct {
	done  chan struct{} // capacity 1
	timer *time.Timer
	bytes int

	// Set before done.
	body []byte // of the answer
	sent bool
	err  error
}

// pipeCalls are used again, which spares each request a channel and a timer.
var pipeCalls = sync.Pool{New: func() any {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &pipeCall{done: make(chan struct{}, 1), timer: timer}
}}

// do sends a request and waits for its answer. taken is false if nothing was done, because the pipe does not take it.
// When ctx ends, the request may have been executed.
func (p *pipe) do(ctx context.Context, r request, number latchkeyv1.Method, resp proto.Message) (taken, sent bool, err error) {
	size := codec.Size(r.body)
	if size > pipeRequestBytesMax {
		return false, false, nil
	}
	call := pipeCalls.Get().(*pipeCall)
	id, direct, err := p.enqueue(call, r, number, size)
	if id == 0 {
		return err != nil, false, err
	}
	if direct {
		p.send(true)
	}
	if err := call.await(ctx, r.limit); err != nil {
		if p.withdraw(id) {
			return true, true, status.FromContextError(err).Err() // call is not used again
		}
		<-call.done
	}
	sent, err = call.sent, call.err
	if err == nil {
		err = codec.Unmarshal(call.body, resp)
		if err != nil {
			err = status.Errorf(codes.Internal, "decode the answer: %v", err)
		}
	}
	*call = pipeCall{done: call.done, timer: call.timer}
	pipeCalls.Put(call)
	return true, sent, err
}

// await waits for the answer, and returns why it waits no more if there is none.
func (call *pipeCall) await(ctx context.Context, limit time.Duration) error {
	var expired <-chan time.Time
	if limit > 0 {
		call.timer.Reset(limit)
		defer call.timer.Stop()
		expired = call.timer.C
	}
	select {
	case <-call.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-expired:
		return context.DeadlineExceeded
	}
}

// enqueue puts a request into the queue, and sees to it that it is sent; by the caller, if direct is set. The id is 0 if
// the pipe does not take it.
func (p *pipe) enqueue(call *pipeCall, r request, number latchkeyv1.Method, size int) (id uint64, direct bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil || p.closing || len(p.calls) >= p.max || p.queued > pipeQueueBytes {
		return 0, false, nil
	}
	batch := p.batch()
	before := len(batch.message)
	if batch.message, err = appendPipeRequest(batch.message, p.lastID+1, r, number, size); err != nil {
		batch.message = batch.message[:before]
		return 0, false, status.Errorf(codes.Internal, "encode the request: %v", err)
	}
	p.lastID++
	batch.lastID = p.lastID
	call.bytes = len(batch.message) - before
	p.queued += call.bytes
	p.unanswered += call.bytes
	p.calls[p.lastID] = call
	if p.sending {
		return p.lastID, false, nil
	}
	p.sending = true
	if len(p.calls) <= pipeDirectCalls && p.unanswered <= pipeDirectBytes {
		return p.lastID, true, nil
	}
	p.sendLater()
	return p.lastID, false, nil
}

// batch returns the message that takes the next request.
func (p *pipe) batch() *pipeBatch {
	n := len(p.queue)
	if n == 0 || len(p.queue[n-1].message) >= pipeBatchBytes {
		room := *mem.DefaultBufferPool().Get(pipeBufferBytes)
		p.queue = append(p.queue, pipeBatch{room[:0], p.lastID})
		n++
	}
	return &p.queue[n-1]
}

// sendLater has a goroutine send what is queued. mu is held, and sending set.
func (p *pipe) sendLater() {
	if !p.core.start(func() { p.send(false) }) {
		p.err = ErrClosed // the stream ends with the client, and with it those who wait
	}
}

// send sends what is queued. Who calls it has set sending. It does not block if direct is set.
func (p *pipe) send(direct bool) {
	for {
		if !direct {
			runtime.Gosched() // others that were woken with the first have something to send, too
		}
		p.mu.Lock()
		if len(p.queue) == 0 {
			if p.closing {
				p.mu.Unlock()
				_ = p.stream.CloseSend() // always nil
				return
			}
			p.sending = false
			p.mu.Unlock()
			return
		}
		if direct && p.unanswered > pipeDirectBytes {
			p.sendLater()
			p.mu.Unlock()
			return
		}
		b := p.queue[0]
		p.queue = p.queue[:copy(p.queue, p.queue[1:])]
		p.queued -= len(b.message)
		p.sentID = b.lastID
		p.mu.Unlock()
		if p.stream.SendMsg(b.message) != nil {
			return // the receiver is told why
		}
	}
}

// withdraw gives up a call, and reports whether it had no answer.
func (p *pipe) withdraw(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	call := p.calls[id]
	if call == nil {
		return false
	}
	p.forget(id, call)
	if p.err == nil && !p.closing {
		batch := p.batch()
		before := len(batch.message)
		batch.message = protowire.AppendTag(batch.message, 2, protowire.VarintType)
		batch.message = protowire.AppendVarint(batch.message, id)
		p.queued += len(batch.message) - before
		if !p.sending {
			p.sending = true
			p.sendLater()
		}
	}
	return true
}

// forget takes a call off the list. mu is held.
func (p *pipe) forget(id uint64, call *pipeCall) {
	delete(p.calls, id)
	p.unanswered -= call.bytes
}

// receive takes answers until the stream ends, and returns why.
func (p *pipe) receive() error {
	for {
		var message []byte
		if err := p.stream.RecvMsg(&message); err != nil {
			return err
		}
		p.ep.heard(p.core.clock.now())
		if err := p.received(message); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
	}
}

// received tells the callers what the server has answered.
func (p *pipe) received(message []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.max == 0 {
		p.max = 1 // the server says more
		defer p.ep.pipe.Store(p)
	}
	return pipeFields(message, func(number protowire.Number, v uint64, b []byte) error {
		switch {
		case number == 1 && b != nil:
			return p.answered(b)
		case number == 2 && b == nil:
			p.max = int(v)
		case number == 3 && b == nil && v != 0 && !p.closing:
			p.closing = true
			p.ep.pipe.CompareAndSwap(p, nil)
			if !p.sending {
				p.sending = true
				p.sendLater()
			}
		}
		return nil
	})
}

// answered takes one answer. mu is held.
func (p *pipe) answered(b []byte) error {
	var id, code uint64
	var body, text []byte
	unserved := false
	err := pipeFields(b, func(number protowire.Number, v uint64, b []byte) error {
		switch {
		case number == 1 && b == nil:
			id = v
		case number == 2 && b != nil:
			body = b
		case number == 3 && b == nil:
			code = v
		case number == 4 && b != nil:
			text = b
		case number == 5 && b == nil:
			unserved = v != 0
		}
		return nil
	})
	call := p.calls[id]
	if err != nil || call == nil { // nil: its caller has given it up
		return err
	}
	p.forget(id, call)
	call.body, call.sent = body, !unserved
	if code != 0 {
		call.err = status.Error(codes.Code(code), string(text))
	}
	call.done <- struct{}{}
	return nil
}

// fail ends the pipe and tells all who wait. Requests that were not given to the stream are certain not to have been
// executed.
func (p *pipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if status.Code(err) == codes.OK { // the end of the stream, as asked for by the server: all was answered
		err = status.Error(codes.Unavailable, "the server has closed the pipe")
	}
	if p.err == nil {
		p.err = err
	}
	p.sending = true
	for id, call := range p.calls {
		p.forget(id, call)
		call.err, call.sent = err, id <= p.sentID
		call.done <- struct{}{}
	}
	p.queue = nil
}

// appendPipeRequest appends a request to a message. size is that of its body.
func appendPipeRequest(b []byte, id uint64, r request, number latchkeyv1.Method, size int) ([]byte, error) {
	whole := 1 + protowire.SizeVarint(id) + 1 + protowire.SizeVarint(uint64(number)) + 1 + protowire.SizeBytes(size)
	if r.token != "" {
		whole += 1 + protowire.SizeBytes(len(r.token))
	}
	if r.leader {
		whole += 2
	}
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(whole))
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, id)
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(number))
	if r.token != "" {
		b = protowire.AppendTag(b, 4, protowire.BytesType)
		b = protowire.AppendString(b, r.token)
	}
	if r.leader {
		b = protowire.AppendTag(b, 5, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	return codec.AppendSized(b, r.body, size)
}

// pipeFields calls f with each field of a message: the value of a varint, or the bytes, which are not nil then. Others
// are unknown, and left out.
func pipeFields(b []byte, f func(number protowire.Number, v uint64, b []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v uint64
		var field []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			if field, n = protowire.ConsumeBytes(b); n >= 0 {
				field = field[:len(field):len(field)]
			}
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind != protowire.VarintType && field == nil {
			continue
		}
		if err := f(number, v, field); err != nil {
			return err
		}
	}
	return nil
}

// pipeCodec has messages sent and received as the bytes that they are.
type pipeCodec struct{}

func (pipeCodec) Name() string { return "proto" }

func (pipeCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("a pipe sends bytes, not %T", v)
	}
	return mem.BufferSlice{mem.NewBuffer(&b, mem.DefaultBufferPool())}, nil
}

func (pipeCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a pipe receives bytes, not %T", v)
	}
	*b = data.Materialize()
	return nil
}
