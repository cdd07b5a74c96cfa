package front

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// pipeCall is a call on a pipe.
type pipeCall struct {
	pipe   *pipe
	id     uint64
	method *method
	token  string
	leader bool
	gone   atomic.Bool

	// The connection's mu protects the rest.
	cancel context.CancelCauseFunc // of its handler; nil while it has none
	at     time.Time               // when it began, if Config.Observe is set
}

var _ Call = (*pipeCall)(nil)

func (pc *pipeCall) Gone() bool { return pc.gone.Load() }

func (pc *pipeCall) Context() context.Context { return pc.pipe.st.c.ctx }

// Metadata that a request has in fields of its own.
const (
	tokenKey     = "token"
	hasLeaderKey = "hasleader"
	hasLeader    = "true"
)

func (pc *pipeCall) Header(key string) string {
	switch {
	case key == tokenKey && pc.token != "":
		return pc.token
	case key != hasLeaderKey:
		return pc.pipe.st.head.get(key)
	case pc.leader:
		return hasLeader
	}
	return ""
}

// metadata returns what a handler of the call sees.
func (pc *pipeCall) metadata() metadata.MD {
	md := pc.pipe.st.head.metadata()
	delete(md, hasLeaderKey)
	if pc.leader {
		md[hasLeaderKey] = []string{hasLeader}
	}
	if pc.token != "" {
		md[tokenKey] = []string{pc.token}
	}
	return md
}

func (pc *pipeCall) Go(f func(b *Batch)) { pc.pipe.st.c.spawn(f) }

// launch serves the call on a goroutine of its own.
func (pc *pipeCall) launch(body []byte) {
	c := pc.pipe.st.c
	ctx, cancel := context.WithCancelCause(metadata.NewIncomingContext(c.ctx, pc.metadata()))
	// Headers and trailers that a method sets have no place on a pipe.
	ctx = grpc.NewContextWithServerTransportStream(ctx, &localHeader{path: "/" + pc.method.name[0] + "/" + pc.method.name[1]})
	c.mu.Lock()
	pc.cancel = cancel
	if pc.gone.Load() {
		cancel(errReset)
	}
	c.mu.Unlock()
	pc.Go(func(b *Batch) {
		answer, err := c.s.callUnary(ctx, pc.method, func(m any) error { return c.s.decode(body, m) })
		m, _ := answer.(proto.Message)
		pc.Reply(m, err, b)
		cancel(context.Canceled)
	})
}

// giveUp notes that nobody waits for the answer. mu is held.
func (pc *pipeCall) giveUp() {
	pc.gone.Store(true)
	pc.ended(codes.Canceled)
	if pc.cancel != nil {
		pc.cancel(errReset)
	}
}

func (pc *pipeCall) Reply(m proto.Message, err error, b *Batch) {
	p, c := pc.pipe, pc.pipe.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.carried--
	if pc.gone.Load() || c.closed {
		return
	}
	delete(p.calls, pc.id)
	b.add(c)
	pc.ended(p.answer(pc, m, err))
	p.list()
	if len(p.answers) >= pipeSealBytes {
		p.seal()
	}
}

// answer adds a call's answer to those that wait. mu is held.
func (p *pipe) answer(pc *pipeCall, m proto.Message, err error) codes.Code {
	if err != nil {
		return p.answerStatus(pc, statusOf(err), false)
	}
	e := p.st.c.s.cfg.Encoder
	size := e.Size(m)
	if p.st.c.unsent+size > unsentMaxBytes {
		return p.answerStatus(pc, status.New(codes.ResourceExhausted, "too many answers wait for the client to read them"), false)
	}
	const id, body = 1, 2
	b := p.begin()
	whole := protowire.SizeTag(id) + protowire.SizeVarint(pc.id) + protowire.SizeTag(body) + protowire.SizeBytes(size)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(whole))
	b = protowire.AppendTag(b, id, protowire.VarintType)
	b = protowire.AppendVarint(b, pc.id)
	b = protowire.AppendTag(b, body, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b, err = e.AppendSized(b, m, size)
	if err != nil {
		return p.answerStatus(pc, status.Newf(codes.Internal, "grpc: error while marshaling: %v", err), false)
	}
	p.answers = b
	return codes.OK
}

// answerStatus adds an answer that is none of success. mu is held.
func (p *pipe) answerStatus(pc *pipeCall, s *status.Status, unserved bool) codes.Code {
	var b []byte
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, pc.id)
	b = protowire.AppendTag(b, 3, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(s.Code()))
	b = protowire.AppendTag(b, 4, protowire.BytesType)
	b = protowire.AppendString(b, s.Message())
	if unserved {
		b = protowire.AppendTag(b, 5, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	p.answers = protowire.AppendTag(p.begin(), 1, protowire.BytesType)
	p.answers = protowire.AppendBytes(p.answers, b)
	return s.Code()
}

// refuse answers a request that is not served. mu is held.
func (p *pipe) refuse(pc *pipeCall, code codes.Code, why string) {
	p.answerStatus(pc, status.New(code, why), true)
	p.list()
}

// begun counts the begin of the call. mu is held, as for ended.
func (pc *pipeCall) begun() {
	pc.method.counts.started.Add(1)
	if pc.pipe.st.c.s.cfg.Observe != nil {
		pc.at = time.Now()
	}
}

func (pc *pipeCall) ended(code codes.Code) {
	m := pc.method
	m.counts.handledWith(code)
	if f := pc.pipe.st.c.s.cfg.Observe; f != nil {
		f(m.kind, m.name[0], m.name[1], time.Since(pc.at))
	}
}
