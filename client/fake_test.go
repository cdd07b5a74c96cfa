package client

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// fakeCluster is a cluster of members that all share one store.
type fakeCluster struct {
	store   *fakeStore
	members map[string]*fakeMember
}

// fakeReign is who leads, as the members tell it. Each of them executes whatever it is asked to.
type fakeReign struct {
	term   uint64
	leader *fakeMember
}

// lead has a member lead in the next term.
func (f *fakeCluster) lead(m *fakeMember) {
	next := &fakeReign{term: 1, leader: m}
	if old := f.store.reign.Load(); old != nil {
		next.term += old.term
	}
	f.store.reign.Store(next)
}

// newFakeCluster starts members named a, b, c, ...
func newFakeCluster(n int) *fakeCluster {
	f := &fakeCluster{store: newFakeStore(), members: make(map[string]*fakeMember)}
	for i := range n {
		m := &fakeMember{name: string(rune('a' + i)), store: f.store, calls: make(map[string]int), broken: make(chan struct{})}
		m.start()
		f.members[m.name] = m
	}
	return f
}

// stop ends everything.
func (f *fakeCluster) stop() {
	for _, m := range f.members {
		m.stop()
	}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	for id := range f.store.leases {
		f.store.leases[id].timer.Stop()
	}
}

// dial is a Config.Dialer.
func (f *fakeCluster) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	m := f.members[endpoint]
	m.mu.Lock()
	listener := m.listener
	m.mu.Unlock()
	if listener == nil {
		return nil, fmt.Errorf("connection to %s refused", endpoint)
	}
	return listener.DialContext(ctx)
}

// config returns the configuration of a client of the cluster.
func (f *fakeCluster) config() Config {
	return Config{Endpoints: slices.Sorted(maps.Keys(f.members)), Dialer: f.dial}
}

// put writes a key behind the clients' backs.
func (f *fakeCluster) put(key, value string) int64 {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	w := f.store.begin()
	defer w.end()
	if _, err := w.put(&pb.PutRequest{Key: []byte(key), Value: []byte(value)}); err != nil {
		panic(err)
	}
	return w.rev
}

// value reads a key behind the clients' backs.
func (f *fakeCluster) value(key string) string {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if kvs := f.store.at(math.MaxInt64, []byte(key), nil); len(kvs) > 0 {
		return string(kvs[0].Value)
	}
	return ""
}

func (f *fakeCluster) compact(rev int64) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.store.compacted = rev
	close(f.store.changed)
	f.store.changed = make(chan struct{})
}

// using returns the member that the client uses now.
func (f *fakeCluster) using(c *Client) *fakeMember {
	p := c.core.pool
	return f.members[p.endpoints[p.current.Load()].name]
}

// total counts the calls of an RPC on all members.
func (f *fakeCluster) total(method string) int {
	n := 0
	for _, m := range f.members {
		n += m.called(method)
	}
	return n
}
