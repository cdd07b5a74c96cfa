package discoverytest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/discovery"
)

func testLife(t *testing.T, h *harness) {
	in := instance{
		Service: "api", ID: "a", Addr: "10.0.0.1:80", Zone: "east", Version: "1.2", Weight: 3, Meta: tags{Color: "red"},
	}
	w := h.watch(h.c)
	require.Empty(t, w.step().Instances, "an empty service is reported")
	r := h.register(h.c, in)
	require.Equal(t, "a", r.ID())
	require.Equal(t, "api/a", r.Key())
	require.True(t, r.Registered())
	require.Equal(t, in, r.Instance())
	s := w.step()
	require.Equal(t, []instance{in}, s.Instances)
	require.Equal(t, []instance{in}, s.Joined)
	own, err := h.c.Session(h.ctx)
	require.NoError(t, err)
	kv, err := h.c.GetOne(h.ctx, r.Key())
	require.NoError(t, err)
	require.Equal(t, own.ID(), kv.Lease, "the client's own session")

	h.close(r)
	require.False(t, r.Registered())
	require.ErrorIs(t, h.ended(r), discovery.ErrClosed)
	require.ErrorIs(t, r.Update(h.ctx, func(*instance) error { return nil }), discovery.ErrClosed)
	s = w.untilIDs("")
	require.Equal(t, "a", idsOf(s.Left), "it has said goodbye")
	require.Empty(t, s.Lost)
	h.close(r)
	require.NoError(t, own.Err(), "the session is not the registration's to end")

	// Without an id, each gets one of its own.
	x, y := h.register(h.c, at("", "a:1")), h.register(h.c, at("", "a:1"))
	require.NotEqual(t, x.ID(), y.ID())
	h.close(x)
	h.close(y)
	require.Empty(t, h.ids())
}

// The value is the one of etcd's naming package, with fields that it skips.
func testFormat(t *testing.T, h *harness) {
	r := h.register(h.c, instance{Service: "api", ID: "a", Addr: "h:1", Zone: "east", Weight: 2, Meta: tags{"red"}})
	kv, err := h.c.GetOne(h.ctx, "api/a")
	require.NoError(t, err)
	require.Regexp(t, `^\{"Op":0,"Addr":"h:1","Metadata":\{"Color":"red"\},"zone":"east","weight":2,"by":"[A-Z2-7]+"\}$`, string(kv.Value))
	h.close(r)

	// What etcd's AddEndpoint writes, with and without metadata.
	for _, value := range []string{
		`{"Op":0,"Addr":"h:2","Metadata":null}`, `{"Op":0,"Addr":"h:2","Metadata":{"Color":"blue"}}`,
	} {
		_, err = h.c.Put(h.ctx, "api/old", []byte(value))
		require.NoError(t, err)
		s, err := discovery.List[tags](h.ctx, h.c, "api")
		require.NoError(t, err)
		require.Empty(t, s.Invalid)
		require.Equal(t, "old", idsOf(s.Instances))
		require.Equal(t, "h:2", s.Instances[0].Addr)
		require.EqualValues(t, 1, s.Instances[0].Weight)
	}
	s, err := discovery.List[tags](h.ctx, h.c, "api")
	require.NoError(t, err)
	require.Equal(t, "blue", s.Instances[0].Meta.Color)
}

func testNames(t *testing.T, h *harness) {
	for _, in := range []instance{
		{Service: "", ID: "a", Addr: "h:1"}, {Service: "api/", ID: "a", Addr: "h:1"},
		{Service: "a//b", ID: "a", Addr: "h:1"}, {Service: "api", ID: "a/b", Addr: "h:1"},
	} {
		_, err := discovery.Register(h.ctx, h.c, in)
		require.ErrorIs(t, err, discovery.ErrName, "%+v", in)
	}
	_, err := discovery.Register(h.ctx, h.c, instance{Service: "api", ID: "a"})
	require.ErrorIs(t, err, client.ErrInvalid, "without an address")
	_, err = discovery.List[tags](h.ctx, h.c, "api/")
	require.ErrorIs(t, err, discovery.ErrName)
	for _, err := range discovery.Watch[tags](h.ctx, h.c, "") {
		require.ErrorIs(t, err, discovery.ErrName)
	}
	h.awaitKeys("", 0)
}

