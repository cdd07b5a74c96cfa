package fence_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/recipes/fence"
)

func TestGateRefusesOlderTokens(t *testing.T) {
	var g fence.Gate
	require.Zero(t, g.Newest("a"))
	require.NoError(t, g.Admit("a", 5))
	require.NoError(t, g.Admit("a", 5), "one holder writes twice")
	require.NoError(t, g.Admit("a", 9))
	err := g.Admit("a", 5)
	require.ErrorIs(t, err, fence.ErrStale)
	var stale *fence.StaleError
	require.ErrorAs(t, err, &stale)
	require.Equal(t, fence.StaleError{Resource: "a", Token: 5, Newest: 9}, *stale)
	require.NoError(t, g.Admit("b", 1), "resources do not share marks")
	require.Equal(t, fence.Token(9), g.Newest("a"))
}

func TestGateRefusesNoToken(t *testing.T) {
	var g fence.Gate
	require.ErrorIs(t, g.Admit("a", 0), fence.ErrStale)
	require.NoError(t, g.Admit("a", 1))
}

func TestGateRaiseAndForget(t *testing.T) {
	var g fence.Gate
	g.Raise("a", 7)
	g.Raise("a", 3)
	require.ErrorIs(t, g.Admit("a", 6), fence.ErrStale)
	require.NoError(t, g.Admit("a", 7))
	g.Forget("a")
	require.NoError(t, g.Admit("a", 1))
}

func TestGateReturnsTheWritesError(t *testing.T) {
	var g fence.Gate
	failed := errors.New("disk is full")
	require.ErrorIs(t, g.Do("a", 4, func() error { return failed }), failed)
	require.ErrorIs(t, g.Admit("a", 3), fence.ErrStale, "a write that failed may have happened")
	called := false
	require.ErrorIs(t, g.Do("a", 3, func() error { called = true; return nil }), fence.ErrStale)
	require.False(t, called)
}

// Whatever the schedule, the writes that get through have growing tokens: an
// older one never lands after a newer one.
func TestGateOrdersConcurrentWrites(t *testing.T) {
	const writers, each = 8, 200
	var g fence.Gate
	var written []fence.Token // protected by the gate: one write at a time
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				token := fence.Token(i*writers + w + 1)
				_ = g.Do("log", token, func() error {
					written = append(written, token)
					return nil
				})
			}
		})
	}
	wg.Wait()
	require.NotEmpty(t, written)
	for i := 1; i < len(written); i++ {
		require.Greater(t, written[i], written[i-1])
	}
	require.Equal(t, fence.Token(writers*each), written[len(written)-1])
}

func TestContextCarriesTokens(t *testing.T) {
	ctx := fence.NewContext(t.Context(), "jobs", 7)
	ctx = fence.NewContext(ctx, "mail", 9)
	token, ok := fence.FromContext(ctx, "jobs")
	require.True(t, ok)
	require.Equal(t, fence.Token(7), token)
	token, ok = fence.FromContext(ctx, "mail")
	require.True(t, ok)
	require.Equal(t, fence.Token(9), token)
	_, ok = fence.FromContext(ctx, "other")
	require.False(t, ok)
	_, ok = fence.FromContext(fence.NewContext(ctx, "jobs", 0), "jobs")
	require.False(t, ok, "zero is no token")

	ctx = fence.NewContext(fence.NewContext(ctx, "jobs", 8), "gone", 3)
	require.Equal(t, map[string]fence.Token{"jobs": 8, "mail": 9},
		maps.Collect(fence.Tokens(fence.NewContext(ctx, "gone", 0))))
	require.Empty(t, maps.Collect(fence.Tokens(t.Context())))
	for range fence.Tokens(ctx) {
		break
	}
}

// A holder that was suspended comes back after its lock has passed on. Its
// write is refused by the resource, not by itself.
func Example() {
	var gate fence.Gate
	write := func(ctx context.Context, text string) {
		token, _ := fence.FromContext(ctx, "report")
		err := gate.Do("report.txt", token, func() error { return nil })
		fmt.Printf("%s: %v\n", text, err)
	}
	slow := fence.NewContext(context.Background(), "report", 33)
	fast := fence.NewContext(context.Background(), "report", 34)
	write(slow, "first of 33")
	write(fast, "first of 34")
	write(slow, "second of 33")
	// Output:
	// first of 33: <nil>
	// first of 34: <nil>
	// second of 33: fencing token is stale: 33 for "report.txt", which has seen 34
}
