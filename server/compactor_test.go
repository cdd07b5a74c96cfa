package server

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseRetention(t *testing.T) {
	for _, c := range []struct {
		mode, value string
		want        retention
		err         string
	}{
		{"periodic", "0", retention{}, ""},
		{"periodic", "2", retention{period: 2 * time.Hour}, ""},
		{"periodic", "30m", retention{period: 30 * time.Minute}, ""},
		{"periodic", "soon", retention{}, "is not a duration"},
		{"periodic", "-1h", retention{}, "is not a duration"},
		{"revision", "1000", retention{revisions: 1000}, ""},
		{"revision", "1h", retention{}, "is not a number of revisions"},
		{"daily", "1", retention{}, "neither"},
	} {
		got, err := parseRetention(c.mode, c.value)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, "%s %s", c.mode, c.value)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

func TestCompactorTargets(t *testing.T) {
	start := time.Unix(1000, 0)

	t.Run("keeps the last revisions", func(t *testing.T) {
		c := compactor{keep: retention{revisions: 100}, historyBytes: 1 << 20}
		require.Zero(t, c.target(start, 90, -1, 0), "nothing to cut yet")
		require.EqualValues(t, 400, c.target(start, 500, -1, 0))
		require.Zero(t, c.target(start, 500, 400, 0), "already cut")
	})

	t.Run("keeps a period", func(t *testing.T) {
		c := compactor{keep: retention{period: time.Hour}, historyBytes: 1 << 20}
		revision := int64(1)
		for minute := range 60 {
			require.Zero(t, c.target(start.Add(time.Duration(minute)*time.Minute), revision, -1, 0))
			revision += 10
		}
		got := c.target(start.Add(61*time.Minute), revision, -1, 0)
		require.EqualValues(t, 11, got, "the revision of one hour ago, not a later one")
		require.LessOrEqual(t, len(c.samples), samplesMax+1)
	})

	t.Run("cuts half when history is too large", func(t *testing.T) {
		c := compactor{historyBytes: 1000}
		require.Zero(t, c.target(start, 500, 100, 1000))
		require.EqualValues(t, 300, c.target(start, 500, 100, 1001))
	})
}
