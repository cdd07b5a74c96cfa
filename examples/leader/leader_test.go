package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The whole story, as `go run ./examples/leader` shows it.
func TestLeader(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), out.String())
	for _, line := range []string{"to hand over to", "steps down", "nobody leads", "is lost", "served once"} {
		require.Contains(t, out.String(), line)
	}
}
