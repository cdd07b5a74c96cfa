package lock

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// A value that some other client wrote is not an error.
func TestContenderOwner(t *testing.T) {
	require.Equal(t, "me", contenderOf(client.KV{Value: []byte(`{"owner":"me"}`)}).Owner)
	for _, value := range []string{"", "text", `{"owner":7}`, `[]`} {
		require.Empty(t, contenderOf(client.KV{Value: []byte(value)}).Owner, "%q", value)
	}
}
