//go:build !race

package front

// The race detector allocates for itself, so it can not keep these budgets.

import (
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/encoding/protowire"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

// directAllocsMax is the budget of one call: its stream.
const directAllocsMax = 1.2

// TestDirectAllocations holds what the server allocates for a call that is answered directly.
func TestDirectAllocations(t *testing.T) {
	for _, calls := range []int{1, 64} {
		b := newBurst(t, newQuiet(t), calls)
		n := testing.AllocsPerRun(200, func() { require.NoError(t, b.round()) }) / float64(calls)
		t.Logf("%.2f allocations a call, %d at once", n, calls)
		require.LessOrEqual(t, n, directAllocsMax)
		require.Positive(t, n)
	}
}

// TestPipeAllocations holds the same for a call on a pipe: the call, and what it shares with others of its message.
func TestPipeAllocations(t *testing.T) {
	for _, calls := range []int{1, 64} {
		c := dialRaw(t, newQuiet(t), http2.Setting{ID: settingInitialWindow, Val: maxWindow})
		c.must(c.WriteWindowUpdate(0, maxWindow-defaultWindowBytes))
		p := c.greetedPipe(1)
		m := new(latchkeyv1.Requests)
		for id := range uint64(calls) {
			m.Requests = append(m.Requests, ask(id, pipedUnary, &pb.SimpleRequest{}))
		}
		body := message(m)
		out := append(appendFrameHeader(nil, len(body), frameData, 0, 1), body...)
		p.write(body, false)
		p.answers(calls)
		in, data := make([]byte, 64<<10), make([]byte, 0, 64<<10)
		n := testing.AllocsPerRun(200, func() {
			_, err := c.Conn.Write(out)
			require.NoError(t, err)
			data = data[:0]
			for answers := 0; answers < calls; answers = countAnswers(data) {
				k, err := c.Conn.Read(in)
				require.NoError(t, err)
				data = append(data, in[:k]...)
			}
		}) / float64(calls)
		t.Logf("%.2f allocations a call, %d in a message", n, calls)
		require.LessOrEqual(t, n, directAllocsMax)
		require.Positive(t, n)
	}
}

// countAnswers counts those in frames of which each holds whole messages.
func countAnswers(b []byte) (n int) {
	for len(b) >= frameHeaderBytes {
		h := parseFrameHeader(b)
		if b = b[frameHeaderBytes:]; len(b) < h.length {
			return n
		}
		data := b[:h.length]
		b = b[h.length:]
		if h.kind != frameData {
			continue
		}
		for data = data[prefixBytes:]; len(data) > 0; n++ {
			data = data[protowire.ConsumeFieldValue(1, protowire.BytesType, data[1:])+1:]
		}
	}
	return n
}

// TestIdleConnections measures what one costs that has been used. It is a budget, with room: a goroutine and its stack,
// the decoder's table, the socket; and none of the large buffers.
func TestIdleConnections(t *testing.T) {
	const conns, bytesMax = 5000, 12 << 10
	addr := newQuiet(t)
	clients := make([]*burst, conns)
	var wg sync.WaitGroup
	heap := func() uint64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC() // pools let go of their content at the second
		}
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := heap()
	for i := range clients {
		nc, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = nc.Close() })
		clients[i] = &burst{nc: nc}
	}
	hello := make([]byte, 0, 64)
	hello = append(hello, preface...)
	hello = append(hello, "\x00\x00\x00\x04\x00\x00\x00\x00\x00"+"\x00\x00\x08\x06\x00\x00\x00\x00\x00idle now"...)
	for _, c := range clients {
		wg.Go(func() {
			_, err := c.nc.Write(hello)
			if err != nil {
				t.Error(err)
			}
			_, err = io.ReadFull(c.nc, make([]byte, frameHeaderBytes+24+frameHeaderBytes+4+frameHeaderBytes+frameHeaderBytes+8))
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	each := (int64(heap()) - int64(before)) / conns
	t.Logf("%d bytes a connection, both ends", each)
	require.Less(t, each, int64(bytesMax))
}
