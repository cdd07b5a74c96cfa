package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/internal/certtest"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// A crowd is a process that holds connections and does nothing with them: with both ends in one process the system's
// bound of open files would be too low.
const crowdVariable = "LATCHKEY_TEST_CROWD" // "what address number;..."

// What a connection of a crowd has done before it falls silent.
const (
	crowdGreeted   = "greeted" // HTTP/2's greetings were exchanged
	crowdGreetTLS  = "tls"     // the same, over TLS
	crowdConnected = "silent"  // nothing
	crowdHalfHello = "half"    // the first bytes of TLS
)

// crowd is the main function of the process. It ends with its standard input.
func crowd() error {
	var held []net.Conn
	for part := range strings.SplitSeq(os.Getenv(crowdVariable), ";") {
		var what, addr string
		var n int
		if _, err := fmt.Sscan(part, &what, &addr, &n); err != nil {
			return err
		}
		for range n {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c, err = behave(c, what)
			}
			if err != nil {
				return err
			}
			held = append(held, c)
		}
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(held)
	return err
}

func behave(c net.Conn, what string) (net.Conn, error) {
	switch what {
	case crowdHalfHello:
		_, err := c.Write([]byte{22, 3, 1})
		return c, err
	case crowdGreetTLS:
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	case crowdConnected:
		return c, nil
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		return nil, err
	}
	for { // until the server has taken it
		frame, err := f.ReadFrame()
		if s, ok := frame.(*http2.SettingsFrame); err != nil || ok && s.IsAck() {
			return c, err
		}
	}
}

// gather starts a crowd and returns when it holds its connections; disperse ends it.
func gather(t testing.TB, parts ...string) (disperse func()) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crowdVariable+"="+strings.Join(parts, ";"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	disperse = func() { _ = errors.Join(in.Close(), cmd.Wait()) }
	if err != nil || line != "ready\n" {
		disperse()
		t.Fatalf("the crowd says %q: %v", line, err)
	}
	return disperse
}

// openBoth starts a member that listens with and without TLS.
func openBoth(t testing.TB) (s *server.Server, plain, secure string) {
	a := certtest.New(t)
	p := a.Issue("server")
	s, err := server.Start(t.Context(), server.Config{
		DataDir:          t.TempDir(),
		ListenClientURLs: []string{"http://127.0.0.1:0", "https://127.0.0.1:0"}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
		ClientTLS: server.TLS{CertFile: p.Cert, KeyFile: p.Key},
	})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	<-s.Ready()
	members, err := s.Client().Members(t.Context())
	require.NoError(t, err)
	return s, hostOf(members[0].ClientURLs[0]), hostOf(members[0].ClientURLs[1])
}

// Ten thousand idle connections, and thousands that never finish their TLS handshake, keep nobody out.
func TestIdleConnectionsCostLittle(t *testing.T) {
	s, plain, secure := openBoth(t)
	before := inUse()
	var puts atomic.Int64
	stop := make(chan struct{})
	putting := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				putting <- nil
				return
			default:
			}
			if _, err := s.Client().Put(t.Context(), "k", []byte("v")); err != nil {
				putting <- err
				return
			}
			puts.Add(1)
		}
	}()
	const idle = 10_000
	disperse := gather(t,
		fmt.Sprintf("%s %s %d", crowdGreeted, plain, idle),
		fmt.Sprintf("%s %s 1500", crowdConnected, secure), fmt.Sprintf("%s %s 1500", crowdHalfHello, secure))
	defer disperse()
	ctx := testContext(t) // from now on: on a busy machine it takes long to gather so many
	at := puts.Load()
	for _, endpoint := range []string{"http://" + plain, "https://" + secure} {
		var conf *tls.Config
		if strings.HasPrefix(endpoint, "https") {
			conf = &tls.Config{InsecureSkipVerify: true}
		}
		began := time.Now()
		c, err := client.New(client.Config{Endpoints: []string{endpoint}, TLS: conf})
		require.NoError(t, err)
		_, err = c.Put(ctx, "new", []byte("client"))
		require.NoError(t, err)
		t.Logf("a new client at %s was served after %s", endpoint, time.Since(began))
		require.NoError(t, c.Close())
	}
	close(stop)
	require.NoError(t, <-putting)
	require.Greater(t, puts.Load(), at, "puts went on")
	grown := inUse() - before
	t.Logf("%d puts meanwhile; memory in use grew by %d kB", puts.Load(), grown>>10)
	require.Less(t, grown/idle, int64(20<<10))
}

