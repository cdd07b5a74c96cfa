package front

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

const (
	// pipeSealBytes is how large a message of answers grows before the next one is begun.
	pipeSealBytes = 64 << 10
	// pipeBacklogBytes is what a pipe may have waiting to be sent before its client may send no more.
	pipeBacklogBytes = 1 << 20
	// pipeTasksMax is how many calls of one message a connection keeps room for.
	pipeTasksMax = 256
)

// pipe is a stream that carries calls of other methods (latchkey.v1.Pipe). The reader takes the requests out of its
// messages and serves each as one of its own method. The answers that become ready together make one message.
//
// The connection's mu protects it.
type pipe struct {
	st      *stream
	calls   map[uint64]*pipeCall // whose answer the client waits for
	answers []byte               // a message of answers in the making, with its prefix; empty for none
	listed  bool                 // in conn.pipes
}

// ServePipe has a registered method, which streams both ways, carry calls of other registered methods: methods says by
// which numbers. It panics if one is not registered.
func (s *Server) ServePipe(fullName string, methods map[int32]string) {
	m := s.methods[fullName]
	if m == nil || m.stream == nil {
		panic(fmt.Sprintf("front: no stream %q is registered", fullName))
	}
	m.piped = make(map[int32]*method, len(methods))
	for number, name := range methods {
		if s.methods[name] == nil || s.methods[name].unary == nil {
			panic(fmt.Sprintf("front: no unary method %q is registered", name))
		}
		m.piped[number] = s.methods[name]
	}
}

// openPipe begins a pipe: the first message tells the client that it is one. mu is held.
func (c *conn) openPipe(st *stream) {
	st.pipe = &pipe{st: st, calls: make(map[uint64]*pipeCall)}
	hello := protowire.AppendTag(make([]byte, prefixBytes, 16), 2, protowire.VarintType)
	hello = protowire.AppendVarint(hello, uint64(c.s.cfg.MaxStreams))
	st.pipe.answers = hello
	st.pipe.list()
	if c.leaving {
		st.pipe.leave()
	}
}

// list has the next flush send what is in answers. mu is held.
func (p *pipe) list() {
	if !p.listed {
		p.listed = true
		p.st.c.pipes = append(p.st.c.pipes, p)
	}
}

// seal makes what is in answers a message. mu is held.
func (p *pipe) seal() {
	if len(p.answers) == 0 {
		return
	}
	p.answers[0] = 0
	binary.BigEndian.PutUint32(p.answers[1:], uint32(len(p.answers)-prefixBytes))
	if !p.st.gone.Load() && p.st.out.status == nil {
		p.st.put(p.answers)
		p.st.head.method.counts.sent.Add(1)
	}
	if p.answers = p.answers[:0]; cap(p.answers) > 2*pipeSealBytes {
		p.answers = nil
	}
}

// sealPipes makes messages of what the connection's pipes have to say. mu is held.
func (c *conn) sealPipes() {
	for i, p := range c.pipes {
		c.pipes[i], p.listed = nil, false
		p.seal()
		p.finish()
	}
	c.pipes = c.pipes[:0]
}

// leave asks the client to close its side. mu is held.
func (p *pipe) leave() {
	b := protowire.AppendTag(p.begin(), 3, protowire.VarintType)
	p.answers = protowire.AppendVarint(b, 1)
	p.list()
}

// begin returns answers with room for the prefix.
func (p *pipe) begin() []byte {
	if len(p.answers) == 0 {
		return append(p.answers, make([]byte, prefixBytes)...)
	}
	return p.answers
}

// resume lets the client send again, if it was held up by what waited to be sent. mu is held.
func (p *pipe) resume() {
	st := p.st
	_, _, _, size := st.in.message()
	if size > st.c.s.cfg.MaxRequestBytes {
		return
	}
	if more := st.in.grant(size); more > 0 {
		st.c.out = appendWindowUpdate(st.c.out, st.id, more)
	}
}

// finish ends a pipe whose client has closed its side and has all answers. mu is held.
func (p *pipe) finish() {
	if p.st.in.ended && len(p.calls) == 0 && len(p.answers) == 0 && p.st.out.status == nil {
		p.st.end(statusOK, nil)
	}
}

// abandon gives up the calls of a pipe that is over. mu is held.
func (p *pipe) abandon() {
	for _, call := range p.calls {
		call.giveUp()
	}
	clear(p.calls)
}

// pipeTask is a call and its request, until it was begun.
type pipeTask struct {
	call *pipeCall
	body []byte
}

