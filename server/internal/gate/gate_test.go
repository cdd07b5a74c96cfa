package gate

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey/internal/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testTimeout = 30 * time.Second

// open listens in a mode until the test ends.
func open(t *testing.T, g *Gate, mode Mode) (l net.Listener, addr string) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	pair := certtest.New(t).Issue("server")
	l = g.Listen(plain, mode, &tls.Config{Certificates: []tls.Certificate{pair.Certificate}})
	t.Cleanup(func() { _ = l.Close() })
	return l, plain.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(testTimeout)))
	return c
}

// hungUp waits until the other side has closed a connection.
func hungUp(t *testing.T, c net.Conn) {
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the connection is still open")
}

// echo accepts one connection and answers what it reads.
func echo(t *testing.T, l net.Listener) net.Conn {
	c, err := l.Accept()
	require.NoError(t, err)
	b := make([]byte, 4)
	_, err = io.ReadFull(c, b)
	require.NoError(t, err)
	_, err = c.Write(b)
	require.NoError(t, err)
	return c
}

// pinging says something and waits for the answer.
func pinging(t *testing.T, c net.Conn) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := io.WriteString(c, "ping")
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 4))
		}
		if err != nil {
			t.Errorf("ping: %v", err)
		}
	}()
	return done
}

func TestModes(t *testing.T) {
	for _, c := range []struct {
		name          string
		mode          Mode
		plain, secure bool
	}{{"plain", Plain, true, false}, {"secure", Secure, false, true}, {"both", Both, true, true}} {
		t.Run(c.name, func(t *testing.T) {
			g := New(Bounds{}, nil)
			l, addr := open(t, g, c.mode)
			if c.plain {
				done := pinging(t, dial(t, addr))
				got := echo(t, l)
				<-done
				require.IsType(t, &Socket{}, got)
				require.NoError(t, got.Close())
			}
			if c.secure {
				done := pinging(t, tls.Client(dial(t, addr), &tls.Config{InsecureSkipVerify: true}))
				got := echo(t, l)
				<-done
				require.True(t, got.(*tls.Conn).ConnectionState().HandshakeComplete)
				require.IsType(t, &Socket{}, got.(*tls.Conn).NetConn())
				require.NoError(t, got.Close())
			}
			if !c.plain { // is turned away, and nobody else hears of it
				c := dial(t, addr)
				_, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
				require.NoError(t, err)
				hungUp(t, c)
			}
		})
	}
}

// A connection counts until it is closed, however often.
func TestConnections(t *testing.T) {
	var log bytes.Buffer
	g := New(Bounds{Connections: 2}, slog.New(slog.NewTextHandler(&log, nil)))
	l, addr := open(t, g, Plain)
	var got []net.Conn
	for range 2 {
		dial(t, addr)
		c, err := l.Accept()
		require.NoError(t, err)
		got = append(got, c)
	}
	accepted := make(chan net.Conn)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	hungUp(t, dial(t, addr))
	hungUp(t, dial(t, addr))
	require.Equal(t, Stats{Connections: 2, Accepted: 2, Refused: 2}, g.Stats())
	require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("turned a client's connection away: too many are open")))
	require.NoError(t, got[0].Close())
	_ = got[0].Close()
	dial(t, addr)
	c := <-accepted
	require.NotNil(t, c)
	require.Equal(t, 2, g.Stats().Connections)
	require.NoError(t, errors.Join(c.Close(), got[1].Close()))
	require.Zero(t, g.Stats().Connections)
}

// from is a connection that claims to be from somewhere.
type from struct {
	net.Conn
	addr string
}

func (c from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.addr)) }
func (c from) Close() error         { return nil }

func TestPerHost(t *testing.T) {
	g := New(Bounds{PerHost: 2}, nil)
	var last *Socket
	for _, c := range []struct {
		addr string
		ok   bool
	}{
		{"10.0.0.1:1", true}, {"10.0.0.1:2", true}, {"10.0.0.1:3", false}, {"[::ffff:10.0.0.1]:4", false}, {"10.0.0.2:1", true},
		{"127.0.0.1:1", true}, {"127.0.0.1:2", true}, {"127.0.0.1:3", true}, {"[::1]:1", true}, {"[::1]:2", true}, {"[::1]:3", true},
		{"[fe80::1%eth0]:1", true}, {"[fe80::1%eth1]:1", true}, {"[fe80::1]:1", false},
	} {
		s := g.admit(from{addr: c.addr})
		require.Equal(t, c.ok, s != nil, c.addr)
		if c.addr == "10.0.0.1:2" {
			last = s
		}
	}
	require.Equal(t, uint64(3), g.Stats().RefusedHost)
	require.NoError(t, last.Close())
	require.NotNil(t, g.admit(from{addr: "10.0.0.1:5"}))
	require.Nil(t, g.admit(from{addr: "10.0.0.1:6"}))
}

// Handshakes that stall neither keep others out nor stay: the oldest make room, and all have a deadline.
func TestStalledHandshakes(t *testing.T) {
	g := New(Bounds{HandshakeTimeout: time.Second}, nil)
	l, addr := open(t, g, Secure)
	stalled := make([]net.Conn, handshakesMax+10)
	for i := range stalled {
		stalled[i] = dial(t, addr)
	}
	done := pinging(t, tls.Client(dial(t, addr), &tls.Config{InsecureSkipVerify: true}))
	c := echo(t, l)
	<-done
	require.LessOrEqual(t, g.Stats().Handshakes, handshakesMax)
	for _, s := range stalled {
		hungUp(t, s)
	}
	require.NoError(t, c.Close())
	poll(t, func() bool { return g.Stats().Connections == 0 })
	require.Equal(t, uint64(len(stalled)), g.Stats().Failed)
}

// Close ends the handshakes that are under way, and waits for them: goleak would find them.
func TestCloseWithHandshakes(t *testing.T) {
	g := New(Bounds{}, nil)
	l, addr := open(t, g, Secure)
	c := dial(t, addr)
	poll(t, func() bool { return g.Stats().Handshakes == 1 })
	require.NoError(t, l.Close())
	hungUp(t, c)
	require.Zero(t, g.Stats().Connections)
	_, err := l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// What writes leave while they do not wait arrives first, and whole.
func TestSocketKeepsTheRest(t *testing.T) {
	g := New(Bounds{}, nil)
	l, addr := open(t, g, Secure)
	client := tls.Client(dial(t, addr), &tls.Config{InsecureSkipVerify: true})
	go func() { _ = client.Handshake() }()
	c, err := l.Accept()
	require.NoError(t, err)
	defer c.Close()
	s := c.(*tls.Conn).NetConn().(*Socket)
	require.True(t, s.Direct())
	sent := 0
	for piece := make([]byte, 10_000); !s.Pending(); sent += len(piece) {
		for i := range piece {
			piece[i] = byte((sent + i) % 251)
		}
		_, err := c.Write(piece) // nobody reads: it would never return if it waited
		require.NoError(t, err)
	}
	waited := make(chan error)
	go func() { waited <- s.Wait() }()
	got := make([]byte, sent)
	_, err = io.ReadFull(client, got)
	require.NoError(t, err)
	for i, b := range got {
		require.Equal(t, byte(i%251), b)
	}
	require.NoError(t, <-waited)
	require.False(t, s.Pending())
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
