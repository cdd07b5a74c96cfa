package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

const tinyBuffer = 32 << 10 // of a socket; with much less the kernel waits for its timers

// tiny is a listener whose connections have tiny receive buffers.
func tiny(l net.Listener) net.Listener { return tinyListener{l} }

type tinyListener struct{ net.Listener }

func (l tinyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetReadBuffer(tinyBuffer)
	}
	return c, err
}

// Bytes arrive complete and in order, whatever the kernel takes of each write, and no write waits.
func TestLinkPartialWrites(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	raw, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer raw.Close()
	require.NoError(t, raw.(*net.TCPConn).SetWriteBuffer(tinyBuffer))
	other, err := tiny(listener).Accept()
	require.NoError(t, err)
	defer other.Close()

	l := newLink(raw)
	require.NoError(t, l.setDirect(true))
	var sent []byte
	partial := 0
	read := make([]byte, 0, 4<<20)
	for i := 0; i < 400 || !l.pending(); i++ { // at the end something waits, unless buffers are endless
		require.Less(t, i, 800)
		piece := make([]byte, 1+i*37%5000)
		for k := range piece {
			piece[k] = byte(len(sent) + k*k)
		}
		before := len(l.rest)
		n, err := l.Write(piece) // nobody reads meanwhile: it would never return if it waited
		require.NoError(t, err)
		require.Equal(t, len(piece), n)
		sent = append(sent, piece...)
		if before == 0 && l.pending() && len(l.rest) < len(piece) {
			partial++
		}
		if len(l.rest) > 3*len(piece) { // some room, for a part of what waits
			n, err := io.ReadFull(other, read[len(read):len(read)+1+len(l.rest)/2])
			require.NoError(t, err)
			read = read[:len(read)+n]
			l.retry()
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		n, _ := io.ReadFull(other, read[len(read):len(sent)])
		read = read[:len(read)+n]
	})
	require.NoError(t, l.setDirect(false))
	wg.Wait()
	require.False(t, l.pending())
	require.Equal(t, len(sent), len(read))
	require.True(t, string(sent) == string(read), "the bytes differ")
	require.Positive(t, partial, "no write was taken in part")
}

// A peer that reads nothing for a while, behind tiny buffers: Send never waits, what it could not write arrives in order
// when the peer reads again, nothing is lost, and then Send writes by itself again.
func TestSlowReader(t *testing.T) {
	for _, secure := range []bool{false, true} {
		gate := make(chan struct{})
		withTiny := withListener(tiny)
		options := []nodeOption{withTiny, withHandler(func(r *recorder) { r.onMessage = func(*raftpb.Message) { <-gate } })}
		var a, b *node
		if secure {
			s := withSecure(t)
			a, b = start(t, 1, "", s), start(t, 2, "", append(options, s)...)
			a.url[0], b.url[0] = "https://"+a.addr, "https://"+b.addr
			join(t, a, b)
		} else {
			a, b = pair(t, options...)
		}
		s := (*a.peers.Load())[2].bulk
		require.NoError(t, s.conn.Conn.(*net.TCPConn).SetWriteBuffer(tinyBuffer))
		const count = 1000
		held := false
		for i := range uint64(count) {
			size := 100 + i*i%3000
			if i%100 == 99 {
				size = directBytesMax + 1
			}
			a.Send([]*raftpb.Message{message(raftpb.MsgApp, 1, 2, i, make([]byte, size))})
			busy, err := s.begin()
			require.NoError(t, err)
			held = held || busy
		}
		require.True(t, held, "everything fitted")
		close(gate)
		for i := range uint64(count) {
			require.Equal(t, i, wait(t, b.messages).GetIndex())
		}
		require.Zero(t, a.Stats().Dropped)
		require.Less(t, a.Stats().FramesSent, uint64(count), "what waits is sent together")
		// The last one has arrived, so the sender is about to find that nothing waits.
		for i := uint64(0); ; i++ {
			a.Send([]*raftpb.Message{message(raftpb.MsgApp, 1, 2, i, []byte("x"))})
			require.Equal(t, i, wait(t, b.messages).GetIndex())
			if busy, _ := s.begin(); !busy {
				break
			}
		}
		a.stop()
		b.stop()
	}
}

// withSecure puts TLS over all connections of a node.
func withSecure(t *testing.T) nodeOption {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	certificates := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}
	return withConfig(func(c *Config) {
		c.Secure = Secure{
			Client: func(ctx context.Context, c net.Conn, name string) (net.Conn, error) {
				top := tls.Client(c, &tls.Config{RootCAs: roots, ServerName: name})
				return top, top.HandshakeContext(ctx)
			},
			Server: func(ctx context.Context, c net.Conn) (net.Conn, error) {
				top := tls.Server(c, &tls.Config{Certificates: certificates})
				return top, top.HandshakeContext(ctx)
			},
		}
	})
}

// Messages, calls and snapshots work over TLS, and a plain client is cut off.
func TestSecure(t *testing.T) {
	s := withSecure(t)
	blob := newBlob(1 << 20)
	a := start(t, 1, "", s, withConfig(func(c *Config) {
		c.OpenSnapshot = func(*raftpb.Message) (Snapshot, error) { return blob, nil }
	}))
	b := start(t, 2, "", s, withHandler(func(r *recorder) {
		r.onCall = func(_ context.Context, _ uint64, _ byte, body []byte) ([]byte, error) { return body, nil }
		r.onSnapshot = func(_ uint64, _ *raftpb.Message, rd io.Reader) error {
			_, err := io.Copy(io.Discard, rd)
			return err
		}
	}))
	a.url[0], b.url[0] = "https://"+a.addr, "https://"+b.addr
	join(t, a, b)
	for i := range uint64(500) {
		a.Send([]*raftpb.Message{message(raftpb.MsgApp, 1, 2, i, make([]byte, 1000*(i%200)))})
	}
	for i := range uint64(500) {
		require.Equal(t, i, wait(t, b.messages).GetIndex())
	}
	question := make([]byte, maxCallBytes)
	answer, err := a.Call(t.Context(), 2, 1, question)
	require.NoError(t, err)
	require.Len(t, answer, maxCallBytes)
	a.Send([]*raftpb.Message{snapshotMessage(1, 2, 1)})
	require.True(t, wait(t, a.sent))
	require.Error(t, stranger(t, b.addr).greet(good))
	require.Empty(t, a.lost)
}

// https needs TLS; without it no connection is made, rather than one in the clear.
func TestNoSecure(t *testing.T) {
	_, err := New(Config{}).parseURLs([]string{"https://localhost:1"})
	require.ErrorIs(t, err, errNoURL)
	require.ErrorContains(t, err, "needs TLS")
}
