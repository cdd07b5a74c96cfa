package sim

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// rotted is a member that was killed with a log of several batches, and the one file of its log.
func rotted(t *testing.T) (n *node, file string, content []byte) {
	s := &sim{Options: Draw(1), load: true, rng: newRand(1)}
	s.Faults, s.Network = Faults{}, Network{Delay: s.Delay}
	s.boot()
	t.Cleanup(func() {
		for _, n := range s.nodes {
			n.kill()
		}
	})
	s.runUntil(4 * electionTimeout) // an election leaves batches
	n = s.nodes[0]
	n.kill()
	file = n.disk.Names()[0]
	content, err := n.disk.ReadFile(file)
	require.NoError(t, err)
	n.rot = &rot{sound: n.disk.Clone(1), file: file}
	return n, file, content
}

// damage changes the member's log and starts it.
func damage(t *testing.T, n *node, file string, content []byte, at int) *Violation {
	n.rot.offset = int64(at)
	require.NoError(t, n.disk.WriteFile(file, content))
	return caught(n.start)
}

// TestRotOracle holds recovery against damage by hand: what is refused and what is not there any more are told apart.
func TestRotOracle(t *testing.T) {
	const sector = 512
	n, file, content := rotted(t)
	content[2*sector] ^= 1
	require.Nil(t, damage(t, n, file, content, 2*sector))
	require.True(t, n.lost)
	require.False(t, n.up)
	n.restart()
	require.False(t, n.up, "a member that lost its log came back")

	n, file, content = rotted(t)
	content[2*sector] ^= 1
	v := damage(t, n, file, content, sector)
	require.NotNil(t, v, "recovery named damage behind the place where it is")
	require.Equal(t, "log", v.Oracle)

	n, file, content = rotted(t)
	content[len(content)-1] = 0 // as it was
	require.Nil(t, damage(t, n, file, content, len(content)-1))
	require.True(t, n.up)

	n, file, content = rotted(t)
	last := len(content) - sector
	for content[last] == 0 {
		last -= sector
	}
	clear(content[last : last+sector]) // a batch vanishes without a trace, as README.md of the log says it can
	v = damage(t, n, file, content, last)
	require.NotNil(t, v, "a batch was lost, and nobody said so")
	require.Equal(t, "log", v.Oracle)
}
