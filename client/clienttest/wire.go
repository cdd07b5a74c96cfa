package clienttest

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
)

// Call is one unary RPC on its way over a Wire.
type Call struct {
	N       int // counts from 1
	Req     any
	Deliver func() (proto.Message, error) // sends it once more, at any later time
}

// Puts says that the call is a conditional transaction that writes a key, as
// recipes create theirs.
func (c *Call) Puts() bool {
	return c.has(func(op *pb.RequestOp) bool { return op.GetRequestPut() != nil })
}

// Deletes says that the call is a conditional transaction that deletes a key.
func (c *Call) Deletes() bool {
	return c.has(func(op *pb.RequestOp) bool { return op.GetRequestDeleteRange() != nil })
}

func (c *Call) has(what func(*pb.RequestOp) bool) bool {
	txn, ok := c.Req.(*pb.TxnRequest)
	if !ok || len(txn.Compare) == 0 {
		return false
	}
	for _, op := range txn.Success {
		if what(op) {
			return true
		}
	}
	return false
}

// Fate is what becomes of a call.
type Fate uint8

// The fates of calls.
const (
	Arrives       Fate = iota // as if nothing were in between
	AnswerDropped             // it is executed, and the client told that the connection broke
	RequestLost               // it is not executed, which looks the same
)

// Wire is a network that loses what a test wants it to lose.
type Wire struct {
	// After, if set, is called when a call has been executed, or was lost. Set it
	// before the first call.
	After func(c *Call, err error)

	mu     sync.Mutex
	n      int                                     // protected by mu; calls so far
	before func(ctx context.Context, c *Call) Fate // protected by mu
}

// Config returns a configuration for a client on this wire.
func (w *Wire) Config() client.Config {
	return client.Config{DialOptions: []grpc.DialOption{grpc.WithUnaryInterceptor(w.intercept)}}
}

// Before sets what becomes of calls from now on. It is called for one call at a
// time.
func (w *Wire) Before(f func(ctx context.Context, c *Call) Fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = f
}

// Calls returns how many calls there were.
func (w *Wire) Calls() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

func (w *Wire) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	c := &Call{Req: req}
	c.Deliver = func() (proto.Message, error) {
		again := proto.Clone(req.(proto.Message))
		out := reply.(proto.Message).ProtoReflect().New().Interface()
		return out, invoke(context.WithoutCancel(ctx), method, again, out, cc)
	}
	w.mu.Lock()
	w.n++
	c.N = w.n
	what := Arrives
	if w.before != nil {
		what = w.before(ctx, c)
	}
	w.mu.Unlock()

	var err error
	if what != RequestLost {
		err = invoke(ctx, method, req, reply, cc, opts...)
	}
	if w.After != nil {
		w.After(c, err)
	}
	if what == Arrives || what == AnswerDropped && err != nil {
		return err
	}
	// The client learns from the peer's address that the request has left.
	for _, opt := range opts {
		if p, ok := opt.(grpc.PeerCallOption); ok {
			p.PeerAddr.Addr = &net.IPAddr{}
		}
	}
	return status.Error(codes.Unavailable, "clienttest: the connection broke")
}
