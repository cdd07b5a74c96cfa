package front

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

// inBubble runs a test in virtual time with one connection, which is a pipe: synctest.Wait then tells that the server
// does nothing more by itself.
func inBubble(t *testing.T, test func(t *testing.T, r *rig, c *conn, client *raw)) {
	synctest.Test(t, func(t *testing.T) {
		r := newIdleRig(Config{Codec: encoding.GetCodecV2(grpcproto.Name), MaxRequestBytes: requestMax})
		ours, theirs := net.Pipe()
		c := newConn(r.front, ours)
		done := make(chan struct{})
		go func() { c.serve(); close(done) }()
		client := &raw{t: t, Conn: theirs, Framer: http2.NewFramer(theirs, theirs), decoder: hpack.NewDecoder(4096, nil)}
		client.AllowIllegalWrites = true
		client.encoder = hpack.NewEncoder(&client.block)
		test(t, r, c, client)
		_ = theirs.Close()
		<-done
		close(r.stuck)
		r.front.Stop()
	})
}

// greet says what a client says first.
func (c *raw) greet(settings ...http2.Setting) {
	_, err := io.WriteString(c.Conn, preface)
	require.NoError(c.t, err)
	require.NoError(c.t, c.WriteSettings(settings...))
}

// until reads until an answer to a ping, and returns how many bytes of DATA came before.
func (c *raw) until() int {
	sent := make(chan error, 1)
	go func() { sent <- c.WritePing(false, [8]byte{'u'}) }()
	size := 0
	for {
		f, err := c.ReadFrame()
		require.NoError(c.t, err)
		switch f := f.(type) {
		case *http2.DataFrame:
			size += len(f.Data())
		case *http2.PingFrame:
			if f.IsAck() {
				require.NoError(c.t, <-sent)
				return size
			}
		}
	}
}

func TestGreetTimeout(t *testing.T) {
	for name, said := range map[string]string{"nothing": "", "half a preface": preface[:10], "no SETTINGS": preface} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *rig, _ *conn, client *raw) {
				start := time.Now()
				_, err := io.WriteString(client.Conn, said)
				require.NoError(t, err)
				require.Equal(t, "none", client.goaway())
				require.Equal(t, greetTimeout, time.Since(start))
			})
		})
	}
}

// TestClientThatDoesNotRead sends requests for as long as the server takes them, and reads nothing.
func TestClientThatDoesNotRead(t *testing.T) {
	large := message(simple(10, 1<<20))
	cases := map[string]func(c *raw, i uint32) error{
		"pings":    func(c *raw, _ uint32) error { return c.WritePing(false, [8]byte{}) },
		"settings": func(c *raw, _ uint32) error { return c.WriteSettings() },
		"refused": func(c *raw, i uint32) error {
			return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: c.encode(unaryFields[:10]...), EndHeaders: true, EndStream: true})
		},
		"large refusals": func(c *raw, i uint32) error {
			f := append([]string(nil), unaryFields...)
			f[5] = "/x" + string(bytes.Repeat([]byte{'%'}, 3000))
			return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: c.encode(f...), EndHeaders: true, EndStream: true})
		},
		"direct answers": func(c *raw, i uint32) error {
			err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: c.encode(unaryFields...), EndHeaders: true})
			return errors.Join(err, c.WriteData(2*i+1, true, large))
		},
	}
	for name, send := range cases {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *rig, c *conn, client *raw) {
				client.greet(http2.Setting{ID: settingInitialWindow, Val: maxWindow})
				require.NoError(t, client.WriteWindowUpdate(0, maxWindow-defaultWindowBytes))
				start := time.Now()
				over := make(chan struct{})
				go func() {
					defer close(over)
					for i := uint32(0); send(client, i) == nil; i++ {
					}
				}()
				synctest.Wait()
				c.mu.Lock()
				backlog, unsent := len(c.out), c.unsent
				c.mu.Unlock()
				require.Greater(t, max(backlog-backlogMax, unsent-unsentSoftBytes), 0, "the test has not filled anything")
				require.Less(t, backlog, 2*backlogMax) // handlers that have begun still add their statuses
				require.Less(t, unsent, unsentSoftBytes+2<<20)
				<-over
				require.Equal(t, stallTimeout, time.Since(start))
			})
		})
	}
}