func testUpdate(t *testing.T, h *harness) {
	r := h.register(h.c, at("a", "h:1"))
	w := h.watch(h.c)
	w.step()
	require.NoError(t, r.Update(h.ctx, func(in *instance) error {
		in.Weight, in.Meta.Color = 7, "green"
		in.State, in.ID = discovery.Draining, "b" // these are not its to change
		return nil
	}))
	s := w.step()
	require.Equal(t, "a", idsOf(s.Changed))
	require.Equal(t, "green", s.Instances[0].Meta.Color)
	require.EqualValues(t, 7, s.Instances[0].Weight)
	require.Equal(t, discovery.Up, s.Instances[0].State)
	require.Equal(t, s.Instances[0], r.Instance())

	refused := errors.New("no")
	require.Equal(t, refused, r.Update(h.ctx, func(*instance) error { return refused }))
	require.ErrorIs(t, r.Update(h.ctx, func(in *instance) error { in.Addr = ""; return nil }), client.ErrInvalid)
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	require.ErrorIs(t, r.Update(ctx, func(in *instance) error { in.Weight = 9; return nil }), context.Canceled)
	require.True(t, r.Registered())
	h.close(r)
}

func testDuplicate(t *testing.T, h *harness) {
	first := h.register(h.c, at("a", "h:1"))
	other := h.client(client.Config{})
	_, err := discovery.Register(h.ctx, other, at("a", "h:2"))
	require.ErrorIs(t, err, discovery.ErrDuplicateID)
	var dup *discovery.DuplicateError
	require.ErrorAs(t, err, &dup)
	own, err := h.c.Session(h.ctx)
	require.NoError(t, err)
	require.Equal(t, discovery.DuplicateError{Service: "api", ID: "a", Addr: "h:1", Lease: own.ID()}, *dup)
	require.True(t, first.Registered())
	h.close(first)
	h.close(h.register(other, at("a", "h:2")))

	// One of etcd's counts as well.
	_, err = h.c.Put(h.ctx, "api/a", []byte(`{"Op":0,"Addr":"h:3"}`))
	require.NoError(t, err)
	_, err = discovery.Register(h.ctx, other, at("a", "h:2"))
	require.ErrorIs(t, err, discovery.ErrDuplicateID)
}

// Curator's GroupMember says that ids must be unique, and lets two have the same.
// A session that both share is no excuse.
func testDuplicateSameSession(t *testing.T, h *harness) {
	first := h.register(h.c, at("a", "h:1"))
	_, err := discovery.Register(h.ctx, h.c, at("a", "h:1"))
	require.ErrorIs(t, err, discovery.ErrDuplicateID)
	kvs := h.awaitKeys("api/", 1)
	h.close(first)
	again := h.register(h.c, at("a", "h:1"))
	require.Greater(t, h.awaitKeys("api/", 1)[0].CreateRevision, kvs[0].CreateRevision)
	h.close(again)
}

// Who is restarted with the same id may wait for its former self to end.
func testWait(t *testing.T, h *harness) {
	old := h.client(client.Config{})
	s, err := old.NewSession(h.ctx)
	require.NoError(t, err)
	first := h.register(old, at("a", "h:1"), discovery.WithSession(s))

	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	_, err = discovery.Register(ctx, h.c, at("a", "h:1"), discovery.WithWait())
	require.ErrorIs(t, err, context.Canceled)

	result := make(chan *registration, 1)
	go func() {
		r, err := discovery.Register(h.ctx, h.c, at("a", "h:2"), discovery.WithWait())
		if err == nil {
			result <- r
		}
		close(result)
	}()
	h.compact() // what it waits for may be compacted away meanwhile
	require.True(t, first.Registered())
	require.NoError(t, s.Close(h.ctx))
	second, ok := <-result
	require.True(t, ok)
	require.Equal(t, "h:2", second.Instance().Addr)
	require.ErrorIs(t, h.ended(first), client.ErrSessionClosed)
	h.close(second)
}

