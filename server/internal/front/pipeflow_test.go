package front

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

// TestPipeLimit: a connection may have so many calls on pipes under way, those among them that were given up.
func TestPipeLimit(t *testing.T) {
	const most = 10
	r := newRig(t, func(c *Config) { c.MaxStreams = most })
	c := dialRaw(t, r.addr)
	p := c.pipe(1)
	require.EqualValues(t, most, p.next().GetRequestsMax())
	refused := func(p *rawPipe, id uint64) {
		p.requests(small(id))
		got := p.answers(1)[id]
		require.EqualValues(t, codes.Unavailable, got.GetCode())
		require.True(t, got.GetUnserved())
	}
	var calls []Call
	hold := func(p *rawPipe, id uint64) {
		p.requests(held(id))
		calls = append(calls, <-r.held)
	}
	for id := range uint64(most) {
		hold(p, id)
	}
	refused(p, 100)
	p.cancel(0, 1, 2)
	refused(p, 101) // somebody is still at them
	var b Batch
	for _, call := range calls[:3] {
		call.Reply(&pb.SimpleResponse{}, nil, &b)
	}
	b.Flush()
	for id := uint64(20); id < 23; id++ {
		hold(p, id)
	}
	refused(p, 102)
	// Another pipe, when this one is gone, is no way round.
	p.must(p.WriteRSTStream(1, http2.ErrCodeCancel))
	q := c.pipe(3)
	q.next()
	refused(q, 1)
	for _, call := range calls[3:] {
		require.True(t, call.Gone())
		call.Reply(&pb.SimpleResponse{}, nil, &b)
	}
	q.requests(small(2))
	require.Zero(t, q.answers(1)[2].GetCode())
}

// windowed is the client of a pipe who keeps to his window.
type windowed struct {
	*rawPipe
	window, sent int
}

// fill sends one message as often as it may.
func (p *windowed) fill(one []byte) {
	for p.window >= len(one) {
		p.must(p.WriteData(1, false, one))
		p.window -= len(one)
		p.sent++
	}
	synctest.Wait()
}

// drain takes what there is to read.
func (p *windowed) drain() {
	p.must(p.WritePing(false, [8]byte{9}))
	for {
		f, err := p.ReadFrame()
		require.NoError(p.t, err)
		switch f := f.(type) {
		case *http2.WindowUpdateFrame:
			if f.StreamID == 1 {
				p.window += int(f.Increment)
			}
		case *http2.DataFrame:
			p.data = append(p.data, f.Data()...)
		case *http2.PingFrame:
			if f.IsAck() {
				return
			}
		}
	}
}

// TestPipeFlowControl: who does not read answers can send no more, and goes on when he does.
func TestPipeFlowControl(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rig, c *conn, client *raw) {
		client.greet()
		p := &windowed{rawPipe: client.pipe(1), window: streamWindowBytes}
		p.next()
		const size = 10_000
		one := message(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{ask(1, pipedUnary, &pb.SimpleRequest{
			ResponseSize: size, Payload: &pb.Payload{Body: make([]byte, 1000)},
		})}})
		for before := -1; before != p.sent; {
			before = p.sent
			p.fill(one)
			p.drain()
		}
		c.mu.Lock()
		require.Less(t, c.unsent, pipeBacklogBytes+2*streamWindowBytes*(size/1000+1))
		require.Greater(t, c.unsent, pipeBacklogBytes)
		require.Less(t, c.held, len(one))
		c.mu.Unlock()
		require.Less(t, p.sent, 3*streamWindowBytes/len(one))
		stuck, answers := p.sent, 0
		p.must(p.WriteWindowUpdate(0, maxWindow/2))
		updated := make(chan struct{})
		go func() {
			defer close(updated)
			p.must(p.WriteWindowUpdate(1, maxWindow/2))
		}()
		for answers < stuck {
			answers += len(p.next().GetResponses())
		}
		<-updated
		p.drain() // all that was sent is answered, and more may be sent
		p.fill(one)
		require.Greater(t, p.sent, stuck)
		for answers < p.sent {
			answers += len(p.next().GetResponses())
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		require.Zero(t, c.unsent)
		require.Zero(t, c.held)
		require.Zero(t, c.carried)
		require.Empty(t, c.pipes)
	})
}

// TestPipeHeld: what a pipe has received of a message counts as that of other calls.
func TestPipeHeld(t *testing.T) {
	r := newRig(t)
	c := dialRaw(t, r.addr)
	cn := theConn(t, r, c)
	cn.mu.Lock()
	cn.held += heldMaxBytes // as if of other calls
	cn.mu.Unlock()
	p := c.greetedPipe(1)
	p.write(message(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{small(50)}})[:40], false)
	require.Equal(t, "8", p.end())
	c.served(3)
	cn.mu.Lock()
	defer cn.mu.Unlock()
	require.Equal(t, heldMaxBytes, cn.held)
}

// TestPipeLargeAnswers: beyond what a connection may have waiting, there is an error instead.
func TestPipeLargeAnswers(t *testing.T) {
	r := newRig(t)
	c := dialRaw(t, r.addr)
	cn := theConn(t, r, c)
	p := c.greetedPipe(1)
	cn.mu.Lock()
	cn.unsent += unsentMaxBytes
	cn.mu.Unlock()
	p.requests(ask(1, pipedUnary, simple(0, 1000)))
	require.EqualValues(t, codes.ResourceExhausted, p.answers(1)[1].GetCode())
	cn.mu.Lock()
	cn.unsent -= unsentMaxBytes
	cn.mu.Unlock()
}
