package client

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The figures of a session of ten seconds, as the package documents them.
const (
	suspectAfter = 5 * time.Second
	lostAfter    = 10*time.Second - 10*time.Millisecond - 250*time.Millisecond
)

func TestTrust(t *testing.T) {
	trusted := &trust{sentAt: instant{mono: 100 * time.Second, wall: 100 * time.Second}, ttl: 10 * time.Second}
	for _, c := range []struct {
		name          string
		elapsed, jump time.Duration
		state         State
		remaining     time.Duration
	}{
		{"at once", 0, 0, Active, lostAfter},
		{"later", 4 * time.Second, 0, Active, lostAfter - 4*time.Second},
		{"just active", suspectAfter - 1, 0, Active, lostAfter - suspectAfter + 1},
		{"suspect", suspectAfter, 0, Suspect, lostAfter - suspectAfter},
		{"just suspect", lostAfter - 1, 0, Suspect, 1},
		{"lost", lostAfter, 0, Lost, 0},
		{"long lost", time.Hour, 0, Lost, 0},
		{"a correction of the clock", time.Second, 200 * time.Millisecond, Active, lostAfter - 1200*time.Millisecond},
		{"suspended", time.Second, 3 * time.Second, Suspect, lostAfter - 4*time.Second},
		{"suspended for long", time.Second, time.Hour, Suspect, 0},
		{"clock set back", time.Second, -time.Hour, Active, lostAfter - time.Second},
	} {
		now := instant{mono: 100*time.Second + c.elapsed, wall: 100*time.Second + c.elapsed + c.jump}
		require.Equal(t, c.state, trusted.state(now), c.name)
		require.Equal(t, c.remaining, trusted.remaining(now), c.name)
	}
	short := &trust{ttl: 2 * time.Second}
	require.Equal(t, 2*time.Second-2*time.Millisecond-100*time.Millisecond, short.lifetime())
}

// change is a state of a session, and when it began.
type change struct {
	state State
	after time.Duration // since start
}

// record collects a session's states until it is lost.
func record(s *Session, start time.Time) func() []change {
	var out []change
	done := make(chan struct{})
	go func() {
		defer close(done)
		for state := range s.States(context.Background()) {
			out = append(out, change{state, time.Since(start)})
		}
	}()
	return func() []change { <-done; return out }
}

// TestSessionLives: for an hour, over one stream, with three renewals a TTL.
func TestSessionLives(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		s, err := c.Session(ctx)
		require.NoError(t, err)
		states := record(s, time.Now())
		other, err := c.NewSession(ctx, SessionTTL(20*time.Second))
		require.NoError(t, err)
		pass(time.Hour)
		require.Equal(t, Active, s.State())
		require.Equal(t, Active, other.State())
		require.Equal(t, 1, fake.total("LeaseKeepAlive"), "one stream for both")
		require.InDelta(t, 3600*(3.0/10+3.0/20), fake.total("renew"), 100)
		require.NoError(t, s.Close(ctx))
		require.Equal(t, []change{{Active, 0}, {Lost, time.Hour}}, states())
		require.NotContains(t, fake.store.leases, int64(s.ID()))
	})
}

// TestSessionDeadline: when the cluster is gone, trust ends when it must, counted from when the last acknowledged
// renewal was sent, and before the lease can end.
func TestSessionDeadline(t *testing.T) {
	for _, slowness := range []time.Duration{0, 600 * time.Millisecond} {
		inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
			// When the last renewal was sent that was executed, and so acknowledged.
			var sent atomic.Pointer[time.Time]
			m := fake.members["a"]
			m.set(func(m *fakeMember) {
				m.slow = func(method string) time.Duration {
					if method == "LeaseGrant" || method == "renew" {
						return slowness
					}
					return 0
				}
				m.drop = func(method string, n int) (error, error) {
					if method == "LeaseGrant" || method == "renew" {
						at := time.Now().Add(-slowness)
						sent.Store(&at)
					}
					return nil, nil
				}
			})
			s, err := c.Session(ctx)
			require.NoError(t, err)
			start := time.Now()
			states := record(s, start)
			pass(30 * time.Second)
			synctest.Wait()
			m.stop()
			last := sent.Load().Sub(start)

			<-s.Context().Done()
			require.Equal(t, []change{{Active, 0}, {Suspect, last + suspectAfter}, {Lost, last + lostAfter}}, states())
			require.Zero(t, s.Remaining())
			cause := context.Cause(s.Context())
			require.Equal(t, cause, s.Err())
			require.ErrorIs(t, cause, ErrSessionLost)
			require.ErrorIs(t, cause, ErrSessionExpired)
			require.NotErrorIs(t, cause, ErrSessionClosed)
			var lost *SessionError
			require.ErrorAs(t, cause, &lost)
			require.True(t, sent.Load().Equal(lost.Renewed))
			fake.store.mu.Lock()
			require.NotNil(t, fake.store.leases[int64(s.ID())], "the server's lease outlives our trust")
			fake.store.mu.Unlock()

			// The next session of the client is another one, once there is a cluster again.
			m.start()
			next, err := c.Session(ctx)
			require.NoError(t, err)
			require.NotEqual(t, s.ID(), next.ID())
			require.Equal(t, Lost, s.State())
		})
	}
}

