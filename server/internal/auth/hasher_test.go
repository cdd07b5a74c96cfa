package auth

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

func TestHasher(t *testing.T) {
	h := NewHasher(CostMin)
	hash, err := h.Hash(t.Context(), "secret")
	require.NoError(t, err)
	cost, err := bcrypt.Cost(hash)
	require.NoError(t, err)
	require.Equal(t, CostMin, cost)
	for password, want := range map[string]bool{"secret": true, "other": false, "": false} {
		ok, err := h.Matches(t.Context(), hash, password)
		require.NoError(t, err)
		require.Equal(t, want, ok)
		ok, err = h.Matches(t.Context(), nil, password)
		require.NoError(t, err)
		require.False(t, ok)
	}
	_, err = h.Hash(t.Context(), strings.Repeat("x", 73))
	require.Error(t, err)
	// A user who does not exist takes the same work as one who does.
	cost, err = bcrypt.Cost(h.nobody)
	require.NoError(t, err)
	require.Equal(t, CostMin, cost)
	require.ErrorIs(t, bcrypt.CompareHashAndPassword(h.nobody, []byte("x")), bcrypt.ErrMismatchedHashAndPassword)
}

// So many may wait and no more, and who does not want to wait any longer is let go.
func TestHasherIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHasher(CostMin)
		for range cap(h.slots) {
			require.NoError(t, h.enter(t.Context()))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results := make(chan error, hashQueueMax)
		for range hashQueueMax {
			go func() {
				_, err := h.Matches(ctx, nil, "x")
				results <- err
			}()
		}
		synctest.Wait()
		_, err := h.Hash(t.Context(), "x")
		require.ErrorIs(t, err, ErrBusy)
		for range hashQueueMax {
			require.ErrorIs(t, <-results, context.DeadlineExceeded)
		}
		h.leave()
		_, err = h.Hash(t.Context(), "x")
		require.NoError(t, err)
	})
}
