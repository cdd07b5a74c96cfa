package server

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhoCampaignsFirst: whoever has led, one of the others campaigns at once, and no two at the same time.
func TestWhoCampaignsFirst(t *testing.T) {
	members := []uint64{10, 20, 30, 40, 50}
	for _, leader := range members {
		var ticks []int
		for i, id := range members {
			if id != leader {
				s := suspicion{leader: leader, elder: members[:i]}
				ticks = append(ticks, s.campaignTick())
			}
		}
		require.Equal(t, []int{2, 5, 8, 11}, ticks, leader)
	}
}