// TestSessionMovesOn: a member that is killed, hangs or has no leader does not cost a session, however short.
func TestSessionMovesOn(t *testing.T) {
	for name, fault := range map[string]func(m *fakeMember){
		"killed":    func(m *fakeMember) { m.stop() },
		"hangs":     func(m *fakeMember) { m.set(func(m *fakeMember) { m.hang = make(chan struct{}) }) },
		"no leader": func(m *fakeMember) { m.set(func(m *fakeMember) { m.noLeader = true }); m.breakStreams() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
				s, err := c.NewSession(ctx, SessionTTL(2*time.Second))
				require.NoError(t, err)
				states := record(s, time.Now())
				for range 2 {
					pass(10 * time.Second)
					fault(fake.using(c))
				}
				pass(10 * time.Second)
				require.Equal(t, Active, s.State())
				require.NoError(t, s.Close(ctx))
				require.Equal(t, []change{{Active, 0}, {Lost, 30 * time.Second}}, states(), "never even suspect")
			})
		})
	}
}

// TestSlowClusterKeepsSessions: when every renewal takes long everywhere, the session must not be lost to haste.
func TestSlowClusterKeepsSessions(t *testing.T) {
	inBubble(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		s, err := c.Session(ctx)
		require.NoError(t, err)
		for _, m := range fake.members {
			m.set(func(m *fakeMember) {
				m.slow = func(method string) time.Duration {
					if method == "renew" {
						return 1500 * time.Millisecond
					}
					return 0
				}
			})
		}
		pass(10 * time.Minute)
		require.NotEqual(t, Lost, s.State())
	})
}

// TestLostIsFinal: an acknowledgement that comes after the deadline raises nothing.
func TestLostIsFinal(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		s, err := c.Session(ctx)
		require.NoError(t, err)
		k := c.core.keeper
		l := &link{cancel: func() {}}
		late := c.core.clock.now()
		late.mono += lostAfter
		k.mu.Lock()
		k.link, s.waiting, s.sentAt = l, true, late
		k.mu.Unlock()
		k.acknowledge(l, &pb.LeaseKeepAliveResponse{ID: int64(s.ID()), TTL: 10}, late)
		require.ErrorIs(t, s.Err(), ErrSessionExpired)
	})
}

// TestAcknowledgementOfAnOldLink can not be told from one of a newer renewal, so it must not count as such.
func TestAcknowledgementOfAnOldLink(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		s, err := c.Session(ctx)
		require.NoError(t, err)
		k, before := c.core.keeper, s.trust.Load()
		now := c.core.clock.now()
		k.mu.Lock()
		s.waiting, s.sentAt = true, now
		k.mu.Unlock()
		k.acknowledge(&link{}, &pb.LeaseKeepAliveResponse{ID: int64(s.ID()), TTL: 10}, now)
		require.Same(t, before, s.trust.Load())
		k.mu.Lock()
		s.waiting = false
		k.mu.Unlock()
	})
}

func TestSessionRevoked(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		s, err := c.Session(ctx)
		require.NoError(t, err)
		fake.store.mu.Lock()
		fake.store.revoke(int64(s.ID()))
		fake.store.mu.Unlock()
		require.Less(t, took(func() { <-s.Context().Done() }), 4*time.Second, "the next renewal tells it")
		require.ErrorIs(t, s.Err(), ErrSessionRevoked)
		require.ErrorIs(t, s.Err(), ErrSessionLost)
		require.NoError(t, s.Close(ctx), "that it is gone already is no error")
	})
}

// Who has learned elsewhere that the lease is gone need not wait for the next renewal.
func TestDoubt(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		s, err := c.Session(ctx)
		require.NoError(t, err)
		s.Doubt()
		pass(time.Second)
		require.Equal(t, Active, s.State(), "it was a mistake")
		require.NoError(t, c.Revoke(ctx, s.ID()))
		_, err = c.Put(ctx, "a", nil, WithLease(s.ID()))
		require.ErrorIs(t, err, ErrLeaseNotFound)
		require.Equal(t, Active, s.State(), "nobody has told it")
		begin := time.Now()
		s.Doubt()
		<-s.Context().Done()
		require.ErrorIs(t, s.Err(), ErrSessionRevoked)
		require.Less(t, time.Since(begin), time.Second)
		s.Doubt() // no effect
	})
}

