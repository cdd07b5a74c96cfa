package front

import (
	"context"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	pb "google.golang.org/grpc/interop/grpc_testing"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

// burst is a client that costs next to nothing: it writes requests that were encoded before, and looks for the ends of
// streams in what comes back.
type burst struct {
	nc     net.Conn
	out    []byte
	size   int // of one request in out
	stream uint32
	in     []byte
	n      int
}

func newBurst(t testing.TB, addr string, calls int) *burst {
	c := dialRaw(t, addr, http2.Setting{ID: settingInitialWindow, Val: maxWindow})
	c.must(c.WriteWindowUpdate(0, maxWindow-defaultWindowBytes))
	c.served(1) // fills the header tables
	b := &burst{nc: c.Conn, stream: 3, in: make([]byte, 1<<20)}
	block := c.encode(unaryFields...)
	body := message(&pb.SimpleRequest{})
	for range calls {
		b.out = append(appendFrameHeader(b.out, len(block), frameHeaders, flagEndHeaders, 0), block...)
		b.out = append(appendFrameHeader(b.out, len(body), frameData, flagEndStream, 0), body...)
	}
	b.size = len(b.out) / calls
	require.NoError(t, b.nc.SetDeadline(time.Time{}))
	return b
}

// round makes all calls at once and waits for the answers.
func (b *burst) round() error {
	calls := 0
	for at := 0; at < len(b.out); at += b.size {
		second := at + b.size - frameHeaderBytes - prefixBytes
		binary.BigEndian.PutUint32(b.out[at+5:], b.stream)
		binary.BigEndian.PutUint32(b.out[second+5:], b.stream)
		b.stream += 2
		calls++
	}
	if _, err := b.nc.Write(b.out); err != nil {
		return err
	}
	for calls > 0 {
		k, err := b.nc.Read(b.in[b.n:])
		if err != nil {
			return err
		}
		b.n += k
		at := 0
		for b.n-at >= frameHeaderBytes {
			h := parseFrameHeader(b.in[at:])
			if b.n-at < frameHeaderBytes+h.length {
				break
			}
			at += frameHeaderBytes + h.length
			if h.kind == frameHeaders && h.flags&flagEndStream != 0 {
				calls--
			}
		}
		b.n = copy(b.in, b.in[at:b.n])
	}
	return nil
}

// newQuiet serves a call that does nothing, with a front.
func newQuiet(t testing.TB) string {
	s := New(Config{Codec: encoding.GetCodecV2(grpcproto.Name)})
	pb.RegisterTestServiceServer(s, pb.UnimplementedTestServiceServer{})
	latchkeyv1.RegisterPipeServer(s, latchkeyv1.UnimplementedPipeServer{})
	s.ServePipe(latchkeyv1.Pipe_Carry_FullMethodName, map[int32]string{pipedUnary: pb.TestService_UnaryCall_FullMethodName})
	response := &pb.SimpleResponse{}
	s.Direct(pb.TestService_UnaryCall_FullMethodName, func(c Call, _ []byte, b *Batch) bool {
		c.Reply(response, nil, b)
		return true
	})
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	return l.Addr().String()
}

// BenchmarkUnary compares what a call costs the server, with a client that costs little.
func BenchmarkUnary(b *testing.B) {
	servers := map[string]func(b *testing.B) string{
		"front": func(b *testing.B) string { return newQuiet(b) },
		"grpc": func(b *testing.B) string {
			s := grpc.NewServer()
			pb.RegisterTestServiceServer(s, quiet{})
			l := listen(b)
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			b.Cleanup(func() { s.Stop(); <-served })
			return l.Addr().String()
		},
	}
	for _, calls := range []int{1, 64} {
		for _, name := range []string{"front", "grpc"} {
			b.Run(name+map[int]string{1: "/alone", 64: "/64 at once"}[calls], func(b *testing.B) {
				client := newBurst(b, servers[name](b), calls)
				b.ReportAllocs()
				for i := 0; i < b.N; i += calls {
					require.NoError(b, client.round())
				}
			})
		}
	}
}

type quiet struct {
	pb.UnimplementedTestServiceServer
}

func (quiet) UnaryCall(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{}, nil
}
