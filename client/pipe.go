package client

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	// pipeDirectBytes is what the server may not be known to have read for a caller to send by itself. gRPC keeps 64 KiB
	// that were not written yet without blocking the sender, so that a caller's context always counts.
	pipeDirectBytes = 32 << 10
	// pipeDirectMessages is how many messages a caller sends before it looks for its own answer.
	pipeDirectMessages = 4
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
	spare  sync.Pool // of *pipeCall: of each pipe its own, as channels stay in the bubble of a test that made them

	mu      sync.Mutex // protects the rest
	max     int        // calls that the server takes; 0 until it has said so
	calls   map[uint64]*pipeCall
	lastID  uint64      // of a call
	sentID  uint64      // of the last call whose request was given to the stream
	queue   []pipeBatch // messages to send; the last one may grow
	queued  int         // bytes of queue
	total   uint64      // bytes that ever were in queue
	read    uint64      // of those, what the server has read, as its answers show
	sending bool        // somebody sends, or nobody ever will again
	closing bool        // the server wants no more
	err     error       // why it ended
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
	end   uint64 // pipe.total with its request

	// Set before done.
	body     []byte // of the answer
	sent     bool
	declined bool // the server has no such method on pipes
	err      error
}

// newPipeCall makes one that is used again and again, which spares each request a channel and a timer.
func newPipeCall() *pipeCall {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &pipeCall{done: make(chan struct{}, 1), timer: timer}
}

// do sends a request and waits for its answer. taken is false if nothing was done, because the pipe does not take it.
// When ctx ends, the request may have been executed.
func (p *pipe) do(ctx context.Context, r request, number latchkeyv1.Method, resp proto.Message) (taken, sent bool, err error) {
	if ctx.Err() != nil {
		return true, false, status.FromContextError(ctx.Err()).Err()
	}
	size := codec.Size(r.body)
	if size > pipeRequestBytesMax {
		return false, false, nil
	}
	call, _ := p.spare.Get().(*pipeCall)
	if call == nil {
		call = newPipeCall()
	}
	id, direct, err := p.enqueue(call, r, number, size)
	if id == 0 {
		return err != nil, false, err
	}
	if direct {
		p.send(true)
	}
	if err := p.await(ctx, call, r.limit); err != nil {
		if p.withdraw(id) {
			return true, true, status.FromContextError(err).Err() // call is not used again
		}
		<-call.done
	}
	taken, sent, err = !call.declined, call.sent, call.err
	if err == nil {
		err = codec.Unmarshal(call.body, resp)
		if err != nil {
			err = status.Errorf(codes.Internal, "decode the answer: %v", err)
		}
	}
	*call = pipeCall{done: call.done, timer: call.timer}
	p.spare.Put(call)
	return taken, sent, err
}

// await waits for the answer, and returns why it waits no more if there is none.
func (p *pipe) await(ctx context.Context, call *pipeCall, limit time.Duration) error {
	defer call.timer.Stop()
	for {
		wait := leaderSilence
		if limit > 0 {
			wait = min(limit, leaderSilence)
		}
		call.timer.Reset(wait)
		select {
		case <-call.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-call.timer.C:
		}
		if limit > 0 {
			if limit -= wait; limit == 0 {
				return context.DeadlineExceeded
			}
		}
		p.core.guide.doubt(p.ep)
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
	added := len(batch.message) - before
	if !p.sending {
		direct = len(p.calls) < pipeDirectCalls && p.unread()+added <= pipeDirectBytes
		if !direct && !p.sendLater() { // the client is closing: what it still has to say is an RPC of its own
			batch.message = batch.message[:before]
			return 0, false, nil
		}
		p.sending = true
	}
	p.lastID++
	batch.lastID = p.lastID
	p.count(added)
	call.end = p.total
	p.calls[p.lastID] = call
	return p.lastID, direct, nil
}

// count notes that so many bytes were added to the queue. mu is held.
func (p *pipe) count(bytes int) {
	p.queued += bytes
	p.total += uint64(bytes)
}

// unread returns how many bytes the server is not known to have read. mu is held.
func (p *pipe) unread() int { return int(p.total - p.read) }

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

// sendLater has a goroutine send what is queued, unless the client is closing: it reports that. mu is held, and sending
// is to be set.
func (p *pipe) sendLater() bool { return p.core.start(func() { p.send(false) }) }

// send sends what is queued. Who calls it has set sending. It does not block if direct is set.
func (p *pipe) send(direct bool) {
	for sent := 0; ; sent++ {
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
		if direct && (sent >= pipeDirectMessages || p.unread() > pipeDirectBytes) && p.sendLater() {
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
	delete(p.calls, id)
	if p.err == nil && !p.closing {
		batch := p.batch()
		before := len(batch.message)
		batch.message = protowire.AppendTag(batch.message, 2, protowire.VarintType)
		batch.message = protowire.AppendVarint(batch.message, id)
		p.count(len(batch.message) - before)
		p.sending = p.sending || p.sendLater()
	}
	return true
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
	first := p.max == 0
	if first {
		p.max = 1 // the server says more
	}
	err := latchkeyv1.Fields(message, func(number protowire.Number, v uint64, b []byte) error {
		switch {
		case number == 1 && b != nil:
			return p.answered(b)
		case number == 2 && b == nil:
			p.max = int(v)
		case number == 3 && b == nil && v != 0 && !p.closing:
			p.closing = true
			p.sending = p.sending || p.sendLater()
		}
		return nil
	})
	switch {
	case p.closing:
		p.ep.pipe.CompareAndSwap(p, nil)
	case first && err == nil:
		p.ep.pipe.Store(p)
	}
	return err
}

// answered takes one answer. mu is held.
func (p *pipe) answered(b []byte) error {
	var id, code uint64
	var body, text []byte
	unserved := false
	err := latchkeyv1.Fields(b, func(number protowire.Number, v uint64, b []byte) error {
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
	delete(p.calls, id)
	p.read = max(p.read, call.end)
	call.body, call.sent = body, !unserved
	call.declined = unserved && codes.Code(code) == codes.Unimplemented
	if code != 0 {
		call.err = status.Error(codes.Code(code), string(text))
	}
	call.done <- struct{}{}
	return nil
}

// fail ends the pipe and tells all who wait. Requests that were not given to the stream are certain not to have been
// executed. The fate of the others is unknown whatever ended the stream: what that says is not said of them.
func (p *pipe) fail(err error) {
	text := status.Convert(err).Message()
	if errors.Is(err, io.EOF) {
		text = "the server has closed it"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = status.Error(codes.Unavailable, "the stream of requests has ended: "+text)
	p.sending = true
	for id, call := range p.calls {
		delete(p.calls, id)
		call.err, call.sent = p.err, id <= p.sentID
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
