package front

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/peer"

	"github.com/latchkey-go/latchkey/internal/certtest"
	"github.com/latchkey-go/latchkey/server/internal/gate"
)

const overTLSName = "OverTLS" // in the name of a test

// TestOverTLS runs the other tests that use a network over TLS: their rigs and clients look at their name.
func TestOverTLS(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"TestUnaryIsAsWithGRPC":          TestUnaryIsAsWithGRPC,
		"TestStreamsAreAsWithGRPC":       TestStreamsAreAsWithGRPC,
		"TestManyCallsOfOneConnection":   TestManyCallsOfOneConnection,
		"TestCancelAndDeadline":          TestCancelAndDeadline,
		"TestLeaveAnswersWhatIsUnderWay": TestLeaveAnswersWhatIsUnderWay,
		"TestLeaveIsNotSeen":             TestLeaveIsNotSeen,
		"TestStopEndsCalls":              TestStopEndsCalls,
		"TestWindowsInTheMiddle":         TestWindowsInTheMiddle,
		"TestWhatAConnectionMayHold":     TestWhatAConnectionMayHold,
		"TestConnectionErrors":           TestConnectionErrors,
		"TestStreamErrors":               TestStreamErrors,
		"TestWhatIsAllowed":              TestWhatIsAllowed,
		"TestPipeIsAsUnary":              TestPipeIsAsUnary,
		"TestPipeMessages":               TestPipeMessages,
		"TestPipeCancel":                 TestPipeCancel,
		"TestPipeEnds":                   TestPipeEnds,
		"TestPipeLeave":                  TestPipeLeave,
	} {
		t.Run(name, test)
	}
}

// BenchmarkOverTLS is the other benchmark over TLS.
func BenchmarkOverTLS(b *testing.B) { b.Run("Unary", BenchmarkUnary) }

func overTLS(t testing.TB) bool { return strings.Contains(t.Name(), overTLSName) }

func serverTLS(t testing.TB) *tls.Config {
	pair := certtest.New(t).Issue("server")
	return &tls.Config{Certificates: []tls.Certificate{pair.Certificate}, NextProtos: []string{"h2"}}
}

func clientTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
}

// TestOverTLSWritesAreTried: who answers never waits for the client's socket, and what it did not take arrives in order
// once it reads; nothing is lost of many megabytes.
func TestOverTLSWritesAreTried(t *testing.T) {
	r := newRig(t)
	c := dialRaw(t, r.addr, http2.Setting{ID: settingInitialWindow, Val: maxWindow})
	c.must(c.WriteWindowUpdate(0, maxWindow-defaultWindowBytes))
	const size, calls = 5 << 20, 8
	for i := range uint32(calls) {
		c.headers(2*i+1, false, unaryFields...)
		c.must(c.WriteData(2*i+1, true, message(simple(0, size))))
	}
	for i := range uint32(calls) {
		got := c.answer(2*i + 1)
		require.Equal(t, "0", got["grpc-status"])
	}
	poll(t, func() bool { // that the drain has ended, nothing else tells
		r.front.mu.Lock()
		defer r.front.mu.Unlock()
		for c := range r.front.conns {
			c.mu.Lock()
			defer c.mu.Unlock()
			return !c.writing && c.settled()
		}
		return false
	})
	c.request(101, true)
	require.Equal(t, "0", c.answer(101)["grpc-status"])
}

// TestOverTLSStuckClient: a client that reads nothing, with a backlog before it, keeps neither its own protocol error
// nor Stop waiting for long.
func TestOverTLSStuckClient(t *testing.T) {
	r := newRig(t)
	c := dialRaw(t, r.addr, http2.Setting{ID: settingInitialWindow, Val: maxWindow})
	c.must(c.WriteWindowUpdate(0, maxWindow-defaultWindowBytes))
	for i := range uint32(4) {
		c.headers(2*i+1, false, unaryFields...)
		c.must(c.WriteData(2*i+1, true, message(simple(0, 5<<20))))
	}
	poll(t, func() bool {
		r.front.mu.Lock()
		defer r.front.mu.Unlock()
		for c := range r.front.conns {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.writing
		}
		return false
	})
	began := time.Now()
	r.front.Stop()
	require.Less(t, time.Since(began), 5*time.Second)
}

// TestOverTLSKnowsTheClient: a call's context has the client's certificate.
func TestOverTLSKnowsTheClient(t *testing.T) {
	a := certtest.New(t)
	server, mine := a.Issue("server"), a.Issue("alice")
	conf := &tls.Config{
		Certificates: []tls.Certificate{server.Certificate}, NextProtos: []string{"h2"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.Pool(),
	}
	r := newIdleRig(Config{Codec: encoding.GetCodecV2(grpcproto.Name)})
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := gate.New(gate.Bounds{}, nil).Listen(plain, gate.Secure, conf)
	go func() { r.served <- r.front.Serve(l) }()
	t.Cleanup(func() { close(r.stuck); r.front.Stop(); <-r.served })

	nc, err := tls.Dial("tcp", plain.Addr().String(), &tls.Config{
		RootCAs: a.Pool(), Certificates: []tls.Certificate{mine.Certificate}, NextProtos: []string{"h2"}, ServerName: "localhost",
	})
	require.NoError(t, err)
	c := overConn(t, nc)
	_, err = io.WriteString(c.Conn, preface)
	require.NoError(t, err)
	require.NoError(t, c.WriteSettings())
	f := append([]string(nil), unaryFields...)
	f[5] = "/grpc.testing.TestService/HalfDuplexCall"
	c.headers(1, false, f...)
	p, ok := peer.FromContext(<-r.began)
	require.True(t, ok)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	require.True(t, ok)
	require.Equal(t, "alice", info.State.VerifiedChains[0][0].Subject.CommonName)
	require.Equal(t, "h2", info.State.NegotiatedProtocol)
}

// poll waits for something that nothing signals.
func poll(t testing.TB, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	over := time.After(testTimeout)
	for !done() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatal("it does not happen")
		}
	}
}
