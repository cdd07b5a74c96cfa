package clienttest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// Every member has the same hash at the same revision.
func testHash(t *testing.T, h *harness) {
	rev := h.put("k", "1")
	h.put("k", "2")
	hashes := map[uint32]bool{}
	for _, e := range h.endpoints {
		for {
			got, err := h.c.HashKV(h.ctx, e, rev)
			if errors.Is(err, client.ErrFutureRevision) {
				require.NoError(t, h.ctx.Err()) // this member is behind
				continue
			}
			require.NoError(t, err)
			require.Equal(t, e, got.Endpoint)
			require.Equal(t, rev, got.Revision)
			require.NotZero(t, got.MemberID)
			hashes[got.Hash] = true
			break
		}
		require.NoError(t, h.c.Defragment(h.ctx, e))
	}
	require.Len(t, hashes, 1)
	_, err := h.c.HashKV(h.ctx, h.endpoints[0], rev+1000)
	require.ErrorIs(t, err, client.ErrFutureRevision)
	require.ErrorIs(t, h.c.Defragment(h.ctx, "127.0.0.1:1"), client.ErrInvalid)
}

// A snapshot is whole, and ends with its checksum; an error of the writer is the caller's own.
func testSnapshot(t *testing.T, h *harness) {
	h.put("k", "what was written last")
	var b bytes.Buffer
	n, err := h.c.Snapshot(h.ctx, &b)
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), n)
	body, sum := b.Bytes()[:b.Len()-sha256.Size], b.Bytes()[b.Len()-sha256.Size:]
	want := sha256.Sum256(body)
	require.Equal(t, want[:], sum)
	require.Zero(t, len(body)%512)
	_, err = h.c.Snapshot(h.ctx, failing{})
	require.Equal(t, errFull, err)
}

var errFull = errors.New("no space left")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }

func testAlarms(t *testing.T, h *harness) {
	alarms, err := h.c.Alarms(h.ctx)
	require.NoError(t, err)
	require.Empty(t, alarms)
	require.NoError(t, h.c.Disarm(h.ctx, client.Alarm{Member: 1, Type: client.AlarmNoSpace}), "none is on")
	require.Equal(t, "CORRUPT", client.AlarmCorrupt.String())
}
