package server

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Many senders, one receiver that only ever waits for the wake-up: every value
// arrives, and those of one sender in order.
func TestMailboxLosesNothing(t *testing.T) {
	type item struct{ from, n int }
	const senders, each = 8, 2000
	m := newMailbox[item]()
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for n := range each {
				m.put(item{s, n})
			}
		})
	}
	next := make([]int, senders)
	var spare []item
	for got := 0; got < senders*each; {
		<-m.wake
		items := m.take(spare)
		for _, it := range items {
			require.Equal(t, next[it.from], it.n, "sender %d", it.from)
			next[it.from]++
		}
		got += len(items)
		spare = items
	}
	wg.Wait()
	require.Empty(t, m.take(nil))
}
