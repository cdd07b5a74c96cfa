package pubsub

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// sent is what an outbox has committed, and when.
type sent struct {
	at       time.Duration
	messages int
}

// box runs an outbox whose commits take as long as took.
type box struct {
	*outbox
	mu    sync.Mutex
	sent  []sent
	took  time.Duration
	start time.Time
	stop  context.CancelCauseFunc
	done  chan struct{}
}

func newBox(conf publisherConfig, took time.Duration) *box {
	b := &box{took: took, start: time.Now(), done: make(chan struct{})}
	conf.deliver = time.Minute
	b.outbox = newOutbox(conf, func(ctx context.Context, batch []*Pending) {
		b.mu.Lock()
		b.sent = append(b.sent, sent{time.Since(b.start), len(batch)})
		b.mu.Unlock()
		timer := time.NewTimer(b.took)
		defer timer.Stop()
		var err error
		select {
		case <-timer.C:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		for _, p := range batch {
			p.err = err
			close(p.done)
		}
	})
	var ctx context.Context
	ctx, b.stop = context.WithCancelCause(context.Background())
	go func() {
		defer close(b.done)
		b.run(ctx)
	}()
	return b
}

func (b *box) add(t *testing.T, n, bytes int, dedup string) (last *Pending) {
	t.Helper()
	for range n {
		last = &Pending{draft: &draft{payload: make([]byte, bytes)}, dedup: dedup, done: make(chan struct{})}
		require.NoError(t, b.put(t.Context(), last))
	}
	return last
}

func (b *box) end() []sent {
	b.stop(ErrClosed)
	<-b.done
	return b.sent
}

// lingerBubble runs an outbox in virtual time and compares what it has committed.
func lingerBubble(t *testing.T, name string, took time.Duration, want []sent, do func(t *testing.T, b *box)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBox(publisherConfig{linger: 2 * time.Millisecond, queued: 10_000}, took)
			synctest.Wait() // it is idle
			do(t, b)
			time.Sleep(time.Second)
			require.Equal(t, want, b.end())
		})
	})
}

// TestLinger: a message waits two milliseconds for company, or until there are 64 of
// them, or 256 KiB; what comes during a commit shares the next one at once.
func TestLinger(t *testing.T) {
	const ms = time.Millisecond
	lingerBubble(t, "one", 0, []sent{{2 * ms, 1}}, func(t *testing.T, b *box) { b.add(t, 1, 1, "") })
	lingerBubble(t, "some", 0, []sent{{2 * ms, 3}}, func(t *testing.T, b *box) {
		b.add(t, 1, 1, "")
		time.Sleep(ms)
		b.add(t, 2, 1, "")
	})
	lingerBubble(t, "enough", 0, []sent{{ms, lingerMessages}}, func(t *testing.T, b *box) {
		b.add(t, lingerMessages-1, 1, "")
		time.Sleep(ms)
		b.add(t, 1, 1, "")
	})
	lingerBubble(t, "enough bytes", 0, []sent{{0, 1}}, func(t *testing.T, b *box) { b.add(t, 1, recordBytesMax, "") })
	lingerBubble(t, "during a commit", 10*ms, []sent{{2 * ms, 1}, {12 * ms, 7}}, func(t *testing.T, b *box) {
		b.add(t, 1, 1, "")
		time.Sleep(5 * ms)
		b.add(t, 7, 1, "")
	})
	lingerBubble(t, "dedup ids", ms, []sent{{2 * ms, 2}, {3 * ms, 1}, {4 * ms, 2}}, func(t *testing.T, b *box) {
		b.add(t, 2, 1, "")
		b.add(t, 1, 1, "x")
		b.add(t, 2, 1, "")
	})
}

// TestTake: a commit takes so many messages and bytes, and at least one.
func TestTake(t *testing.T) {
	b := &box{outbox: newOutbox(publisherConfig{queued: 10_000}, nil)}
	b.add(t, writeMessagesMax+5, 1, "")
	require.Len(t, b.take(), writeMessagesMax)
	require.Len(t, b.take(), 5)
	require.Nil(t, b.take())
	b.add(t, 3, writeBytesMax/2, "")
	b.add(t, 1, writeBytesMax, "")
	for range 4 {
		require.Len(t, b.take(), 1)
	}
	require.Zero(t, b.bytes)
}

// TestOutboxBounds: who hands over more than is bounded waits, and is told when the
// publisher closes.
func TestOutboxBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(publisherConfig{queued: 10}, time.Second)
		b.add(t, 1, 1, "")
		synctest.Wait() // it is under way
		b.add(t, 10, 1, "")
		full := &Pending{draft: &draft{}, done: make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, b.put(ctx, full), context.DeadlineExceeded)
		require.NoError(t, b.put(t.Context(), full), "there is room when the next commit begins")
		require.Equal(t, time.Second, time.Since(b.start))
		b.add(t, 9, 1, "")
		waiting := make(chan error, 1)
		go func() { waiting <- b.put(t.Context(), &Pending{draft: &draft{}, done: make(chan struct{})}) }()
		synctest.Wait()
		b.close()
		require.ErrorIs(t, <-waiting, ErrClosed)
		b.end()
		<-full.done
		require.ErrorIs(t, full.err, ErrClosed)
	})
}
