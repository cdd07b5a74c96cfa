package watch

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// While the machine is replaced, nobody reads the archive; who did before is judged by what was published before.
func TestReplace(t *testing.T) {
	w := newWorld(1000, smallLimits())
	for range 600 {
		w.apply(put("a", "value"))
	}
	w.checkpoint(0)
	s := w.hub.NewStream()
	defer s.Close()
	_, _, err := s.Create(Request{Range: Range{Start: "a"}, Start: 2})
	require.NoError(t, err)
	replaced := make(chan error)
	var order []string
	w.archive.during = func() {
		go func() {
			replaced <- w.hub.Replace(func() error {
				order = append(order, "replaced")
				w.compact(500)
				return errBroken
			})
		}()
		order = append(order, "read")
	}
	var sink record
	more, err := s.Step(&sink)
	require.NoError(t, err)
	require.True(t, more)
	require.Len(t, sink.take(), 1, "revisions from before")
	require.ErrorIs(t, <-replaced, errBroken)
	require.Equal(t, []string{"read", "replaced"}, order)
	_, err = s.Step(&sink)
	require.NoError(t, err)
	require.Equal(t, []response{{compact: 500}}, sink.take())
}

// What is refreshed is the revision that is shown, or nothing.
func TestRefresh(t *testing.T) {
	w := newWorld(1<<20, &limits{})
	w.apply(put("a", "1"))
	earlier := w.machine.History()
	w.apply(put("a", "2"))
	w.hub.Refresh(earlier)
	require.Equal(t, int64(3), w.hub.Revision(), "a history of the past is not shown again")

	for range 3000 {
		w.apply(put("a", "3"))
	}
	w.checkpoint(0)
	w.machine.Shrink()
	require.Equal(t, int64(1), w.hub.latest.Load().history.First())
	w.hub.Refresh(w.machine.History())
	require.Greater(t, w.machine.History().First(), int64(1))
	require.Equal(t, w.machine.History().First(), w.hub.latest.Load().history.First())
	require.Equal(t, w.machine.CompactRevision(), w.hub.latest.Load().compact)
}
