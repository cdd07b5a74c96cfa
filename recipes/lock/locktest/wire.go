package locktest

import (
	"context"
	"net"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/client"
)

// call is one unary RPC on its way.
type call struct {
	n       int // counts from 1
	req     any
	deliver func() (proto.Message, error) // sends it once more, at any later time
}

// isCreate says that the call creates a lock's key.
func (c *call) isCreate() bool {
	return c.has(func(op *pb.RequestOp) bool { return op.GetRequestPut() != nil })
}

// isDelete says that the call deletes a lock's key.
func (c *call) isDelete() bool {
	return c.has(func(op *pb.RequestOp) bool { return op.GetRequestDeleteRange() != nil })
}

// isGet says that the call reads one key.
func (c *call) isGet() bool {
	r, ok := c.req.(*pb.RangeRequest)
	return ok && len(r.RangeEnd) == 0
}

// isPage says that the call reads a range at a revision.
func (c *call) isPage() bool {
	r, ok := c.req.(*pb.RangeRequest)
	return ok && len(r.RangeEnd) > 0 && r.Revision > 0
}

func (c *call) has(what func(*pb.RequestOp) bool) bool {
	txn, ok := c.req.(*pb.TxnRequest)
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

// fate is what becomes of a call.
type fate uint8

const (
	arrives       fate = iota // as if nothing were in between
	answerDropped             // it is executed, and the client told that the connection broke
	requestLost               // it is not executed, which looks the same
)

// wire is a network that loses what a case wants it to lose.
type wire struct {
	mu     sync.Mutex
	n      int                                     // protected by mu; calls so far
	before func(ctx context.Context, c *call) fate // may be nil; called for one call at a time
	after  func(c *call, err error)                // may be nil
}

// config returns a configuration for a client on this wire.
func (w *wire) config() client.Config {
	return client.Config{DialOptions: []grpc.DialOption{grpc.WithUnaryInterceptor(w.intercept)}}
}

func (w *wire) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	c := &call{req: req}
	c.deliver = func() (proto.Message, error) {
		again := proto.Clone(req.(proto.Message))
		out := reply.(proto.Message).ProtoReflect().New().Interface()
		return out, invoke(context.WithoutCancel(ctx), method, again, out, cc)
	}
	w.mu.Lock()
	w.n++
	c.n = w.n
	what := arrives
	if w.before != nil {
		what = w.before(ctx, c)
	}
	w.mu.Unlock()

	var err error
	if what != requestLost {
		err = invoke(ctx, method, req, reply, cc, opts...)
	}
	if w.after != nil {
		w.after(c, err)
	}
	if what == arrives || what == answerDropped && err != nil {
		return err
	}
	// The client learns from the peer's address that the request has left.
	for _, opt := range opts {
		if p, ok := opt.(grpc.PeerCallOption); ok {
			p.PeerAddr.Addr = &net.IPAddr{}
		}
	}
	return status.Error(codes.Unavailable, "locktest: the connection broke")
}

// calls returns how many calls there were.
func (w *wire) calls() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// set changes what becomes of calls.
func (w *wire) set(before func(context.Context, *call) fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = before
}
