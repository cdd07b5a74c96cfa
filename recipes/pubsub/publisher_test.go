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

// TestLinger: a message waits two milliseconds for company, or until there are 64 of
// them, or 256 KiB; what comes during a commit shares the next one at once.
func TestLinger(t *testing.T) {
	conf := publisherConfig{linger: 2 * time.Millisecond, queued: 10_000}
	for name, c := range map[string]struct {
		took time.Duration
		do   func(t *testing.T, b *box)
		want []sent
	}{
		"one": {0, func(t *testing.T, b *box) { b.add(t, 1, 1, "") }, []sent{{2 * time.Millisecond, 1}}},
		"some": {0, func(t *testing.T, b *box) {
			b.add(t, 1, 1, "")
			time.Sleep(time.Millisecond)
			b.add(t, 2, 1, "")
		}, []sent{{2 * time.Millisecond, 3}}},
		"enough": {0, func(t *testing.T, b *box) {
			b.add(t, lingerMessages-1, 1, "")
			time.Sleep(time.Millisecond)
			b.add(t, 1, 1, "")
		}, []sent{{time.Millisecond, lingerMessages}}},
		"enough bytes": {0, func(t *testing.T, b *box) { b.add(t, 1, recordBytesMax, "") }, []sent{{0, 1}}},
		"during a commit": {10 * time.Millisecond, func(t *testing.T, b *box) {
			b.add(t, 1, 1, "")
			time.Sleep(5 * time.Millisecond)
			b.add(t, 7, 1, "")
		}, []sent{{2 * time.Millisecond, 1}, {12 * time.Millisecond, 7}}},
		"more than a commit takes": {time.Millisecond, func(t *testing.T, b *box) { b.add(t, writeMessagesMax+5, 1, "") },
			[]sent{{0, writeMessagesMax}, {time.Millisecond, 5}}},
		"more bytes than a commit takes": {time.Millisecond, func(t *testing.T, b *box) { b.add(t, 3, writeBytesMax/2, "") },
			[]sent{{0, 1}, {time.Millisecond, 1}, {2 * time.Millisecond, 1}}},
		"dedup ids": {time.Millisecond, func(t *testing.T, b *box) {
			b.add(t, 2, 1, "")
			b.add(t, 1, 1, "x")
			b.add(t, 2, 1, "")
		}, []sent{{2 * time.Millisecond, 2}, {3 * time.Millisecond, 1}, {4 * time.Millisecond, 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox(conf, c.took)
				c.do(t, b)
				time.Sleep(time.Second)
				require.Equal(t, c.want, b.end())
			})
		})
	}
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
