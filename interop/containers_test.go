package interop_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	containersTimeout = 5 * time.Minute
	writers           = 8
	putTimeout        = 3 * time.Second
	progressPuts      = 200 // acknowledged before a fault counts as survived
)

// TestContainers runs the image with deploy/compose.yaml. While clients write,
// the leader is cut off from the network, another member is stopped, and a
// third loses its disk; whatever was acknowledged is on all members at the end.
func TestContainers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), containersTimeout)
	defer cancel()
	e := newEngine(ctx, t)
	size, err := strconv.ParseInt(e.must(ctx, "docker", "image", "inspect", "--format", "{{.Size}}", e.image), 10, 64)
	require.NoError(t, err)
	require.Less(t, size, int64(imageBytesMax))
	t.Logf("the image has %d bytes", size)

	e.must(ctx, append(e.compose, "up", "--detach")...)
	e.waitHealthy(ctx, members...)
	l := startTraffic(ctx, t, e)
	l.progress(e)

	leader := l.leader(ctx, e)
	others := slices.DeleteFunc(slices.Clone(members), func(m string) bool { return m == leader })
	e.must(ctx, "docker", "network", "disconnect", e.network(), e.container(ctx, leader))
	l.progress(e)
	e.must(ctx, "docker", "network", "connect", "--alias", leader, e.network(), e.container(ctx, leader))
	e.waitHealthy(ctx, members...)

	e.must(ctx, append(e.compose, "stop", others[0])...)
	l.progress(e)
	require.Equal(t, "0", e.must(ctx, "docker", "inspect", "--format", "{{.State.ExitCode}}", e.container(ctx, others[0])))
	e.must(ctx, append(e.compose, "start", others[0])...)
	e.waitHealthy(ctx, members...)

	l.replace(ctx, e, others[1])
	l.progress(e)
	l.check(ctx, e)
}

// traffic is a number of writers, each with keys of its own: it puts the next one
// until that is acknowledged, and goes on.
type traffic struct {
	t      *testing.T
	client *clientv3.Client
	stop   context.CancelFunc
	wg     sync.WaitGroup
	acked  [writers]atomic.Int64 // how many keys each writer has had acknowledged
}

func loadKey(writer int, n int64) string { return fmt.Sprintf("load/%d/%08d", writer, n) }

func startTraffic(ctx context.Context, t *testing.T, e *engine) *traffic {
	t.Helper()
	l := &traffic{t: t, client: dial(t, slices.Collect(maps.Values(e.endpoints))...)}
	ctx, l.stop = context.WithCancel(ctx)
	for w := range writers {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				n := l.acked[w].Load()
				once, cancel := context.WithTimeout(ctx, putTimeout)
				if _, err := l.client.Put(once, loadKey(w, n), strconv.FormatInt(n, 10)); err == nil {
					l.acked[w].Add(1)
				}
				cancel()
			}
		})
	}
	t.Cleanup(func() {
		l.stop()
		l.wg.Wait()
	})
	return l
}

func dial(t *testing.T, endpoints ...string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: putTimeout, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (l *traffic) total() int64 {
	var n int64
	for w := range l.acked {
		n += l.acked[w].Load()
	}
	return n
}

// progress waits until more was acknowledged.
func (l *traffic) progress(e *engine) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), healthyTimeout)
	defer cancel()
	want := l.total() + progressPuts
	e.eventually(ctx, "clients could write again", func() bool { return l.total() >= want })
}

// leader returns the member that leads.
func (l *traffic) leader(ctx context.Context, e *engine) string {
	l.t.Helper()
	for _, m := range members {
		s, err := l.client.Status(ctx, e.endpoints[m])
		require.NoError(l.t, err)
		if s.Leader == s.Header.MemberId {
			return m
		}
	}
	require.FailNow(l.t, "nobody leads")
	return ""
}

// replace takes a member's disk away and brings it back as a learner, which is
// promoted when it has caught up. Changes are refused while the members have
// not all been connected for a few seconds, as in etcd, so they are repeated.
func (l *traffic) replace(ctx context.Context, e *engine, member string) {
	l.t.Helper()
	list, err := l.client.MemberList(ctx)
	require.NoError(l.t, err)
	i := slices.IndexFunc(list.Members, func(m *pb.Member) bool { return m.Name == member })
	require.GreaterOrEqual(l.t, i, 0)
	old := list.Members[i]
	l.change(ctx, e, member+" is removed", func() error {
		_, err := l.client.MemberRemove(ctx, old.ID)
		return err
	})
	e.must(ctx, append(e.compose, "rm", "--stop", "--force", member)...)
	e.must(ctx, "docker", "volume", "rm", e.project+"_"+member)
	var id uint64
	l.change(ctx, e, member+" is added", func() error {
		added, err := l.client.MemberAddAsLearner(ctx, old.PeerURLs)
		if err == nil {
			id = added.Member.ID
		}
		return err
	})
	e.state = "existing"
	e.must(ctx, append(e.compose, "up", "--detach", "--no-deps", member)...)
	l.change(ctx, e, member+" is promoted", func() error {
		_, err := l.client.MemberPromote(ctx, id)
		return err
	})
	require.NotEqual(l.t, old.ID, id)
	e.waitHealthy(ctx, member)
}

// change repeats a change of the membership until it is accepted.
func (l *traffic) change(ctx context.Context, e *engine, what string, try func() error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, healthyTimeout)
	defer cancel()
	var last error
	e.eventually(ctx, what, func() bool {
		err := try()
		if fmt.Sprint(err) != fmt.Sprint(last) {
			l.t.Logf("%s: %v", what, err)
		}
		last = err
		return err == nil
	})
}

// check ends the load and reads from every member what was acknowledged.
func (l *traffic) check(ctx context.Context, e *engine) {
	l.t.Helper()
	l.stop()
	l.wg.Wait()
	for _, m := range members {
		c := dial(l.t, e.endpoints[m])
		for w := range writers {
			acked := l.acked[w].Load()
			resp, err := c.Get(ctx, fmt.Sprintf("load/%d/", w), clientv3.WithPrefix())
			require.NoError(l.t, err)
			require.GreaterOrEqual(l.t, int64(len(resp.Kvs)), acked)
			for n := range acked {
				require.Equal(l.t, loadKey(w, n), string(resp.Kvs[n].Key))
				require.Equal(l.t, strconv.FormatInt(n, 10), string(resp.Kvs[n].Value))
			}
		}
	}
	l.t.Logf("%d acknowledged puts are on all members", l.total())
}
