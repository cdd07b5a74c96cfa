package peer

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// Calls beyond the bound wait for their turn; all are answered, each with its own answer, and heartbeats pass meanwhile.
func TestCallFlood(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{}, 4*callsMax)
	var now, most atomic.Int64
	a, b := pair(t, withHandler(func(r *recorder) {
		r.onCall = func(_ context.Context, _ uint64, _ byte, body []byte) ([]byte, error) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			entered <- struct{}{}
			<-release
			return body, nil
		}
	}))
	const total = 2*callsMax + 100
	var wg sync.WaitGroup
	var wrong atomic.Int64
	for i := range total {
		wg.Go(func() {
			question := binary.AppendUvarint(nil, uint64(i))
			answer, err := a.Call(t.Context(), 2, 1, question)
			if err != nil || string(answer) != string(question) {
				wrong.Add(1)
			}
		})
	}
	for range callsMax {
		wait(t, entered)
	}
	a.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 2, 3)})
	require.Equal(t, uint64(3), wait(t, b.messages).GetIndex())
	close(release)
	wg.Wait()
	require.Zero(t, wrong.Load())
	require.LessOrEqual(t, most.Load(), int64(callsMax))
	require.Equal(t, total, callsMax+len(entered))
}

// A member that asks more than it may is refused, and its cancelled questions are.
func TestCallsServedAreBounded(t *testing.T) {
	var cancelled sync.WaitGroup
	cancelled.Add(callsMax)
	b := start(t, 2, "", withHandler(func(r *recorder) {
		r.onCall = func(ctx context.Context, _ uint64, _ byte, body []byte) ([]byte, error) {
			<-ctx.Done()
			cancelled.Done()
			return nil, ctx.Err()
		}
	}))
	b.SetPeers(map[uint64][]string{1: nil})
	conn := stranger(t, b.addr)
	require.NoError(t, conn.greet(hello{testCluster, 1, 2, kindControl}))
	id := func(i int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(i)) }
	for i := range callsMax + 3 {
		_, err := conn.Write(sealed(frameQuestion, id(i), []byte{1}))
		require.NoError(t, err)
	}
	for i := range 3 {
		kind, body, err := conn.in.next()
		for err == nil && kind == framePulse {
			kind, body, err = conn.in.next()
		}
		require.NoError(t, err)
		require.Equal(t, frameAnswer, kind)
		require.Equal(t, append(id(callsMax+i), answerError), body[:callIDBytes+1])
		require.Equal(t, errTooManyCalls.Error(), string(body[callIDBytes+1:]))
	}
	for i := range callsMax {
		_, err := conn.Write(sealed(frameCancel, id(i)))
		require.NoError(t, err)
	}
	cancelled.Wait()
	cancelled.Add(1)
	_, err := conn.Write(append(sealed(frameQuestion, id(1e6), []byte{1}), sealed(frameQuestion, id(1e6), []byte{1})...))
	require.NoError(t, err)
	kinds, reason := ended(t, conn)
	require.Equal(t, []frameKind{frameRefusal}, kinds)
	require.Contains(t, reason, "two calls with one id")
	cancelled.Wait() // the end of the connection cancels them too
}

// The end of a session ends the calls that wait, and the work for them.
func TestCallWhenSessionBreaks(t *testing.T) {
	entered, gone := make(chan struct{}), make(chan struct{})
	a, _ := pair(t, withHandler(func(r *recorder) {
		r.onCall = func(ctx context.Context, _ uint64, _ byte, _ []byte) ([]byte, error) {
			close(entered)
			<-ctx.Done()
			close(gone)
			return nil, ctx.Err()
		}
	}))
	failed := make(chan error, 1)
	go func() {
		_, err := a.Call(t.Context(), 2, 1, nil)
		failed <- err
	}()
	wait(t, entered)
	a.SetPeers(map[uint64][]string{1: a.url})
	require.ErrorIs(t, wait(t, failed), errBroken)
	wait(t, gone)
}
