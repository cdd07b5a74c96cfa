package clienttest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

var errGone = errors.New("gone")

// A transaction of Begin commits once, tells a conflict from a guard that does not hold, and is over then.
func testBegin(t *testing.T, h *harness) {
	h.put("a", "1")
	tx := h.c.Begin(h.ctx)
	kv, err := tx.Get("a")
	require.NoError(t, err)
	tx.Put("b", append(kv.Value, '2'))
	var hooked client.Revision
	tx.AfterCommit(func(rev client.Revision) { hooked = rev })
	tx.BeforeCommit(func() error { tx.Put("c", []byte("3")); return nil })
	require.Equal(t, 1, tx.Len())
	rev, err := tx.Commit(h.ctx)
	require.NoError(t, err)
	require.Equal(t, hooked, rev)
	require.Equal(t, "12", h.value("b"))
	require.Equal(t, "3", h.value("c"))
	require.GreaterOrEqual(t, h.c.Seen(), rev)
	_, err = tx.Commit(h.ctx)
	require.ErrorContains(t, err, "has ended")

	tx = h.c.Begin(h.ctx)
	_, err = tx.Get("a")
	require.NoError(t, err)
	tx.Delete("b")
	h.put("a", "2")
	_, err = tx.Commit(h.ctx)
	require.ErrorIs(t, err, client.ErrConflict)

	tx = h.c.Begin(h.ctx)
	tx.Delete("b")
	tx.Require(errGone, client.Missing("a"))
	_, err = tx.Commit(h.ctx)
	require.ErrorIs(t, err, errGone)
	require.ErrorIs(t, err, client.ErrGuardFailed)
	require.Equal(t, "12", h.value("b"))

	require.NoError(t, h.c.Update(h.ctx, func(tx *client.Tx) error {
		_, err := tx.Commit(h.ctx)
		require.ErrorContains(t, err, "by who runs it")
		return nil
	}))
}
