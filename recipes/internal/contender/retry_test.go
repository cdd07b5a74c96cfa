package contender

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// The pauses double, up to a bound, and nothing is repeated that trying again does
// not cure.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		final := errors.New("no")
		var at []time.Duration
		start := time.Now()
		err := Retry(t.Context(), func() error {
			at = append(at, time.Since(start))
			if len(at) == 12 {
				return final
			}
			return client.ErrUnavailable
		})
		require.Equal(t, final, err)
		for i := 1; i < len(at); i++ {
			require.Equal(t, min(retryMax, retryMin<<(i-1)), at[i]-at[i-1], i)
		}
		require.Equal(t, retryMax, at[11]-at[10])
		require.NoError(t, Retry(t.Context(), func() error { return nil }))
	})
}

// The end of the context ends the pause, and the last answer is what is returned.
func TestRetryEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Millisecond)
		defer cancel()
		start := time.Now()
		require.Equal(t, client.ErrUncertain, Retry(ctx, func() error { return client.ErrUncertain }))
		require.Equal(t, 12*time.Millisecond, time.Since(start))
	})
}
