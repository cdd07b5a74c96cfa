package interop_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"
)

// registry is the prefix below which Kubernetes keeps a kind of objects.
const registry = "/registry/pods/"

// onBoth runs a test with the client that Kubernetes' API server uses, against etcd, so that the test is right, and
// against Latchkey.
func onBoth(t *testing.T, test func(t *testing.T, ctx context.Context, c *kubernetes.Client)) {
	for _, kind := range []string{*referenceKind, *subjectKind} {
		t.Run(kind, func(t *testing.T) {
			s := startSide(t, kind, 1)
			c, err := kubernetes.New(clientv3.Config{Endpoints: []string{s.cluster.Members[0].ClientURL}, Logger: zap.NewNop()})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, c.Close()) })
			test(t, testContext(t), c)
		})
	}
}

// Objects are created, changed and deleted by transactions that compare the revision of the last change, and share
// leases.
func TestKubernetesShapes(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, c *kubernetes.Client) {
		const key = registry + "default/a"
		put := func(value string, expected int64) kubernetes.PutResponse {
			r, err := c.Kubernetes.OptimisticPut(ctx, key, []byte(value), expected, kubernetes.PutOptions{GetOnFailure: true})
			require.NoError(t, err)
			return r
		}
		created := put("1", 0)
		require.True(t, created.Succeeded)
		again := put("2", 0)
		require.False(t, again.Succeeded)
		require.Equal(t, []any{"1", created.Revision, created.Revision}, []any{string(again.KV.Value), again.KV.ModRevision, again.Revision})
		updated := put("2", created.Revision)
		require.True(t, updated.Succeeded)
		require.Equal(t, created.Revision+1, updated.Revision)
		require.False(t, put("3", created.Revision).Succeeded)
		gone, err := c.Kubernetes.OptimisticDelete(ctx, key, created.Revision, kubernetes.DeleteOptions{GetOnFailure: true})
		require.NoError(t, err)
		require.False(t, gone.Succeeded)
		require.Equal(t, updated.Revision, gone.KV.ModRevision)
		gone, err = c.Kubernetes.OptimisticDelete(ctx, key, updated.Revision, kubernetes.DeleteOptions{GetOnFailure: true})
		require.NoError(t, err)
		require.True(t, gone.Succeeded)
		require.Equal(t, updated.Revision+1, gone.Revision)
		there, err := c.Kubernetes.Get(ctx, key, kubernetes.GetOptions{})
		require.NoError(t, err)
		require.Nil(t, there.KV)
		there, err = c.Kubernetes.Get(ctx, key, kubernetes.GetOptions{Revision: created.Revision})
		require.NoError(t, err)
		require.Equal(t, "1", string(there.KV.Value))

		// Events live as long as a lease that many of them share.
		lease, err := c.Grant(ctx, 600)
		require.NoError(t, err)
		const events = 500
		for i := range events {
			r, err := c.Kubernetes.OptimisticPut(ctx, fmt.Sprintf("/registry/events/%04d", i), nil, 0, kubernetes.PutOptions{LeaseID: lease.ID})
			require.NoError(t, err)
			require.True(t, r.Succeeded)
		}
		left, err := c.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
		require.NoError(t, err)
		require.Len(t, left.Keys, events)
		n, err := c.Kubernetes.Count(ctx, "/registry/events/", kubernetes.CountOptions{})
		require.NoError(t, err)
		require.EqualValues(t, events, n)
		before, err := c.Kubernetes.Get(ctx, "/registry/health", kubernetes.GetOptions{})
		require.NoError(t, err)
		_, err = c.Revoke(ctx, lease.ID)
		require.NoError(t, err)
		after, err := c.Kubernetes.List(ctx, "/registry/events/", kubernetes.ListOptions{})
		require.NoError(t, err)
		require.Zero(t, after.Count)
		require.Equal(t, before.Revision+1, after.Revision, "all keys of the lease went at once")
	})
}

