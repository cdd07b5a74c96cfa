package server

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestManyCommandsAreCheckpointedEarly: the keeper is woken once its bound is reached, and not before.
func TestManyCommandsAreCheckpointedEarly(t *testing.T) {
	k := &keeper{full: make(chan struct{}, 1)}
	k.note(keepBytes - 1)
	require.Empty(t, k.full)
	k.note(1)
	k.note(keepBytes) // it is not waited for
	require.Len(t, k.full, 1)
}
