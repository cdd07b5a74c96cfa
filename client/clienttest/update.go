package clienttest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/latchkey-go/latchkey/client"
)

// increment adds one to a decimal number under key, in a transaction.
func increment(tx *client.Tx, key string) error {
	kv, err := tx.Get(key)
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		return err
	}
	n, _ := strconv.Atoi(string(kv.Value))
	tx.Put(key, []byte(strconv.Itoa(n+1)))
	return nil
}

// testUpdateCounter has several goroutines increment one number: every increment counts.
func testUpdateCounter(t *testing.T, h *harness) {
	const workers, rounds = 4, 20
	for _, opts := range [][]client.UpdateOption{nil, {client.ExactlyOnce()}} {
		_, err := h.c.Delete(h.ctx, "", client.Prefix())
		require.NoError(t, err)
		var wg sync.WaitGroup
		errs := make(chan error, workers)
		for range workers {
			wg.Go(func() {
				var err error
				for i := 0; i < rounds && err == nil; i++ {
					err = h.c.Update(h.ctx, func(tx *client.Tx) error { return increment(tx, "n") }, opts...)
				}
				errs <- err
			})
		}
		wg.Wait()
		for range workers {
			require.NoError(t, <-errs)
		}
		require.Equal(t, fmt.Sprint(workers*rounds), h.value("n"))
	}
	res, err := h.c.Get(h.ctx, "latchkey.tx/", client.Prefix())
	require.NoError(t, err)
	require.NotEmpty(t, res.KVs)
	require.LessOrEqual(t, len(res.KVs), workers, "markers are used again")
}

// testUpdatePhantoms changes, behind the back of a transaction, what it has read: each time it must run again, and once
// only when the change does not touch what it has read.
func testUpdatePhantoms(t *testing.T, h *harness) {
	list := func(opts ...client.ListOption) func(tx *client.Tx) error {
		return func(tx *client.Tx) error { _, err := tx.List("l/", append(opts, client.Prefix())...); return err }
	}
	get := func(key string) func(tx *client.Tx) error {
		return func(tx *client.Tx) error {
			if _, err := tx.Get(key); !errors.Is(err, client.ErrNotFound) {
				return err
			}
			return nil
		}
	}
	put := func(key string) func() { return func() { h.put(key, "changed") } }
	del := func(key string) func() {
		return func() {
			_, err := h.c.Delete(h.ctx, key)
			require.NoError(t, err)
		}
	}
	for _, c := range []struct {
		name   string
		read   func(tx *client.Tx) error
		change func()
		runs   int
	}{
		{"key changed", get("l/1"), put("l/1"), 2},
		{"key deleted", get("l/1"), del("l/1"), 2},
		{"key created", get("none"), put("none"), 2},
		{"other key changed", get("l/1"), put("l/2"), 1},
		{"listed key changed", list(), put("l/2"), 2},
		{"listed key deleted", list(), del("l/3"), 2},
		{"key added between", list(), put("l/21"), 2},
		{"key added behind", list(), put("l/9"), 2},
		{"key beside the list", list(), put("l0"), 1},
		{"last key of a limited list", list(client.Limit(2)), put("l/2"), 2},
		{"key added into a limited list", list(client.Limit(2)), put("l/11"), 2},
		{"key behind a limited list", list(client.Limit(2)), put("l/3"), 1},
		{"limit not reached", list(client.Limit(4)), put("l/4"), 2},
	} {
		_, err := h.c.Delete(h.ctx, "", client.Prefix())
		require.NoError(t, err)
		for _, key := range []string{"l/1", "l/2", "l/3"} {
			h.put(key, "")
		}
		runs := 0
		err = h.c.Update(h.ctx, func(tx *client.Tx) error {
			if err := c.read(tx); err != nil {
				return err
			}
			if runs++; runs == 1 {
				c.change()
			}
			tx.Put("result", []byte(strconv.Itoa(runs)))
			return nil
		})
		require.NoError(t, err, c.name)
		require.Equal(t, c.runs, runs, c.name)
		require.Equal(t, strconv.Itoa(c.runs), h.value("result"), c.name)
	}
}

