package sequence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// TestReaderOnServer writes from several clients while readers page, are told that
// their revision is compacted, and watch: all of them see the order of commits.
func TestReaderOnServer(t *testing.T) {
	const writers, each, readers = 4, 600, 3
	endpoints := servertest.One(t).Endpoints()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dial := func() *client.Client {
		c, err := client.New(client.Config{Endpoints: endpoints})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return c
	}
	l := Log{Lanes: []string{"l/0/", "l/1/"}, Floor: "l/floor", Under: "l/"}
	c := dial()
	_, err := c.Txn().If(client.Missing(l.Floor)).Then(l.Create()).Commit(ctx)
	require.NoError(t, err)
	require.ErrorIs(t, readAll(ctx, dial(), Log{Lanes: l.Lanes, Floor: "none", Under: "l/"}, 1, nil), ErrMissing)

	var mu sync.Mutex
	var want []Entry
	write := func(c *client.Client, n int) error {
		mint := NewMint()
		for i := range each {
			lane := (n + i) % len(l.Lanes)
			seen := c.Seen()
			if n == 0 { // who sees nothing of the others for long
				seen = max(1, seen/64*64-1)
			}
			id := mint.Next(seen, 1)
			compares, put := l.Append(l.Lanes[lane], id, "", []byte(id.String()))
			res, err := c.Txn().If(compares...).Then(put).Commit(ctx)
			if err != nil || !res.Succeeded {
				return fmt.Errorf("append %s: %v, %v", id, res, err)
			}
			mu.Lock()
			want = append(want, Entry{Lane: lane, ID: id, Value: []byte(id.String()), Revision: res.Revision})
			mu.Unlock()
			if i%200 == 100 {
				if err := c.Compact(ctx, res.Revision); err != nil && !errors.Is(err, client.ErrCompacted) {
					return err
				}
				bound := []byte(Bound(res.Revision - 500))
				raise := c.Txn().If(client.Value(l.Floor).Less(bound)).Then(client.OpPut(l.Floor, bound))
				if _, err := raise.Commit(ctx); err != nil {
					return err
				}
			}
		}
		return nil
	}
	errs := make(chan error, writers+readers)
	got := make([][]Entry, readers)
	for n := range writers {
		c := dial()
		go func() { errs <- write(c, n) }()
	}
	for i := range readers {
		c := dial()
		go func() {
			errs <- readAll(ctx, c, l, writers*each, func(e Entry) { got[i] = append(got[i], e) })
		}()
	}
	for range writers + readers {
		require.NoError(t, <-errs)
	}
	slices.SortFunc(want, compareEntries)
	for i := range got {
		require.Equal(t, want, got[i], "reader %d", i)
	}
}

// readAll reads n entries.
func readAll(ctx context.Context, c *client.Client, l Log, n int, each func(Entry)) error {
	r := NewReader(c, l)
	r.history = 50 // so that it reads pages again and again
	for b, err := range r.Read(ctx, Position{}) {
		if err != nil {
			return err
		}
		for _, e := range b.Entries {
			each(e)
			if n--; n == 0 {
				return nil
			}
		}
	}
	return nil
}
