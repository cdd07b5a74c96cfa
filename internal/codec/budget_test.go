//go:build !race

package codec

// The race detector allocates for itself, so it can not keep these budgets.

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// TestAllocations holds what is allocated for messages as they are often sent: nothing to encode them into a buffer with
// room, and little to decode them.
func TestAllocations(t *testing.T) {
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			b, err := proto.Marshal(s.message)
			require.NoError(t, err)
			buf := make([]byte, 0, len(b))
			require.Zero(t, testing.AllocsPerRun(100, func() {
				if _, err := Append(buf, s.message); err != nil {
					panic(err)
				}
			}))
			m := fresh(s.message)
			require.Equal(t, s.owned, testing.AllocsPerRun(100, func() {
				if _, err := UnmarshalOwned(b, m); err != nil {
					panic(err)
				}
			}), "owned")
			require.Equal(t, s.copied, testing.AllocsPerRun(100, func() {
				if err := Unmarshal(b, m); err != nil {
					panic(err)
				}
			}), "copied")
		})
	}
}
