package queue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestScheduleNext(t *testing.T) {
	for _, c := range []struct{ spec, from, want string }{
		{"* * * * *", "2026-02-28T23:59:30Z", "2026-03-01T00:00:00Z"},
		{"*/15 * * * *", "2026-01-01T10:15:00Z", "2026-01-01T10:30:00Z"},
		{"5,50 8-10 * * *", "2026-01-01T10:50:00Z", "2026-01-02T08:05:00Z"},
		{"0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"30 6 * * mon-fri", "2026-01-02T06:30:00Z", "2026-01-05T06:30:00Z"}, // a Friday
		{"0 12 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T12:00:00Z"},    // either
		{"0 12 */2 * 5", "2026-01-01T00:00:00Z", "2026-01-09T12:00:00Z"},     // both, as a star is no restriction
		{"0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"},
		{"10/20 0 1 jan,jul *", "2026-01-01T00:10:00Z", "2026-01-01T00:30:00Z"},
		{"@monthly", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z"},
		{"@every 90s", "1970-01-01T00:01:30Z", "1970-01-01T00:03:00Z"},
		{"@every 1h", "2026-01-01T10:00:01Z", "2026-01-01T11:00:00Z"},
		{"TZ=Europe/Berlin 30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"}, // 02:30 is left out on the 29th
		{"TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		{"TZ=Europe/Berlin 30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}, // not at the second 02:30
	} {
		s, err := ParseSchedule(c.spec)
		require.NoError(t, err, c.spec)
		from, err := time.Parse(time.RFC3339, c.from)
		require.NoError(t, err)
		require.Equal(t, c.want, s.Next(from).UTC().Format(time.RFC3339), "%s after %s", c.spec, c.from)
	}
}

func TestScheduleErrors(t *testing.T) {
	for _, spec := range []string{
		"", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *",
		"*/0 * * * *", "a * * * *", "0 0 30 2 *", "@every 10ms", "@every x", "@fortnightly", "TZ=Nowhere/Else * * * * *", "1- * * * *",
	} {
		_, err := ParseSchedule(spec)
		require.Error(t, err, "%q", spec)
	}
}
