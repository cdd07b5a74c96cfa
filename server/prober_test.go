package server

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRoundTripsAreMeasured(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	members := threeMembers(t)
	m := members[0]
	for _, other := range members[1:] {
		for !m.alive(other.ID()) { // the last of the connections may still be on its way
			require.NoError(t, ctx.Err())
		}
	}
	m.probeAll(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.listeners.client[0].Addr().String()+"/metrics", nil)
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	http.DefaultClient.CloseIdleConnections()
	for _, other := range members[1:] {
		require.True(t, strings.Contains(string(text), `etcd_network_peer_round_trip_time_seconds_count{To="`+hex(other.ID())+`"} 1`), string(text))
	}
}
