package front

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// site is what the tests serve beside gRPC.
func site() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
			return
		}
		w.Header().Set("X-Was", fmt.Sprint(r.Method, " ", r.Host, " ", r.URL.RawQuery, " ", r.Header.Get("Content-Type"), " ", r.ContentLength))
		w.Header().Set("Transfer-Encoding", "chunked") // as the gateway's runtime does
		_, _ = w.Write(b)
	})
	mux.HandleFunc("/bare", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/none", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/twice", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		w.WriteHeader(http.StatusTeapot)
	})
	mux.HandleFunc("/lines", func(w http.ResponseWriter, r *http.Request) { // answers each line at once
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		for s := bufio.NewScanner(r.Body); s.Scan(); {
			_, _ = fmt.Fprintln(w, s.Text())
			_ = rc.Flush()
		}
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, err := io.ReadAll(r.Body)
		http.Error(w, fmt.Sprint(err != nil), http.StatusTeapot)
	})
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	return mux
}

// speaker returns a client of one protocol.
func speaker(t testing.TB, http2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: testTimeout}
}

func eachProtocol(t *testing.T, f func(t *testing.T, c *http.Client, url string, r *rig)) {
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Web = site() })
			f(t, speaker(t, http2), "http://"+r.addr, r)
		})
	}
}

func TestWebRequests(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *http.Client, url string, r *rig) {
		do := func(method, path, body string) (*http.Response, string) {
			q, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
			require.NoError(t, err)
			q.Header.Set("Content-Type", "text/x")
			a, err := c.Do(q)
			require.NoError(t, err)
			b, err := io.ReadAll(a.Body)
			require.NoError(t, err)
			require.NoError(t, a.Body.Close())
			return a, string(b)
		}
		for _, size := range []int{0, 5, 100_000, 5 << 20} {
			sent := strings.Repeat("x", size)
			a, got := do("POST", "/echo?q=1", sent)
			require.Equal(t, 200, a.StatusCode)
			require.True(t, sent == got, "%d bytes came back of %d", len(got), size)
			require.Equal(t, fmt.Sprintf("POST %s q=1 text/x %d", r.addr, size), a.Header.Get("X-Was"))
			require.NotEmpty(t, a.Header.Get("Date"))
		}
		a, got := do("HEAD", "/echo", "")
		require.Equal(t, 200, a.StatusCode)
		require.Empty(t, got)
		for path, code := range map[string]int{"/bare": 204, "/none": 200, "/twice": 202, "/nowhere": 404, "/lines": 200} {
			a, _ := do("POST", path, "")
			require.Equal(t, code, a.StatusCode, path)
		}
		// gRPC is served beside it.
		cc, _ := dial(t, r.addr)
		_, err := cc.EmptyCall(testContext(t), &pb.Empty{})
		require.NoError(t, err)
	})
}

// TestWebStream has a client that sends the next line when it has the answer to the last.
func TestWebStream(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *http.Client, url string, _ *rig) {
		body, lines := io.Pipe()
		q, err := http.NewRequestWithContext(testContext(t), "POST", url+"/lines", body)
		require.NoError(t, err)
		sent := make(chan struct{})
		go func() { _, _ = fmt.Fprintln(lines, "0"); close(sent) }()
		a, err := c.Do(q)
		require.NoError(t, err)
		<-sent
		got := bufio.NewReader(a.Body)
		for i := range 50 {
			line, err := got.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintln(i), line)
			_, err = fmt.Fprintln(lines, i+1)
			require.NoError(t, err)
		}
		require.NoError(t, lines.Close())
		require.NoError(t, a.Body.Close())
	})
}

func TestWebReadDeadline(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *http.Client, url string, _ *rig) {
		body, lines := io.Pipe()
		q, err := http.NewRequestWithContext(testContext(t), "POST", url+"/slow", body)
		require.NoError(t, err)
		a, err := c.Do(q)
		require.NoError(t, err)
		b, _ := io.ReadAll(a.Body)
		require.Equal(t, "true\n", string(b))
		require.NoError(t, lines.Close())
		require.NoError(t, a.Body.Close())
	})
}

// TestWebEnds has requests under way when the server leaves and stops.
func TestWebEnds(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *http.Client, url string, r *rig) {
		a, err := c.Get(url + "/wait")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
		defer cancel()
		r.front.Leave(ctx)
		require.Error(t, ctx.Err(), "a request is under way")
		r.front.Stop()
		_, _ = io.ReadAll(a.Body)
		require.NoError(t, a.Body.Close())
	})
}

// TestLeaveEndsIdleWeb has connections that nothing is under way on, of each kind.
func TestLeaveEndsIdleWeb(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *http.Client, url string, r *rig) {
		silent, err := net.Dial("tcp", r.addr)
		require.NoError(t, err)
		a, err := c.Get(url + "/none")
		require.NoError(t, err)
		require.NoError(t, a.Body.Close())
		ctx := testContext(t)
		r.front.Leave(ctx)
		require.NoError(t, ctx.Err())
		b, _ := io.ReadAll(silent)
		require.Empty(t, b)
		require.NoError(t, silent.Close())
	})
}