// pipeData serves what came on a pipe. b is only borrowed. mu is held, and let go of while calls are begun.
func (c *conn) pipeData(st *stream, b []byte) {
	p, in := st.pipe, &st.in
	if len(in.data) > 0 {
		st.keep(b)
		b = nil
	}
	for st.out.status == nil && !st.gone.Load() {
		next := inbound{data: b}
		if len(in.data) > 0 {
			next.data = in.data
		}
		body, format, ok, size := next.message()
		switch {
		case size > c.s.cfg.MaxRequestBytes:
			c.refuse(st, c.tooLarge(size))
			return
		case !ok && in.ended && len(next.data) > 0:
			c.refuse(st, status.New(codes.Internal, "grpc: the stream ended within a message"))
			return
		case !ok:
			st.keep(b)
			if c.held > heldMaxBytes {
				c.refuse(st, status.New(codes.ResourceExhausted, heldText))
				return
			}
			if len(st.out.pending) <= pipeBacklogBytes {
				p.resume()
			}
			p.finish()
			return
		case format != 0:
			c.refuse(st, status.New(codes.Unimplemented, "grpc: a pipe takes no compressed messages"))
			return
		}
		if len(in.data) > 0 {
			st.consume(prefixBytes + size)
		} else {
			b = b[prefixBytes+size:]
			in.consumed += int64(prefixBytes + size)
		}
		st.head.method.counts.received.Add(1)
		if err := c.carry(p, body); err != nil {
			c.refuse(st, status.Newf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err))
			return
		}
	}
}

// carry begins the calls of one message. mu is held, and let go of meanwhile: they may be answered at once.
func (c *conn) carry(p *pipe, message []byte) error {
	tasks := c.tasks[:0]
	err := eachOf(message, func(b []byte) error {
		task, err := p.admit(b)
		if task.call != nil {
			tasks = append(tasks, task)
		}
		return err
	}, p.cancel)
	c.directed = true
	c.mu.Unlock()
	for i := range tasks {
		task := &tasks[i]
		if d := task.call.method.direct; d == nil || !d(task.call, task.body, &c.calls) {
			task.call.launch(bytes.Clone(task.body))
		}
	}
	if clear(tasks); cap(tasks) <= pipeTasksMax {
		c.tasks = tasks
	}
	c.mu.Lock()
	return err
}

// eachOf calls the functions with what is in a message: the requests, and the ids of those that are given up.
func eachOf(message []byte, request func(b []byte) error, cancel func(id uint64)) error {
	return latchkeyv1.Fields(message, func(number protowire.Number, v uint64, b []byte) error {
		switch {
		case number == 1 && b != nil:
			return request(b)
		case number == 2 && b == nil:
			cancel(v)
		case number == 2: // packed
			for len(b) > 0 {
				id, n := protowire.ConsumeVarint(b)
				if n < 0 {
					return protowire.ParseError(n)
				}
				cancel(id)
				b = b[n:]
			}
		}
		return nil
	})
}

// decode takes a request apart. It returns the number of its method.
func (task *pipeTask) decode(b []byte) (number int32, err error) {
	call := task.call
	err = latchkeyv1.Fields(b, func(field protowire.Number, v uint64, b []byte) error {
		switch {
		case field == 1 && b == nil:
			call.id = v
		case field == 2 && b == nil:
			number = int32(v) // as of any enumeration
		case field == 3 && b != nil:
			task.body = b
		case field == 4 && b != nil:
			if !utf8.Valid(b) {
				return errors.New("the token is no text")
			}
			call.token = string(b)
		case field == 5 && b == nil:
			call.leader = v != 0
		}
		return nil
	})
	return number, err
}

// admit makes a call of a request, unless it is answered already: then there is no call in the task. mu is held.
func (p *pipe) admit(b []byte) (pipeTask, error) {
	call := &pipeCall{pipe: p}
	task := pipeTask{call: call}
	number, err := task.decode(b)
	if err != nil {
		return pipeTask{}, err
	}
	if p.calls[call.id] != nil {
		return pipeTask{}, fmt.Errorf("request %d is under way already", call.id)
	}
	call.method = p.st.head.method.piped[number]
	switch {
	case call.method == nil:
		p.refuse(call, codes.Unimplemented, fmt.Sprintf("method %d is not served on a pipe", number))
		return pipeTask{}, nil
	case p.st.c.carried >= p.st.c.s.cfg.MaxStreams:
		p.refuse(call, codes.Unavailable, "too many requests of the connection are under way")
		return pipeTask{}, nil
	}
	p.calls[call.id] = call
	p.st.c.carried++
	call.begun()
	return task, nil
}

// cancel gives up a call for its client. mu is held.
func (p *pipe) cancel(id uint64) {
	if call := p.calls[id]; call != nil {
		delete(p.calls, id)
		call.giveUp()
	}
}
