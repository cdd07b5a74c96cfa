package queuetest

import (
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/client"
)

// wire is a network that loses transactions and their answers, and delivers some
// that were given up much later, once more: as a seed decides.
type wire struct {
	mu    sync.Mutex // protects what follows
	r     *rand.Rand
	share float64  // of the transactions that something happens to
	late  []func() // deliveries that are still to come
	lost  int      // requests and answers
	txns  int
}

func newWire(seed uint64, share float64) *wire {
	return &wire{r: rand.New(rand.NewPCG(seed, 17)), share: share}
}

// config returns a configuration for a client on this wire.
func (w *wire) config() client.Config {
	return client.Config{DialOptions: []grpc.DialOption{grpc.WithUnaryInterceptor(w.intercept)}}
}

func (w *wire) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if !strings.HasSuffix(method, "/Txn") {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	w.mu.Lock()
	w.txns++
	roll := w.r.Float64() / w.share
	var late func()
	if n := len(w.late); n > 0 && w.r.IntN(4) == 0 {
		late, w.late = w.late[0], w.late[1:]
	}
	if roll < 1 {
		w.lost++
	}
	if roll < 0.3 { // it is on its way for long, and arrives after its sender has gone on
		again := proto.Clone(req.(proto.Message))
		out := reply.(proto.Message).ProtoReflect().New().Interface()
		w.late = append(w.late, func() { _ = invoke(context.WithoutCancel(ctx), method, again, out, cc) })
	}
	w.mu.Unlock()
	if late != nil {
		late()
	}
	if roll >= 0.6 {
		if err := invoke(ctx, method, req, reply, cc, opts...); err != nil || roll >= 1 {
			return err
		}
	}
	// The client learns from the peer's address that the request has left.
	for _, opt := range opts {
		if p, ok := opt.(grpc.PeerCallOption); ok {
			p.PeerAddr.Addr = &net.IPAddr{}
		}
	}
	return status.Error(codes.Unavailable, "queuetest: the connection broke")
}

// calm lets everything arrive from now on, and returns how much was lost, of how
// many transactions.
func (w *wire) calm() (lost, txns int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.share = 1e-9
	return w.lost, w.txns
}