// An instance that can not serve is not there, and comes back.
func testHealth(t *testing.T, h *harness) {
	var sick atomic.Bool
	sick.Store(true)
	failure := errors.New("no database")
	health := discovery.Health{Every: time.Millisecond, Fall: 2, Check: func(context.Context) error {
		if sick.Load() {
			return failure
		}
		return nil
	}}
	ctx, cancel := context.WithTimeout(h.ctx, 20*time.Millisecond)
	defer cancel()
	_, err := discovery.Register(ctx, h.c, at("a", "h:1"), discovery.WithHealth(health))
	require.ErrorIs(t, err, failure)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, h.ids())

	sick.Store(false)
	r := h.register(h.c, at("a", "h:1"), discovery.WithHealth(health))
	w := h.watch(h.c)
	require.Equal(t, "a", idsOf(w.step().Instances))
	for range 3 {
		sick.Store(true)
		require.Equal(t, "a", idsOf(w.untilIDs("").Lost)) // and stays so: it is sick until told otherwise
		require.NoError(t, r.Context().Err())
		require.NoError(t, r.Update(h.ctx, func(in *instance) error { in.Weight++; return nil }), "while it is not there")
		require.Empty(t, h.ids())
		sick.Store(false)
		s := w.untilIDs("a")
		require.EqualValues(t, r.Instance().Weight, s.Instances[0].Weight)
	}
	require.EqualValues(t, 4, r.Instance().Weight)
	sick.Store(true)
	w.untilIDs("")
	h.close(r)
	h.awaitKeys("api/", 0)
}

func testDrain(t *testing.T, h *harness) {
	r := h.register(h.c, at("a", "h:1"), discovery.WithDrainTimeout(0))
	w := h.watch(h.c)
	w.step()
	require.NoError(t, r.Drain(h.ctx))
	<-r.Draining()
	require.Equal(t, discovery.Draining, w.step().Instances[0].State)
	require.NoError(t, r.Update(h.ctx, func(in *instance) error { in.Weight = 2; return nil }))
	require.Equal(t, discovery.Draining, w.step().Instances[0].State)
	h.close(r)
	require.Equal(t, "a", idsOf(w.untilIDs("").Left))

	slow := h.register(h.c, at("a", "h:1"), discovery.WithDrainTimeout(time.Hour))
	ctx, cancel := context.WithCancel(h.ctx)
	go func() { <-slow.Draining(); cancel() }()
	require.ErrorIs(t, slow.Drain(ctx), context.Canceled)
	h.close(slow)
}

// An operator tells an instance to drain; it learns of it, and stays so after a
// loss of its session.
func testRemoteDrain(t *testing.T, h *harness) {
	require.ErrorIs(t, discovery.Drain(h.ctx, h.c, "api", "a"), discovery.ErrNoInstance)
	c := h.client(client.Config{SessionTTL: shortTTL})
	s, err := c.Session(h.ctx)
	require.NoError(t, err)
	r := h.register(c, at("a", "h:1"))
	select {
	case <-r.Draining():
		t.Fatal("nobody has asked for that")
	default:
	}
	require.NoError(t, discovery.Drain(h.ctx, h.c, "api", "a"))
	<-r.Draining()
	require.Equal(t, discovery.Draining, r.Instance().State)
	kv, err := h.c.GetOne(h.ctx, "api/a")
	require.NoError(t, err)
	require.Equal(t, s.ID(), kv.Lease, "it still ends with the session")
	h.revoke(s, r.Key())
	back, err := discovery.List[tags](h.ctx, h.c, "api")
	require.NoError(t, err)
	require.Equal(t, discovery.Draining, back.Instances[0].State)
	h.close(r)

	_, err = h.c.Put(h.ctx, "api/old", []byte(`{"Op":0,"Addr":"h:3","Metadata":{"Color":"red"},"x":1}`))
	require.NoError(t, err)
	require.NoError(t, discovery.Drain(h.ctx, h.c, "api", "old"))
	kv, err = h.c.GetOne(h.ctx, "api/old")
	require.NoError(t, err)
	require.JSONEq(t, `{"Op":0,"Addr":"h:3","Metadata":{"Color":"red"},"x":1,"state":"draining"}`, string(kv.Value))
}
