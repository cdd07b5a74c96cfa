package server

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Whoever asks hears of the first absence that lasts long enough, however many
// leaders have come and gone since.
func TestAbsenceOfALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 3 * time.Second
		var l leadership
		l.init(patience)
		defer l.close()
		pass := func(d time.Duration) {
			time.Sleep(d) // virtual
			synctest.Wait()
		}
		first := l.absence()
		pass(patience - time.Millisecond)
		require.False(t, closed(first))
		l.found()
		pass(time.Hour)
		require.False(t, closed(first), "there is a leader")

		l.lost()
		pass(time.Second)
		l.lost()
		pass(2 * time.Second)
		require.True(t, closed(first), "a second word of the loss does not start the wait anew")
		require.True(t, closed(l.absence()))

		l.found()
		second := l.absence()
		require.False(t, closed(second))
		l.lost()
		pass(patience)
		require.True(t, closed(second))
	})
}