// compact does what each API server does every few minutes: whoever finds the version of a key as he last saw it writes
// the present revision there, and compacts at the revision that was there before.
func compact(ctx context.Context, c *kubernetes.Client, version, revision int64) (int64, int64, error) {
	const key = "compact_rev_key"
	r, err := c.KV.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), "=", version)).
		Then(clientv3.OpPut(key, fmt.Sprint(revision))).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return 0, 0, err
	}
	now := r.Header.Revision
	if !r.Succeeded {
		return r.Responses[0].GetResponseRange().Kvs[0].Version, now, nil
	}
	if revision > 0 {
		if _, err := c.Compact(ctx, revision); err != nil {
			return 0, 0, err
		}
	}
	return version + 1, now, nil
}

// How many objects a list has, and how many of them a page.
const (
	objects  = 250
	pageSize = 40
)

func object(i int) string { return fmt.Sprintf("%s%04d", registry, i) }

// pages lists all objects in pages of the first page's revision. between is called after each that is not the last.
func pages(t *testing.T, ctx context.Context, c *kubernetes.Client, between func(page int)) (keys []string, err error) {
	o := kubernetes.ListOptions{Limit: pageSize}
	for n := 0; ; n++ {
		r, err := c.Kubernetes.List(ctx, registry, o)
		if err != nil {
			return keys, err
		}
		require.EqualValues(t, objects-len(keys), r.Count, "what is left, at the revision of the first page")
		for _, kv := range r.Kvs {
			require.True(t, strings.HasPrefix(string(kv.Value), "v"), "%s is of a later revision", kv.Key)
			keys = append(keys, string(kv.Key))
		}
		if int64(len(r.Kvs)) == r.Count {
			return keys, nil
		}
		if o.Revision == 0 {
			o.Revision = r.Revision
		}
		o.Continue = keys[len(keys)-1] + "\x00"
		between(n)
	}
}

// A list comes in pages of one revision while others write; when that is compacted, the error says so in the words that
// Kubernetes looks for. The same list comes as one stream.
func TestKubernetesPages(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, c *kubernetes.Client) {
		do := func(op clientv3.Op) {
			_, err := c.Do(ctx, op)
			require.NoError(t, err)
		}
		for i := range objects {
			do(clientv3.OpPut(object(i), fmt.Sprintf("v%d", i)))
		}
		keys, err := pages(t, ctx, c, func(page int) {
			last := object(objects - 1 - page)
			do(clientv3.OpPut(last, "changed"))
			do(clientv3.OpPut(last+"new", "new"))
			do(clientv3.OpDelete(object(page)))
		})
		require.NoError(t, err)
		require.Len(t, keys, objects)
		for i, key := range keys {
			require.Equal(t, object(i), key)
		}
		for i := range objects { // as it was
			do(clientv3.OpPut(object(i), fmt.Sprintf("v%d", i)))
			do(clientv3.OpDelete(object(i) + "new"))
		}

		version, revision, err := compact(ctx, c, 0, 0)
		require.NoError(t, err)
		lost, _, err := compact(ctx, c, 0, revision) // another API server, that knows less
		require.NoError(t, err)
		require.Equal(t, version, lost)
		keys, err = pages(t, ctx, c, func(page int) {
			if page < 2 {
				return
			}
			for range 2 { // the first compacts at a revision that is before the list
				version, revision, err = compact(ctx, c, version, revision)
				require.NoError(t, err)
			}
		})
		require.ErrorIs(t, err, rpctypes.ErrCompacted)
		require.EqualError(t, err, "etcdserver: mvcc: required revision has been compacted")
		require.Len(t, keys, 3*pageSize)
		_, err = c.Kubernetes.List(ctx, registry, kubernetes.ListOptions{Revision: 1 << 40})
		require.EqualError(t, err, "etcdserver: mvcc: required revision is a future revision")

		want, err := c.KV.Get(ctx, registry, clientv3.WithPrefix())
		require.NoError(t, err)
		stream, err := c.GetStream(ctx, registry, clientv3.WithPrefix())
		require.NoError(t, err)
		got, err := clientv3.GetStreamToGetResponse(stream)
		require.NoError(t, err)
		require.Equal(t, []any{want.Count, want.Header.Revision, len(want.Kvs)}, []any{got.Count, got.Header.Revision, len(got.Kvs)})
		for i := range want.Kvs {
			require.Equal(t, want.Kvs[i].String(), got.Kvs[i].String())
		}
	})
}