func TestFirstBytes(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Web, c.GreetTimeout = site(), 100*time.Millisecond })
	cases := map[string]struct {
		pieces []string
		answer string // how it begins
	}{
		"silence":           {nil, ""},
		"a part":            {[]string{"P"}, ""},
		"in pieces":         {[]string{"P", "OST /none HT", "TP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"}, "HTTP/1.1 200 OK"},
		"as HTTP2 begins":   {[]string{"PRI * HTTP/2.0\r\n\r\nXX", "\r\n\r\n"}, "HTTP/1.1 "},
		"headers that stop": {[]string{"GET /none HTTP/1.1\r\nHost: x\r\n"}, ""},
		"no HTTP":           {[]string{"\x16\x03\x01\x00\x00\x00\x00\x00\r\n\r\n"}, "HTTP/1.1 400 Bad Request"},
		"too many headers":  {[]string{"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2*maxHeaderBytes) + "\r\n\r\n"}, "HTTP/1.1 431"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", r.addr)
			require.NoError(t, err)
			defer func() { _ = nc.Close() }()
			for _, p := range c.pieces {
				_, err := io.WriteString(nc, p)
				require.NoError(t, err)
			}
			require.NoError(t, nc.SetReadDeadline(time.Now().Add(testTimeout)))
			b := make([]byte, max(1, len(c.answer)))
			n, err := io.ReadFull(nc, b)
			var timeout net.Error
			require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "it waits for ever")
			require.Equal(t, c.answer, string(b[:n]))
		})
	}
}

// TestLocalIsAsFromOutside makes the same calls in the process and over a connection.
func TestLocalIsAsFromOutside(t *testing.T) {
	ctx := testContext(t)
	var seen []string
	var mu sync.Mutex
	r := newRig(t, func(c *Config) {
		c.Intercept = func(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, info.FullMethod)
			return next(ctx, q)
		}
	})
	_, outside := dial(t, r.addr)
	unary, empty := pb.TestService_UnaryCall_FullMethodName, pb.TestService_EmptyCall_FullMethodName
	cases := map[string]struct {
		method  string
		request proto.Message
		answer  proto.Message
		md      []string
	}{
		"nothing":         {unary, &pb.SimpleRequest{}, &pb.SimpleResponse{}, nil},
		"large":           {unary, simple(1<<20, 1<<20), &pb.SimpleResponse{}, nil},
		"too large":       {unary, simple(requestMax+1, 1), &pb.SimpleResponse{}, nil},
		"status":          {unary, &pb.SimpleRequest{FillUsername: true, ResponseStatus: &pb.EchoStatus{Code: 5, Message: "none"}}, &pb.SimpleResponse{}, nil},
		"not implemented": {pb.TestService_CacheableUnaryCall_FullMethodName, simple(1, 1), &pb.SimpleResponse{}, nil},
		"unknown method":  {"/grpc.testing.TestService/Nothing", &pb.Empty{}, &pb.Empty{}, nil},
		"unknown service": {"/nothing.Service/Nothing", &pb.Empty{}, &pb.Empty{}, nil},
		"metadata":        {empty, &pb.Empty{}, &pb.Empty{}, []string{"header-a", "1", "header-a", "2", "header-b-bin", "\x00\xff\n", "trailer-a", "t"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			call := func(cc grpc.ClientConnInterface) outcome {
				var header, trailer metadata.MD
				a := proto.Clone(c.answer)
				err := cc.Invoke(metadata.AppendToOutgoingContext(ctx, c.md...), c.method, c.request, a, grpc.Header(&header), grpc.Trailer(&trailer))
				o := observe(err, header, trailer, a)
				delete(o.Trailer, "grpc-status-details-bin") // compared as Details
				if len(o.Header) == 0 {
					o.Header = metadata.MD{}
				}
				if len(o.Trailer) == 0 {
					o.Trailer = metadata.MD{}
				}
				return o
			}
			require.Equal(t, call(outside), call(r.front.Local()))
		})
	}
	require.Contains(t, seen, unary, "a Direct method's call is intercepted when it is local")
}

func TestLocalStreams(t *testing.T) {
	ctx := testContext(t)
	r := newRig(t)
	c := pb.NewTestServiceClient(r.front.Local())
	echo, err := c.FullDuplexCall(ctx)
	require.NoError(t, err)
	for _, size := range []int{0, 10, 3 << 20} {
		p := &pb.Payload{Body: bytes.Repeat([]byte{'x'}, size)}
		require.NoError(t, echo.Send(&pb.StreamingOutputCallRequest{Payload: p}))
		a, err := echo.Recv()
		require.NoError(t, err)
		require.Len(t, a.GetPayload().GetBody(), size)
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(echo.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: make([]byte, requestMax)}})))
	require.NoError(t, echo.CloseSend())
	_, err = echo.Recv()
	require.ErrorIs(t, err, io.EOF)

	gone, err := c.StreamingInputCall(ctx) // answered once, at the end
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, gone.Send(&pb.StreamingInputCallRequest{Payload: &pb.Payload{Body: make([]byte, 5)}}))
	}
	sum, err := gone.CloseAndRecv()
	require.NoError(t, err)
	require.EqualValues(t, 15, sum.GetAggregatedPayloadSize())

	cancelled, cancel := context.WithCancel(ctx)
	wait, err := c.FullDuplexCall(cancelled)
	require.NoError(t, err)
	require.NoError(t, wait.Send(&pb.StreamingOutputCallRequest{ResponseStatus: &pb.EchoStatus{}}))
	<-r.began
	cancel()
	_, err = wait.Recv()
	require.Equal(t, codes.Canceled, status.Code(err))
	<-r.ended

	refused, err := c.UnimplementedCall(ctx, &pb.Empty{})
	require.Nil(t, refused)
	require.Equal(t, codes.Unimplemented, status.Code(err))

	last, err := c.FullDuplexCall(ctx) // the method ends when its caller does, and no later: Stop waits for it
	require.NoError(t, err)
	require.NoError(t, last.CloseSend())
	_, err = last.Recv()
	require.ErrorIs(t, err, io.EOF)
	r.front.Stop()
	_, err = c.FullDuplexCall(ctx)
	require.Equal(t, codes.Unavailable, status.Code(err))
}