func testUpdateOwnWrites(t *testing.T, h *harness) {
	r1 := h.put("a/1", "one")
	h.put("a/2", "two")
	h.put("a/3", "three")
	show := func(kvs []client.KV) string {
		var out []string
		for _, kv := range kvs {
			out = append(out, kv.Key+"="+string(kv.Value))
		}
		return strings.Join(out, " ")
	}
	sub := h.c.Namespace("a/")
	runs := 0
	err := h.c.Update(h.ctx, func(tx *client.Tx) error {
		kv, err := tx.Get("a/1")
		require.NoError(t, err)
		require.Equal(t, r1, kv.ModRevision)
		if runs++; runs == 1 {
			require.Equal(t, r1+2, tx.Revision(), "the first read sees everything before it")
			h.put("elsewhere", "") // reads go on at the revision of the first
		}
		tx.Put("a/1", []byte("uno"))
		tx.Delete("a/2")
		tx.Put("a/4", []byte("quattro"))
		kv, err = tx.In(sub).Get("1")
		require.NoError(t, err)
		require.Equal(t, "uno", string(kv.Value))
		require.Equal(t, r1, kv.ModRevision)
		_, err = tx.Get("a/2")
		require.ErrorIs(t, err, client.ErrNotFound)
		_, err = tx.Get("elsewhere")
		require.Equal(t, runs == 1, errors.Is(err, client.ErrNotFound))
		kvs, err := tx.List("a/", client.Prefix())
		require.NoError(t, err)
		require.Equal(t, "a/1=uno a/3=three a/4=quattro", show(kvs))
		kvs, err = tx.In(sub).List("", client.Prefix(), client.Limit(2))
		require.NoError(t, err)
		require.Equal(t, "1=uno 3=three", show(kvs))
		tx.Put("a/2", []byte("due"))
		kvs, err = tx.List("a/2", client.Range("a/4"))
		require.NoError(t, err)
		require.Equal(t, "a/2=due a/3=three", show(kvs))
		_, err = tx.Get("")
		require.ErrorIs(t, err, client.ErrEmptyKey)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 2, runs)
	require.Equal(t, "uno", h.value("a/1"))
	require.Equal(t, "quattro", h.value("a/4"))

	err = h.c.Update(h.ctx, func(tx *client.Tx) error {
		tx.Put("a/1", []byte("uno"))
		tx.Delete("a/2")
		tx.Put("a/2", []byte("due"))
		tx.Put("a/3", nil)
		tx.Delete("a/3")
		return nil
	})
	require.NoError(t, err)
	res, err := h.c.Get(h.ctx, "a/", client.Prefix())
	require.NoError(t, err)
	require.Equal(t, "a/1=uno a/2=due a/4=quattro", show(res.KVs))
}

func testUpdateHooks(t *testing.T, h *harness) {
	var log []string
	var staged *client.Staged
	var committed client.Revision
	runs := 0
	err := h.c.Update(h.ctx, func(tx *client.Tx) error {
		runs++
		if _, err := tx.Get("a"); !errors.Is(err, client.ErrNotFound) && runs == 1 {
			return err
		}
		tx.BeforeCommit(func() error {
			log = append(log, "before")
			tx.Put("hook", nil)
			return nil
		})
		tx.AfterCommit(func(rev client.Revision) {
			log = append(log, "after")
			committed = rev
		})
		staged = tx.Stage(client.OpGet("hook"))
		if runs == 1 {
			h.put("a", "conflict")
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"before", "before", "after"}, log)
	require.Equal(t, committed, staged.Result().Get.KVs[0].ModRevision, "it runs behind the writes")

	// An error of the function, or of a hook, commits nothing and is returned as it is.
	stop := errors.New("stop")
	err = h.c.Update(h.ctx, func(tx *client.Tx) error { tx.Put("none", nil); return stop })
	require.Equal(t, stop, err)
	err = h.c.Update(h.ctx, func(tx *client.Tx) error {
		tx.Put("none", nil)
		tx.BeforeCommit(func() error { return stop })
		return nil
	})
	require.Equal(t, stop, err)
	// So does a read that failed, when the function overlooks it.
	err = h.c.Update(h.ctx, func(tx *client.Tx) error {
		tx.Put("none", nil)
		tx.Put("", nil)
		return nil
	})
	require.ErrorIs(t, err, client.ErrEmptyKey)
	require.Equal(t, "", h.value("none"))

	checkUpdateGuards(t, h)
}

// checkUpdateGuards: a guard that does not hold ends the update; a condition that does not hold runs it again.
func checkUpdateGuards(t *testing.T, h *harness) {
	lost := errors.New("lost")
	runs := 0
	guarded := func(tx *client.Tx) error {
		if runs++; runs == 2 {
			h.put("ready", "")
		}
		tx.Require(lost, client.Exists("hook"))
		tx.If(client.Exists("ready"))
		tx.Put("guarded", nil)
		return nil
	}
	require.NoError(t, h.c.Update(h.ctx, guarded))
	require.Equal(t, 2, runs)
	_, err := h.c.Delete(h.ctx, "hook")
	require.NoError(t, err)
	for _, opts := range [][]client.UpdateOption{nil, {client.ExactlyOnce()}} {
		err = h.c.Update(h.ctx, guarded, opts...)
		require.ErrorIs(t, err, lost)
		require.ErrorIs(t, err, client.ErrGuardFailed)
	}
	require.Equal(t, 4, runs)
}

// testUpdateLostAnswers drops answers of commits. A plain update says that it does not know; with ExactlyOnce, every
// update that returns has been executed once.
func testUpdateLostAnswers(t *testing.T, h *harness) {
	const rounds = 60
	loss := &answerLoss{method: "/Txn", every: 3}
	c := h.client(client.Config{DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(loss.intercept)}})
	uncertain := 0
	for range rounds {
		err := c.Update(h.ctx, func(tx *client.Tx) error { return increment(tx, "plain") })
		if errors.Is(err, client.ErrUncertain) {
			uncertain++
			continue
		}
		require.NoError(t, err)
	}
	require.Equal(t, rounds/3, uncertain)
	n, err := strconv.Atoi(h.value("plain"))
	require.NoError(t, err)
	require.Equal(t, rounds-uncertain/2, n, "half of the uncertain ones were executed")

	loss.lost.Store(0)
	for range rounds {
		require.NoError(t, c.Update(h.ctx, func(tx *client.Tx) error { return increment(tx, "exact") }, client.ExactlyOnce()))
	}
	require.Equal(t, fmt.Sprint(rounds), h.value("exact"))
	require.GreaterOrEqual(t, loss.lost.Load(), int64(rounds/3), "too little was lost to prove anything")
}
