package pubsub

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLineEndsWithItsWorker has a worker lose its partition under a handler, in the moment before its reading stops:
// the next message of the key is not handled, since the one before it was not.
func TestLineEndsWithItsWorker(t *testing.T) {
	var calls int
	m := &member{busy: make(chan struct{}, 1)}
	w := newWorker(m, 0, 1, 0)
	w.ctx, w.cancel = context.WithCancelCause(t.Context())
	w.reading, w.stop = context.WithCancel(t.Context())
	defer w.stop()
	m.handle = func(ctx context.Context, _ *delivery) error {
		calls++
		w.cancel(ErrLost)
		return ctx.Err()
	}
	line := &lineup{queue: []*delivery{{message: &message{}, worker: w}, {message: &message{}, worker: w}}}
	w.handlers.Add(1)
	w.serve(line, "k")
	require.Equal(t, 1, calls)
}