func TestReaderGoesOnWhenItsClientReads(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rig, c *conn, client *raw) {
		const n = 200_000
		client.greet()
		go func() {
			for range n {
				if client.WritePing(false, [8]byte{}) != nil {
					return
				}
			}
		}()
		synctest.Wait()
		require.True(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.crowded() }())
		for got := 0; got < n; {
			f, err := client.ReadFrame()
			require.NoError(t, err)
			if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
				got++
			}
		}
	})
}

// TestClientThatReadsSlowly is crowded for much longer than stallTimeout, and is not cut.
func TestClientThatReadsSlowly(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rig, c *conn, client *raw) {
		client.greet()
		go func() {
			for client.WritePing(false, [8]byte{}) == nil {
			}
		}()
		for range 10 {
			_, err := io.CopyN(io.Discard, client.Conn, backlogMax+4*readBufferBytes)
			require.NoError(t, err)
			synctest.Wait()
			require.True(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.crowded() }())
			<-time.After(stallTimeout * 3 / 4) // of the bubble's time
		}
		require.NoError(t, c.ctx.Err())
	})
}

// TestSlowReader: a handler blocks while its client gives no window, with little in memory, and ends when it goes.
func TestSlowReader(t *testing.T) {
	q := &pb.StreamingOutputCallRequest{}
	for range 1000 {
		q.ResponseParameters = append(q.ResponseParameters, &pb.ResponseParameters{Size: 50_000})
	}
	inBubble(t, func(t *testing.T, _ *rig, c *conn, client *raw) {
		client.greet()
		f := append([]string(nil), unaryFields...)
		f[5] = pb.TestService_StreamingOutputCall_FullMethodName
		for _, stream := range []uint32{1, 3} {
			client.headers(stream, false, f...)
			client.must(client.WriteData(stream, true, message(q)))
		}
		synctest.Wait() // until both handlers have sent what they may
		require.Equal(t, defaultWindowBytes, client.until(), "of the connection's window")
		synctest.Wait()
		c.mu.Lock()
		require.Less(t, c.unsent, 2*(streamBacklogBytes+50_100))
		require.Greater(t, c.unsent, 2*streamBacklogBytes)
		c.mu.Unlock()
		client.must(client.WriteWindowUpdate(0, 100_000))
		require.Equal(t, 2*defaultWindowBytes-defaultWindowBytes, client.until(), "of the streams' windows")
		client.must(client.WriteRSTStream(1, http2.ErrCodeCancel))
		client.must(client.WriteWindowUpdate(0, maxWindow/2))
		go func() { client.must(client.WriteWindowUpdate(3, maxWindow/2)) }()
		require.Equal(t, "0", client.answer(3)["grpc-status"])
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		require.Zero(t, c.unsent)
		require.Zero(t, c.held)
		require.Zero(t, c.orphans)
		require.Empty(t, c.streams)
		require.Empty(t, c.waiting)
	})
}

