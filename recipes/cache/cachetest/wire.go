package cachetest

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
	req, reply any
	deliver    func() (proto.Message, error) // sends it once more, at any later time
}

// page returns the request if it reads a range, or nil.
func (c *call) page() *pb.RangeRequest {
	if r, ok := c.req.(*pb.RangeRequest); ok && len(r.RangeEnd) > 0 {
		return r
	}
	return nil
}

// isWrite says that the call changes a key.
func (c *call) isWrite() bool {
	_, ok := c.req.(*pb.TxnRequest)
	return ok
}

// fate is what becomes of a call.
type fate uint8

const (
	arrives       fate = iota // as if nothing were in between
	answerDropped             // it is executed, and the client told that the connection broke
	requestLost               // it is not executed, which looks the same
)

// tap is a network in which a case sees, changes and loses what it likes. Its
// functions are called for one call at a time.
type tap struct {
	mu     sync.Mutex
	before func(c *call)            // may be nil
	lose   func(c *call) fate       // may be nil
	after  func(c *call, err error) // may be nil
}

// config returns a configuration for a client on this network.
func (w *tap) config() client.Config {
	return client.Config{DialOptions: []grpc.DialOption{grpc.WithUnaryInterceptor(w.intercept)}}
}

func (w *tap) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	c := &call{req: req, reply: reply}
	c.deliver = func() (proto.Message, error) {
		again := proto.Clone(req.(proto.Message))
		out := reply.(proto.Message).ProtoReflect().New().Interface()
		return out, invoke(context.WithoutCancel(ctx), method, again, out, cc)
	}
	what := w.decide(c)
	var err error
	if what != requestLost {
		err = invoke(ctx, method, req, reply, cc, opts...)
	}
	if w.after != nil {
		w.mu.Lock()
		w.after(c, err)
		w.mu.Unlock()
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
	return status.Error(codes.Unavailable, "cachetest: the connection broke")
}

func (w *tap) decide(c *call) fate {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.before != nil {
		w.before(c)
	}
	if w.lose == nil {
		return arrives
	}
	return w.lose(c)
}