// inUse is the memory that is in use, after a collection.
func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// BenchmarkIdleConnection tells what one idle connection takes of the member's memory: run it with -benchtime=5000x.
func BenchmarkIdleConnection(b *testing.B) {
	for _, what := range []string{crowdGreeted, crowdGreetTLS} {
		b.Run(what, func(b *testing.B) {
			_, plain, secure := openBoth(b)
			addr := plain
			if what == crowdGreetTLS {
				addr = secure
			}
			before := inUse()
			disperse := gather(b, fmt.Sprintf("%s %s %d", what, addr, b.N))
			b.StopTimer()
			b.ReportMetric(float64(inUse()-before)/float64(b.N), "B/conn")
			disperse()
		})
	}
}

// What is beyond a bound is refused, and everything else goes on.
func TestBounds(t *testing.T) {
	var log logBuffer
	c := servertest.One(t, log.option(), servertest.WithConfig(func(c *server.Config) {
		c.Limits = server.Limits{Connections: 3, StreamsPerConnection: 2, WatchesPerStream: 2, Watches: 3, HandshakeTimeout: time.Second}
	}))
	ctx := testContext(t)
	api := dial(t, c.Endpoints()[0])
	watch := func() func() *pb.WatchResponse {
		w, err := api.WatchClient.Watch(ctx)
		require.NoError(t, err)
		return func() *pb.WatchResponse {
			require.NoError(t, w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}))
			r, err := w.Recv()
			require.NoError(t, err)
			return r
		}
	}
	one := watch()
	require.False(t, one().Canceled)
	require.False(t, one().Canceled)
	r := one()
	require.True(t, r.Canceled)
	require.Equal(t, "etcdserver: too many requests", r.CancelReason)
	two := watch()
	require.False(t, two().Canceled)
	require.True(t, two().Canceled, "the member's bound")

	// Both calls that a connection may have are under way: a third waits for its client's own sake.
	soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := api.KVClient.Put(soon, put("k", "v"))
	require.ErrorContains(t, err, "DeadlineExceeded")

	// One connection is api's. Of three more one is too many, and those that say nothing have to go.
	var silent []net.Conn
	for range 3 {
		nc, err := net.Dial("tcp", c.Endpoints()[0])
		require.NoError(t, err)
		defer nc.Close()
		silent = append(silent, nc)
	}
	log.await(t, "turned a client's connection away: too many are open")
	for _, nc := range silent {
		require.NoError(t, nc.SetDeadline(time.Now().Add(10*time.Second)))
		_, err := io.Copy(io.Discard, nc)
		var timeout net.Error
		require.False(t, errors.As(err, &timeout) && timeout.Timeout())
	}
	_, err = dial(t, c.Endpoints()[0]).KVClient.Put(ctx, put("k", "v"))
	require.NoError(t, err)
}

// A member lets there be so many leases; one more is refused with a reason, and there
// is room again when one ends.
func TestLeasesAreBounded(t *testing.T) {
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { c.Limits.Leases = 3 })).Client()
	ctx := testContext(t)
	var last client.LeaseInfo
	for range 3 {
		var err error
		last, err = c.Grant(ctx, time.Minute)
		require.NoError(t, err)
	}
	_, err := c.Grant(ctx, time.Minute)
	require.ErrorContains(t, err, "too many leases")
	require.NotErrorIs(t, err, client.ErrUncertain)
	require.NoError(t, c.Revoke(ctx, last.ID))
	_, err = c.Grant(ctx, time.Minute)
	require.NoError(t, err)
}

// Who guesses passwords is asked to wait, whichever user he tries; a right password
// costs nothing before.
func TestWrongPasswordsAreBounded(t *testing.T) {
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { cheap(c); server.CountLoopback(c) }))
	s := secure(t, c)
	authenticate := func(name, password string) error {
		_, err := s.auths[0].Authenticate(s.ctx, &pb.AuthenticateRequest{Name: name, Password: password})
		return err
	}
	for range 50 {
		require.NoError(t, authenticate("u", userPassword))
	}
	refused := 0
	for i := range 60 {
		err := authenticate([]string{"u", "root", "nobody"}[i%3], fmt.Sprint("guess ", i))
		require.Error(t, err)
		if strings.Contains(err.Error(), "too many requests") {
			refused++
		}
	}
	require.Greater(t, refused, 20)
	require.ErrorContains(t, authenticate("u", userPassword), "too many requests")
	_, err := s.members[0].Put(s.user, put("a", "1"))
	require.NoError(t, err, "who has a token goes on")
}