// TestWindowsInTheMiddle changes the initial window while an answer waits for it, also to less than was used.
func TestWindowsInTheMiddle(t *testing.T) {
	r := newRig(t)
	c := dialRaw(t, r.addr, http2.Setting{ID: settingInitialWindow, Val: 10})
	c.headers(1, false, unaryFields...)
	c.must(c.WriteData(1, true, message(simple(0, 1000))))
	whole := len(message(&pb.SimpleResponse{Payload: &pb.Payload{Body: make([]byte, 1000)}, Username: simple(0, 0).GetPayload().String()}))
	require.Equal(t, 10, c.until())
	initial := func(n uint32) { c.must(c.WriteSettings(http2.Setting{ID: settingInitialWindow, Val: n})) }
	initial(100)
	require.Equal(t, 90, c.until())
	initial(0)
	c.must(c.WriteWindowUpdate(1, 50))
	require.Equal(t, 0, c.until())
	c.must(c.WriteWindowUpdate(1, 70))
	require.Equal(t, 20, c.until())
	// One frame counts as a whole: its values in between do not.
	c.must(c.WriteSettings(http2.Setting{ID: settingInitialWindow, Val: 60_000}, http2.Setting{ID: settingInitialWindow, Val: 5}))
	require.Equal(t, 5, c.until())
	initial(defaultWindowBytes)
	got := c.answer(1)
	require.Equal(t, "0", got["grpc-status"])
	require.Equal(t, whole-125, atoi(got["bytes"]))
}

func atoi(s string) (n int) {
	for _, d := range s {
		n = 10*n + int(d-'0')
	}
	return n
}

// TestClientWithoutTable: our entries are not used once a client has no room for them.
func TestClientWithoutTable(t *testing.T) {
	r := newRig(t)
	t.Run("from the start", func(t *testing.T) {
		c := dialRaw(t, r.addr, http2.Setting{ID: settingHeaderTable, Val: 0})
		c.decoder = hpack.NewDecoder(0, nil)
		for i := range uint32(3) {
			c.served(2*i + 1)
		}
	})
	t.Run("later", func(t *testing.T) {
		c := dialRaw(t, r.addr)
		c.served(1)
		c.served(3)
		c.must(c.WriteSettings(http2.Setting{ID: settingHeaderTable, Val: 0}))
		c.until()
		c.decoder = hpack.NewDecoder(0, nil) // which does not know what was in the other
		c.served(5)
		c.request(7, true, "grpc-timeout", "?")
		require.Equal(t, "13", c.answer(7)["grpc-status"])
		c.must(c.WriteSettings(http2.Setting{ID: settingHeaderTable, Val: 4096}))
		c.served(9)
	})
}

// TestRapidReset: calls that a client gave up count while somebody is at them.
func TestRapidReset(t *testing.T) {
	stuck := func(c *raw, stream uint32) {
		f := append([]string(nil), unaryFields...)
		f[5] = pb.TestService_HalfDuplexCall_FullMethodName
		c.headers(stream, false, f...)
	}
	held := func(c *raw, stream uint32) {
		c.headers(stream, false, unaryFields...)
		c.must(c.WriteData(stream, true, message(&pb.SimpleRequest{FillOauthScope: true})))
	}
	const beyond = 50
	for name, call := range map[string]func(c *raw, stream uint32){"handlers": stuck, "direct": held} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c := dialRaw(t, r.addr)
			for i := range uint32(streamsMax + beyond) {
				call(c, 2*i+1)
				c.must(c.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
			}
			for refused := 0; refused < beyond; {
				f, err := c.ReadFrame()
				require.NoError(t, err)
				if f, ok := f.(*http2.RSTStreamFrame); ok && f.ErrCode == http2.ErrCodeRefusedStream {
					refused++
				}
			}
			if name == "handlers" {
				for range streamsMax { // they may begin later than the refusals come
					<-r.began
				}
			}
			require.Equal(t, map[string]int{"direct": streamsMax}[name], len(r.began)+len(r.held))
			var b Batch
			for len(r.held) > 0 {
				(<-r.held).Reply(&pb.SimpleResponse{}, nil, &b)
			}
			b.Flush()
			if name == "direct" {
				c.served(2*streamsMax + 2*beyond + 1)
			}
			dialRaw(t, r.addr).served(1)
		})
	}
}

// theConn returns the server's side of a connection that was greeted.
func theConn(t *testing.T, r *rig, c *raw) *conn {
	c.until()
	r.front.mu.Lock()
	defer r.front.mu.Unlock()
	for cn := range r.front.conns {
		if cn.net.RemoteAddr().String() == c.LocalAddr().String() {
			return cn
		}
	}
	t.Fatal("no such connection")
	return nil
}