// jumpClock is a wall clock that can jump.
type jumpClock struct {
	clock
	jump atomic.Int64
}

func (c *jumpClock) now() instant {
	now := c.clock.now()
	now.wall += time.Duration(c.jump.Load())
	return now
}

// TestSuspension: after the machine was suspended, a session is not trusted until a fresh renewal is acknowledged, which
// is asked for at once.
func TestSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeCluster(1)
		defer fake.stop()
		clock := &jumpClock{clock: systemClock()}
		co, err := newCore(fake.config(), grpcTransport{}, clock)
		require.NoError(t, err)
		c := &Client{core: co}
		defer func() { require.NoError(t, c.Close()) }()
		s, err := c.Session(t.Context())
		require.NoError(t, err)
		synctest.Wait() // the keeper is at rest: it does not see the jump before the session is looked at

		clock.jump.Add(int64(6 * time.Second))
		state, remaining := s.look() // once, as the renewal that it asks for may be quick
		require.Equal(t, Suspect, state)
		require.Equal(t, lostAfter-6*time.Second, remaining)
		synctest.Wait() // the look itself has asked for a renewal
		require.Equal(t, Active, s.State())
		require.Equal(t, 1, fake.total("renew"))

		// While nobody answers, it stays so, but a jump of the clock alone is no loss.
		fake.members["a"].stop()
		synctest.Wait()
		clock.jump.Add(int64(time.Hour))
		require.Equal(t, Suspect, s.State())
		require.Zero(t, s.Remaining())
		synctest.Wait()
		require.Equal(t, Suspect, s.State())
		require.NoError(t, s.Err())
		require.Equal(t, lostAfter, took(func() { <-s.Context().Done() }))
	})
}

// TestOwnSessionIsMadeOnce, however many ask for it at the same time, and not by one who has given up.
func TestOwnSessionIsMadeOnce(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		fake.members["a"].set(func(m *fakeMember) {
			m.slow = func(method string) time.Duration { return time.Second }
		})
		impatient, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if i%2 == 0 {
					s, err := c.Session(ctx)
					require.NoError(t, err)
					require.Equal(t, Active, s.State())
					return
				}
				_, err := c.Namespace("x").Session(impatient)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
		}
		wg.Wait()
		fake.store.mu.Lock()
		defer fake.store.mu.Unlock()
		require.LessOrEqual(t, len(fake.store.leases), 2, "one was granted to the impatient, who did not hear of it")
	})
}

func TestSessionStates(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		s, err := c.Session(ctx)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		n := 0
		for state := range s.States(ctx) {
			require.Equal(t, Active, state)
			n++
		}
		require.Equal(t, 1, n, "the loop ended with its context")
		for range s.States(t.Context()) {
			break
		}
		require.Equal(t, []string{"active", "suspect", "lost"}, []string{Active.String(), Suspect.String(), Lost.String()})
	})
}

// TestCloseIsBounded: without a cluster, closing a session takes as long as its context allows, and closing the client a
// second.
func TestCloseIsBounded(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		s, err := c.Session(ctx)
		require.NoError(t, err)
		own, err := c.NewSession(ctx)
		require.NoError(t, err)
		fake.members["a"].stop()
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.Equal(t, time.Second, took(func() { err = own.Close(short) }))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, own.Err(), ErrSessionClosed, "for this process it is closed in any case")
		require.Equal(t, closeTimeout, took(func() { require.NoError(t, c.Close()) }))
		require.ErrorIs(t, s.Err(), ErrClosed)
	})
}

// TestCloseRevokes: what the sessions of a client own is free when the client is closed.
func TestCloseRevokes(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		s, err := c.Session(ctx)
		require.NoError(t, err)
		_, err = c.NewSession(ctx)
		require.NoError(t, err)
		_, err = c.Put(ctx, "a", []byte("1"), WithLease(s.ID()))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.Empty(t, fake.store.leases)
		require.Empty(t, fake.value("a"))
		require.ErrorIs(t, s.Err(), ErrClosed)
		require.NotErrorIs(t, s.Err(), ErrSessionLost)
	})
}

func TestSessionsAreBounded(t *testing.T) {
	k := newKeeper(nil)
	for id := range LeaseID(sessionsMax) {
		k.sessions[id] = nil
	}
	require.ErrorIs(t, k.add(&Session{}), ErrLimit)
}
