package server_test

import (
	"context"
	"testing"
	"time"
)

// until asks again and again: nothing signals what a member decides by its own
// clock.
func until(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, context.Cause(ctx))
		}
	}
}
