package clienttest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

func testLeaseLife(t *testing.T, h *harness) {
	lease, err := h.c.Grant(h.ctx, 59*time.Second+time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, time.Minute, lease.TTL, "rounded up to seconds")
	h.put("a", "1", client.WithLease(lease.ID))
	h.put("b", "1", client.WithLease(lease.ID))
	_, err = h.c.Put(h.ctx, "b", []byte("2"), client.KeepLease())
	require.NoError(t, err)
	h.put("c", "1", client.WithLease(lease.ID))
	h.put("c", "2")

	info, err := h.c.TimeToLive(h.ctx, lease.ID)
	require.NoError(t, err)
	require.Equal(t, lease.ID, info.ID)
	require.Equal(t, time.Minute, info.Granted)
	require.LessOrEqual(t, info.TTL, time.Minute)
	require.Equal(t, []string{"a", "b"}, info.Keys)
	ids, err := h.c.Leases(h.ctx)
	require.NoError(t, err)
	require.Contains(t, ids, lease.ID)
	again, err := h.c.KeepAliveOnce(h.ctx, lease.ID)
	require.NoError(t, err)
	require.Equal(t, lease, again)

	require.NoError(t, h.c.Revoke(h.ctx, lease.ID))
	require.Equal(t, "c", h.keys("", client.Prefix()), "keys end with their lease; c had lost it")
	ids, err = h.c.Leases(h.ctx)
	require.NoError(t, err)
	require.NotContains(t, ids, lease.ID)
}

func testLeaseErrors(t *testing.T, h *harness) {
	const none = 0x1234
	_, err := h.c.TimeToLive(h.ctx, none)
	require.ErrorIs(t, err, client.ErrLeaseNotFound)
	_, err = h.c.KeepAliveOnce(h.ctx, none)
	require.ErrorIs(t, err, client.ErrLeaseNotFound)
	require.ErrorIs(t, h.c.Revoke(h.ctx, none), client.ErrLeaseNotFound)
	_, err = h.c.Grant(h.ctx, 9_100_000_000*time.Second)
	require.ErrorIs(t, err, client.ErrLeaseTTLTooLarge)
}

func testSessionKeys(t *testing.T, h *harness) {
	s, err := h.c.Session(h.ctx)
	require.NoError(t, err)
	same, err := h.c.Namespace("other/").Session(h.ctx)
	require.NoError(t, err)
	require.Same(t, s, same, "views share the client's session")
	require.Equal(t, client.Active, s.State())
	require.Greater(t, s.Remaining(), s.TTL()/2)
	require.NoError(t, s.Err())

	other, err := h.c.NewSession(h.ctx, client.SessionTTL(20*time.Second))
	require.NoError(t, err)
	require.NotEqual(t, s.ID(), other.ID())
	require.Equal(t, 20*time.Second, other.TTL())
	h.put("own", "", client.WithLease(s.ID()))
	h.put("other", "", client.WithLease(other.ID()))

	require.NoError(t, other.Close(h.ctx))
	require.NoError(t, other.Close(h.ctx))
	require.Equal(t, client.Lost, other.State())
	require.Zero(t, other.Remaining())
	require.ErrorIs(t, other.Err(), client.ErrSessionClosed)
	require.NotErrorIs(t, other.Err(), client.ErrSessionLost)
	require.Equal(t, "own", h.keys("", client.Prefix()))

	// The client's session ends with the client.
	leaving := h.client(client.Config{})
	s, err = leaving.Session(h.ctx)
	require.NoError(t, err)
	h.put("leaving", "", client.WithLease(s.ID()))
	require.NoError(t, leaving.Close())
	require.ErrorIs(t, context.Cause(s.Context()), client.ErrClosed)
	require.Equal(t, "own", h.keys("", client.Prefix()))
	_, err = leaving.Session(h.ctx)
	require.ErrorIs(t, err, client.ErrClosed)
}

func testSessionRevoked(t *testing.T, h *harness) {
	c := h.client(client.Config{SessionTTL: 2 * time.Second})
	s, err := c.Session(h.ctx)
	require.NoError(t, err)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	select {
	case <-s.Context().Done():
	case <-h.ctx.Done():
		t.Fatal("the loss was not noticed")
	}
	cause := context.Cause(s.Context())
	require.ErrorIs(t, cause, client.ErrSessionLost)
	require.ErrorIs(t, cause, client.ErrSessionRevoked)
	var lost *client.SessionError
	require.ErrorAs(t, cause, &lost)
	require.Equal(t, s.ID(), lost.ID)

	next, err := c.Session(h.ctx)
	require.NoError(t, err)
	require.NotEqual(t, s.ID(), next.ID(), "the client makes itself a new session")
	require.Equal(t, client.Active, next.State())
}

// testSessionOutlivesTTL proves that renewals arrive: a key of a session with a TTL of two seconds is there for longer
// than a key whose lease nobody renews.
func testSessionOutlivesTTL(t *testing.T, h *harness) {
	s, err := h.c.NewSession(h.ctx, client.SessionTTL(2*time.Second))
	require.NoError(t, err)
	abandoned, err := h.c.Grant(h.ctx, 4*time.Second)
	require.NoError(t, err)
	h.put("kept", "", client.WithLease(s.ID()))
	rev := h.put("abandoned", "", client.WithLease(abandoned.ID))
	for ev, err := range h.c.Watch(h.ctx, "", client.Prefix(), client.FromRevision(rev+1)) {
		require.NoError(t, err)
		require.Equal(t, client.EventDelete, ev.Type)
		require.Equal(t, "abandoned", ev.KV.Key)
		break
	}
	require.Equal(t, client.Active, s.State())
	require.Equal(t, "kept", h.keys("", client.Prefix()))
	require.NoError(t, s.Close(h.ctx))
}
