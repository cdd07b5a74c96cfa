package auth

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAttempts(t *testing.T) {
	now := time.Unix(0, 0)
	a := NewAttempts()
	guesser, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for range wrongBurstMax {
		require.True(t, a.Allow(guesser, now))
		a.Wrong(guesser, now)
	}
	require.False(t, a.Allow(guesser, now))
	require.False(t, a.Allow(netip.MustParseAddr("::ffff:192.0.2.1"), now), "it is the same one")
	require.True(t, a.Allow(other, now))
	// In the long run there is one guess each so often, however long it was silent before.
	for range 10 {
		now = now.Add(wrongForgiven)
		require.True(t, a.Allow(guesser, now))
		a.Wrong(guesser, now)
		require.False(t, a.Allow(guesser, now))
	}
	now = now.Add(time.Hour)
	for range wrongBurstMax {
		require.True(t, a.Allow(guesser, now))
		a.Wrong(guesser, now)
	}
	require.False(t, a.Allow(guesser, now))

	// Who has a network of IPv6 is one.
	a.Wrong(netip.MustParseAddr("2001:db8:0:1::1"), now)
	require.Positive(t, a.debt(site(netip.MustParseAddr("2001:db8:0:1:ffff::2")), now))
	require.Zero(t, a.debt(site(netip.MustParseAddr("2001:db8:0:2::1")), now))
}

// A crowd of addresses takes bounded memory, and does not soon make the one be
// forgotten that guesses all the time.
func TestAttemptsAreBounded(t *testing.T) {
	now := time.Unix(0, 0)
	a := NewAttempts()
	guesser := netip.MustParseAddr("192.0.2.1")
	for range wrongBurstMax {
		a.Wrong(guesser, now)
	}
	for i := range 3 * addressesMax {
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], 10<<24+uint32(i))
		a.Wrong(netip.AddrFrom4(ip), now)
		require.LessOrEqual(t, len(a.recent)+len(a.older), addressesMax)
		if i%(addressesMax/4) == 0 {
			require.False(t, a.Allow(guesser, now))
			a.Wrong(guesser, now)
		}
	}
}
