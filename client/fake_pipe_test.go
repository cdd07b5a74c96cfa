package client

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

// fakePipes serves the pipes of a member, by the generated code.
type fakePipes struct {
	latchkeyv1.UnimplementedPipeServer
	pb.UnimplementedAuthServer
	member *fakeMember

	mu        sync.Mutex // protects the rest
	max       uint32
	opened    int
	requests  map[latchkeyv1.Method]int
	cancelled []uint64
	tokens    []string      // of the requests
	closing   chan struct{} // closed to ask the clients to close
	issued    int           // tokens
	// answer, if set and not nil, is what a request gets instead of being executed.
	answer func(r *latchkeyv1.Request) *latchkeyv1.Response
}

func newFakePipes() *fakePipes {
	return &fakePipes{max: 1000, requests: make(map[latchkeyv1.Method]int), closing: make(chan struct{})}
}

func (f *fakePipes) register(m *fakeMember) {
	f.member = m
	latchkeyv1.RegisterPipeServer(m.server, f)
	pb.RegisterAuthServer(m.server, f)
}

func (f *fakePipes) set(change func(f *fakePipes)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// got returns how many requests of a method came, and how many there were to give up.
func (f *fakePipes) got(m latchkeyv1.Method) (requests, cancelled int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[m], len(f.cancelled)
}

func (f *fakePipes) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.issued++
	return &pb.AuthenticateResponse{Token: "token " + string(rune('0'+f.issued))}, nil
}

// fakePipe is one pipe.
type fakePipe struct {
	*fakePipes
	stream latchkeyv1.Pipe_CarryServer
	wg     sync.WaitGroup

	sending sync.Mutex
	calls   sync.Map // of context.CancelFunc by id
}

func (f *fakePipes) Carry(stream latchkeyv1.Pipe_CarryServer) error {
	f.mu.Lock()
	f.opened++
	limit, closing := f.max, f.closing
	f.mu.Unlock()
	p := &fakePipe{fakePipes: f, stream: stream}
	defer p.wg.Wait()
	p.send(&latchkeyv1.Responses{RequestsMax: limit})
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	p.wg.Go(func() {
		select {
		case <-closing:
			p.send(&latchkeyv1.Responses{Closing: true})
		case <-ctx.Done():
		}
	})
	for {
		f.member.wait() // reads nothing while the member hangs
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			cancel()
			return nil
		case err != nil:
			p.calls.Range(func(_, end any) bool { end.(context.CancelFunc)(); return true })
			return err
		}
		for _, r := range m.GetRequests() {
			p.begin(r)
		}
		f.mu.Lock()
		f.cancelled = append(f.cancelled, m.GetCancelled()...)
		f.mu.Unlock()
		for _, id := range m.GetCancelled() {
			if end, ok := p.calls.Load(id); ok {
				end.(context.CancelFunc)()
			}
		}
	}
}

func (p *fakePipe) send(m *latchkeyv1.Responses) {
	p.sending.Lock()
	defer p.sending.Unlock()
	_ = p.stream.Send(m)
}

// begin executes a request on a goroutine of its own. It is answered even if it is cancelled, as the client may cancel
// what has its answer under way.
func (p *fakePipe) begin(r *latchkeyv1.Request) {
	p.mu.Lock()
	p.requests[r.GetMethod()]++
	p.tokens = append(p.tokens, r.GetToken())
	answer := p.answer
	p.mu.Unlock()
	md := metadata.MD{}
	if r.GetRequireLeader() {
		md["hasleader"] = []string{"true"}
	}
	ctx, end := context.WithCancel(metadata.NewIncomingContext(context.Background(), md))
	p.calls.Store(r.GetId(), end)
	p.wg.Go(func() {
		defer end()
		if answer != nil {
			if a := answer(r); a != nil {
				a.Id = r.GetId()
				p.send(&latchkeyv1.Responses{Responses: []*latchkeyv1.Response{a}})
				return
			}
		}
		a := &latchkeyv1.Response{Id: r.GetId()}
		m, err := p.execute(ctx, r)
		if err != nil {
			s := status.Convert(err)
			a.Code, a.Message = uint32(s.Code()), s.Message()
		} else {
			a.Body, _ = proto.Marshal(m)
		}
		p.send(&latchkeyv1.Responses{Responses: []*latchkeyv1.Response{a}})
	})
}

// execute does what an RPC of the request's method does.
func (p *fakePipe) execute(ctx context.Context, r *latchkeyv1.Request) (proto.Message, error) {
	names := maps.Collect(func(yield func(latchkeyv1.Method, string) bool) {
		for name, method := range pipeMethods {
			if !yield(method, name) {
				return
			}
		}
	})
	before, after := p.member.enter(ctx, names[r.GetMethod()])
	if before != nil {
		return nil, before
	}
	m, err := p.do(ctx, r)
	if after != nil {
		return nil, after
	}
	p.member.sign(m)
	return m, err
}

func (p *fakePipe) do(ctx context.Context, r *latchkeyv1.Request) (proto.Message, error) {
	m := p.member
	switch r.GetMethod() {
	case latchkeyv1.Method_METHOD_RANGE:
		return fakeDo(ctx, r, new(pb.RangeRequest), m.Range)
	case latchkeyv1.Method_METHOD_PUT:
		return fakeDo(ctx, r, new(pb.PutRequest), m.Put)
	case latchkeyv1.Method_METHOD_DELETE_RANGE:
		return fakeDo(ctx, r, new(pb.DeleteRangeRequest), m.DeleteRange)
	case latchkeyv1.Method_METHOD_TXN:
		return fakeDo(ctx, r, new(pb.TxnRequest), m.Txn)
	case latchkeyv1.Method_METHOD_COMPACT:
		return fakeDo(ctx, r, new(pb.CompactionRequest), m.Compact)
	case latchkeyv1.Method_METHOD_LEASE_GRANT:
		return fakeDo(ctx, r, new(pb.LeaseGrantRequest), m.LeaseGrant)
	case latchkeyv1.Method_METHOD_LEASE_REVOKE:
		return fakeDo(ctx, r, new(pb.LeaseRevokeRequest), m.LeaseRevoke)
	}
	return fakeDo(ctx, r, new(pb.LeaseTimeToLiveRequest), m.LeaseTimeToLive)
}

func fakeDo[Q, A proto.Message](ctx context.Context, r *latchkeyv1.Request, q Q, do func(context.Context, Q) (A, error)) (proto.Message, error) {
	if err := proto.Unmarshal(r.GetBody(), q); err != nil {
		return nil, err
	}
	return do(ctx, q)
}
