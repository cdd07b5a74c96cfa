package server

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// threeMembers starts a cluster whose members' insides the test can reach.
func threeMembers(t *testing.T, change ...func(i int, cfg *Config)) []*Server {
	t.Helper()
	var configs []Config
	var initial []string
	for i := range 3 {
		cfg := Config{Name: fmt.Sprint("m", i), DataDir: filepath.Join(t.TempDir(), "data")}
		for _, l := range []*net.Listener{&cfg.Sockets.Client, &cfg.Sockets.Peer} {
			open, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			*l = open
		}
		for _, f := range change {
			f(i, &cfg)
		}
		initial = append(initial, fmt.Sprintf("%s=http://%s", cfg.Name, cfg.Sockets.Peer.Addr()))
		configs = append(configs, cfg)
	}
	var members []*Server
	for _, cfg := range configs {
		cfg.InitialCluster = strings.Join(initial, ",")
		m, err := Start(t.Context(), cfg)
		require.NoError(t, err)
		t.Cleanup(m.Kill)
		members = append(members, m)
	}
	for _, m := range members {
		<-m.Ready()
	}
	return members
}

func leaderOf(t *testing.T, members []*Server) (leader int) {
	t.Helper()
	id, err := members[0].WaitLeader(t.Context())
	require.NoError(t, err)
	for i, m := range members {
		if m.ID() == id {
			return i
		}
	}
	t.Fatal("the leader is no member")
	return -1
}

// grantMany grants leases with a key each, through many callers at once.
func grantMany(t *testing.T, ctx context.Context, m *Server, leases int, ttl int64) {
	t.Helper()
	const callers = 256
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := c; i < leases; i += callers {
				id := int64(i + 1)
				_, err := backend{m}.Propose(ctx, state.Command{Kind: state.KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: id, TTL: ttl}})
				if err == nil {
					put := &pb.PutRequest{Key: fmt.Appendf(nil, "lease/%06d", i), Lease: id}
					_, err = backend{m}.Propose(ctx, state.Command{Kind: state.KindPut, Request: put})
				}
				if err != nil {
					t.Errorf("lease %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.False(t, t.Failed())
}

// A hundred thousand leases with a key each end together; all are gone soon
// after, and puts go on meanwhile. They end together because a new leader gives
// every lease its full TTL from the moment that it leads.
func TestManyLeasesEndTogether(t *testing.T) {
	const leases, ttl = manyLeases, 30
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	members := threeMembers(t)
	leader := leaderOf(t, members)
	begin := time.Now()
	grantMany(t, ctx, members[leader], leases, ttl)
	granted := time.Since(begin)

	m := members[(leader+1)%3]
	leaving := time.Now() // the new leader leads at some time from now until Stop is over
	require.NoError(t, members[leader].Stop(ctx))
	elected := time.Now()
	all := &pb.RangeRequest{Key: []byte("lease/"), RangeEnd: []byte("lease0"), CountOnly: true}
	slowest, puts, ended := time.Duration(0), 0, time.Time{}
	for {
		start := time.Now()
		put := &pb.PutRequest{Key: []byte("beat"), Value: []byte("x")}
		_, err := backend{m}.Propose(ctx, state.Command{Kind: state.KindPut, Request: put})
		require.NoError(t, err)
		slowest, puts = max(slowest, time.Since(start)), puts+1
		view, err := backend{m}.Read(ctx)
		require.NoError(t, err)
		left, err := view.Range(all)
		require.NoError(t, err)
		if left.Count < leases && ended.IsZero() {
			ended = time.Now()
			require.GreaterOrEqual(t, time.Since(leaving), ttl*time.Second, "leases ended early")
		}
		if left.Count == 0 {
			break
		}
	}
	t.Logf("%d leases granted in %s; the first ended %s after the new leader, the last %s later; slowest of %d puts %s",
		leases, granted, ended.Sub(elected), time.Since(ended), puts, slowest)
	require.Less(t, ended.Sub(elected), (ttl+5)*time.Second)
	require.Less(t, time.Since(ended), 5*time.Second)
	require.Less(t, slowest, time.Second)
	for _, each := range []*Server{m, members[(leader+2)%3]} {
		_, err := backend{each}.Read(ctx) // waits until the follower has applied what the leader has
		require.NoError(t, err)
		require.Empty(t, backend{each}.Leases())
	}
}