// watchCache keeps what a watch told it.
type watchCache struct {
	t        *testing.T
	values   map[string]string
	previous int // events that had a previous version
}

func (w *watchCache) take(e *clientv3.Event) {
	key := string(e.Kv.Key)
	old, known := w.values[key]
	require.Equal(w.t, known, e.PrevKv != nil)
	if known {
		w.previous++
		require.Equal(w.t, old, string(e.PrevKv.Value))
	}
	if delete(w.values, key); e.Type == clientv3.EventTypePut {
		w.values[key] = string(e.Kv.Value)
	}
}

// reach asks for progress, and takes what comes until it has reached the revision.
func (w *watchCache) reach(ctx context.Context, c *kubernetes.Client, events clientv3.WatchChan, revision int64) {
	require.NoError(w.t, c.RequestProgress(ctx))
	for r := range events {
		require.NoError(w.t, r.Err())
		for _, e := range r.Events {
			w.take(e)
		}
		switch {
		case !r.IsProgressNotify():
		case r.Header.Revision >= revision:
			return
		default:
			require.NoError(w.t, c.RequestProgress(ctx))
		}
	}
	require.Fail(w.t, "the watch ended")
}

// A watch cache lists, watches from the next revision with the previous versions, and asks how far the watch is before
// it answers a consistent read: it must then have every event up to the revision that a read has told.
func TestKubernetesWatches(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, c *kubernetes.Client) {
		start, err := c.Kubernetes.List(ctx, registry, kubernetes.ListOptions{})
		require.NoError(t, err)
		watching, end := context.WithCancel(clientv3.WithRequireLeader(ctx))
		defer end()
		events := c.Watch(watching, registry, clientv3.WithPrefix(), clientv3.WithRev(start.Revision+1), clientv3.WithPrevKV(), clientv3.WithProgressNotify())
		cache := &watchCache{t: t, values: map[string]string{}}
		for i := range 60 {
			key := fmt.Sprintf("%s%d", registry, i%7)
			if i%5 == 4 {
				_, err = c.Delete(ctx, key)
			} else {
				_, err = c.Put(ctx, key, fmt.Sprint(i))
			}
			require.NoError(t, err)
			_, err = c.Put(ctx, "/registry/other", "")
			require.NoError(t, err)
			if i%10 != 9 {
				continue
			}
			now, err := c.Kubernetes.List(ctx, registry, kubernetes.ListOptions{})
			require.NoError(t, err)
			cache.reach(watching, c, events, now.Revision)
			want := map[string]string{}
			for _, kv := range now.Kvs {
				want[string(kv.Key)] = string(kv.Value)
			}
			require.Equal(t, want, cache.values)
		}
		require.NotZero(t, cache.previous)
		end()
		for range events { // until the client has closed it
		}

		now, err := c.Kubernetes.List(ctx, registry, kubernetes.ListOptions{Limit: 1})
		require.NoError(t, err)
		_, err = c.Compact(ctx, now.Revision)
		require.NoError(t, err)
		for r := range c.Watch(ctx, registry, clientv3.WithPrefix(), clientv3.WithRev(2)) {
			require.True(t, errors.Is(r.Err(), rpctypes.ErrCompacted), "%v", r.Err())
			require.Equal(t, now.Revision, r.CompactRevision)
			return
		}
		require.Fail(t, "the watch ended without a word")
	})
}
