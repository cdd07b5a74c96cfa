package pubsub

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// TestHistory adds and cuts segments at random: no less than each bound is kept, and
// no more than it and a segment.
func TestHistory(t *testing.T) {
	for seed := range 300 {
		r := rand.New(rand.NewSource(int64(seed)))
		bounds := Retention{}
		if r.Intn(2) == 0 {
			bounds.Messages = 1 + r.Int63n(5000)
		}
		if r.Intn(2) == 0 {
			bounds.Bytes = 1 + r.Int63n(500_000)
		}
		if r.Intn(2) == 0 {
			bounds.Age = time.Duration(1+r.Intn(1000)) * time.Second
		}
		bounds.Interest = r.Intn(2) == 0
		var h history
		var all []segment
		now, handled, biggest := int64(1000), client.Revision(0), segment{}
		for i := range 600 {
			now += r.Int63n(20_000)
			s := segment{
				Until: client.Revision(i*10 + 10), At: now, Floor: fmt.Sprint(i),
				Messages: r.Int63n(200), Bytes: r.Int63n(20_000),
			}
			all = append(all, s)
			h.add(s)
			if r.Intn(3) == 0 {
				handled = max(handled, client.Revision(r.Intn(i*10+11)))
			}
			h.cut(bounds, now, handled)
			require.LessOrEqual(t, len(h.Segments), segmentsMax)
			for _, s := range h.Segments {
				biggest.Messages, biggest.Bytes = max(biggest.Messages, s.Messages), max(biggest.Bytes, s.Bytes)
			}
			checkCut(t, bounds, h, all, now, handled, biggest)
		}
		if bounds == (Retention{}) {
			require.Zero(t, h.Trimmed, "nothing is cut without a bound")
		}
	}
}

// checkCut compares a history with all that there ever was.
func checkCut(t *testing.T, r Retention, h history, all []segment, now int64, handled client.Revision, biggest segment) {
	t.Helper()
	var kept, gone segment // sums
	for _, s := range all {
		sum := &gone
		if s.Until > h.Trimmed.Until {
			sum = &kept
		}
		sum.Messages += s.Messages
		sum.Bytes += s.Bytes
		sum.At = s.At
	}
	var told segment
	for _, s := range h.Segments {
		told.Messages += s.Messages
		told.Bytes += s.Bytes
	}
	require.Equal(t, [2]int64{kept.Messages, kept.Bytes}, [2]int64{told.Messages, told.Bytes}, "nothing is forgotten or told twice")
	if h.Trimmed.Until > 0 {
		// Whatever was cut was beyond a bound.
		over := r.Messages > 0 && kept.Messages >= r.Messages || r.Bytes > 0 && kept.Bytes >= r.Bytes ||
			r.Age > 0 && h.Trimmed.At+r.Age.Milliseconds() <= now || r.Interest && h.Trimmed.Until <= handled
		require.True(t, over, "%+v", h.Trimmed)
	}
	if r.Messages > 0 && len(h.Segments) > 0 {
		require.Less(t, kept.Messages, r.Messages+biggest.Messages)
	}
	if r.Bytes > 0 && len(h.Segments) > 0 {
		require.Less(t, kept.Bytes, r.Bytes+biggest.Bytes)
	}
	if r.Age > 0 && len(h.Segments) > 0 {
		require.Greater(t, h.Segments[0].At+r.Age.Milliseconds(), now)
	}
	if r.Interest && len(h.Segments) > 0 {
		require.Greater(t, h.Segments[0].Until, handled)
	}
}

// What is handled stays as long as a bound is not exceeded, and the places to start
// from are those of the segments.
func TestHistoryBefore(t *testing.T) {
	h := history{Trimmed: segment{Until: 5, Floor: "t"}}
	for i := range 4 {
		h.add(segment{Until: client.Revision(10 * (i + 1)), At: int64(1000 * i), Floor: fmt.Sprint(i), Messages: 10})
	}
	at := func(rev client.Revision) string {
		return h.before(func(s segment) bool { return s.Until <= rev }).Floor
	}
	require.Equal(t, []string{"t", "t", "0", "2", "3"}, []string{at(1), at(9), at(10), at(39), at(1000)})
	h.cut(Retention{Messages: 20}, 0, 0)
	require.Len(t, h.Segments, 2)
	require.Equal(t, "1", h.Trimmed.Floor)
}

// A pass is made every ten seconds, or after half of one when a quarter of a bound
// was published here meanwhile.
func TestPassDue(t *testing.T) {
	pause, short := trimPause.Milliseconds(), trimPauseMin.Milliseconds()
	for _, c := range []struct {
		r               Retention
		since           int64 // of the latest pass
		messages, bytes int64
		apart           time.Duration
		due             bool
	}{
		{Retention{Age: time.Hour}, pause - 1, 1 << 40, 1 << 40, 0, false},
		{Retention{Age: time.Hour}, pause, 0, 0, trimPause - time.Second, true},
		{Retention{Messages: 100}, pause - 1, 25, 1 << 40, 0, false},
		{Retention{Messages: 100}, short, 26, 0, trimPauseMin, true},
		{Retention{Messages: 100}, short - 1, 26, 0, 0, false},
		{Retention{Bytes: 100}, short, 1 << 40, 26, trimPauseMin, true},
		{Retention{}, pause, 0, 0, trimPause - time.Second, true},
	} {
		apart, due := passDue(c.r, 1_000_000+c.since, 1_000_000+pause, c.messages, c.bytes)
		require.Equal(t, c.due, due, "%+v", c)
		if due {
			require.Equal(t, c.apart, apart, "%+v", c)
		}
	}
}