func TestWhatAConnectionMayHold(t *testing.T) {
	r := newRig(t)
	t.Run("of requests", func(t *testing.T) {
		c := dialRaw(t, r.addr)
		cn := theConn(t, r, c)
		cn.mu.Lock()
		cn.held += heldMaxBytes // as if of other calls
		cn.mu.Unlock()
		c.request(1, false)
		c.must(c.WriteData(1, false, message(simple(1000, 0))[:500]))
		require.Equal(t, "8", c.answer(1)["grpc-status"])
		c.served(3)
		cn.mu.Lock()
		defer cn.mu.Unlock()
		require.Equal(t, heldMaxBytes, cn.held)
	})
	t.Run("of answers", func(t *testing.T) {
		c := dialRaw(t, r.addr, http2.Setting{ID: settingInitialWindow, Val: 0})
		cn := theConn(t, r, c)
		cn.mu.Lock()
		cn.unsent += unsentMaxBytes
		cn.mu.Unlock()
		c.headers(1, false, unaryFields...)
		c.must(c.WriteData(1, true, message(simple(0, 1000))))
		require.Equal(t, "8", c.answer(1)["grpc-status"])
	})
}

// TestLeavingConnection: calls that come between the two goodbyes are served, later ones are ignored.
func TestLeavingConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig, c *conn, client *raw) {
		client.greet()
		client.duplex(1)
		client.until()
		go c.leave()
		var ping *http2.PingFrame
		for ping == nil {
			f, err := client.ReadFrame()
			require.NoError(t, err)
			if g, ok := f.(*http2.GoAwayFrame); ok {
				require.EqualValues(t, maxStreamID, g.LastStreamID)
			}
			ping, _ = f.(*http2.PingFrame)
		}
		client.served(3)
		require.NoError(t, client.WritePing(true, ping.Data))
		for {
			f, err := client.ReadFrame()
			require.NoError(t, err)
			if g, ok := f.(*http2.GoAwayFrame); ok {
				require.EqualValues(t, 3, g.LastStreamID)
				break
			}
		}
		client.request(5, true)
		client.must(client.WriteWindowUpdate(5, 1))
		client.must(client.WriteRSTStream(5, 8))
		client.until()
		require.NoError(t, client.WriteData(1, true, nil))
		require.Equal(t, "none", client.goaway())
		require.Empty(t, r.began)
	})
}

// TestTurnComesEvenSo: a call that was taken has its turn though its client then broke the protocol.
func TestTurnComesEvenSo(t *testing.T) {
	var turns atomic.Int32
	r := newRig(t, func(c *Config) { c.Turn = func() { turns.Add(1) } })
	c := connectRaw(t, r.addr)
	var b bytes.Buffer
	c.Framer = http2.NewFramer(&b, c.Conn)
	c.AllowIllegalWrites = true
	b.WriteString(preface)
	c.must(c.WriteSettings())
	c.headers(1, false, unaryFields...)
	c.must(c.WriteData(1, true, message(&pb.SimpleRequest{FillOauthScope: true})))
	c.must(c.WriteData(0, true, nil))
	_, err := c.Conn.Write(b.Bytes())
	require.NoError(t, err)
	require.Equal(t, "PROTOCOL_ERROR", c.goaway())
	require.EqualValues(t, 1, turns.Load())
}

// TestHalfClosed: a client that sends nothing more is served no more.
func TestHalfClosed(t *testing.T) {
	r := newRig(t)
	c := dialRaw(t, r.addr)
	c.duplex(1)
	c.wait(1, false)
	<-r.began
	require.NoError(t, c.Conn.(*net.TCPConn).CloseWrite())
	require.ErrorIs(t, <-r.ended, errClientGone)
	require.Equal(t, "none", c.goaway())
}
