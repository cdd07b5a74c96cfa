package interop_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/latchkey-go/latchkey/api/v3lockpb"
	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// How often each party takes the lock. etcdctl is a process each time.
const (
	ourRounds    = 12
	mutexRounds  = 12
	serviceRound = 12
	etcdctlRound = 5
	setRounds    = 12
	parties      = 2 // of each kind
)

// TestLocksExcludeEachOther lets our lock, alone and as one of several that are
// taken together, etcd's concurrency.Mutex, the lock service and the command
// etcdctl lock contend for one name. They must exclude one another, on either
// server.
func TestLocksExcludeEachOther(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			s := startSide(t, kind, 1)
			ctx := testContext(t)
			w := &witness{held: make(map[string]int)}
			var wg sync.WaitGroup
			errs := make([]error, 5*parties)
			for i := range parties {
				ctl := newCtl(t, s)
				wg.Go(func() { errs[5*i] = w.contendOurs(ctx, s) })
				wg.Go(func() { errs[5*i+1] = w.contendMutex(ctx, s) })
				wg.Go(func() { errs[5*i+2] = w.contendEtcdctl(ctx, ctl) })
				wg.Go(func() { errs[5*i+3] = w.contendService(ctx, s) })
				wg.Go(func() { errs[5*i+4] = w.contendSet(ctx, s, i) })
			}
			wg.Wait()
			require.NoError(t, errors.Join(errs...))
			require.Equal(t, map[string]int{
				"lock": parties * ourRounds, "mutex": parties * mutexRounds, "etcdctl": parties * etcdctlRound,
				"service": parties * serviceRound, "set": parties * setRounds,
			}, w.held)
			counter, err := newCtl(t, s).run(ctx, ctlStep{args: "get --print-value-only " + counterKey})
			require.NoError(t, err)
			require.Equal(t, strconv.Itoa(parties*(ourRounds+mutexRounds+etcdctlRound+serviceRound+setRounds)), strings.TrimSpace(counter),
				"no addition is lost")
			require.Greater(t, w.changes, parties*etcdctlRound, "the lock went from one kind to another")
		})
	}
}

const (
	contendedName = "interop/contended"
	counterKey    = "interop/counter"
)

// plusOne is what every holder does to the counter in the store, in two steps:
// with two holders at once, an addition would be lost.
func plusOne(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		text = "0"
	}
	n, err := strconv.Atoi(text)
	return strconv.Itoa(n + 1), err
}

// witness notices two holders at once.
type witness struct {
	mu      sync.Mutex
	holder  string         // protected by mu; empty for nobody
	last    string         // protected by mu
	held    map[string]int // protected by mu; how often by kind
	changes int            // protected by mu; how often the kind of holder changed
}

func (w *witness) enter(kind string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holder != "" {
		return errors.New(kind + " holds the lock, and so does " + w.holder)
	}
	w.holder = kind
	w.held[kind]++
	if w.last != kind {
		w.changes++
	}
	w.last = kind
	return nil
}

func (w *witness) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holder = ""
}

func (w *witness) contendOurs(ctx context.Context, s *side) error {
	c, err := client.New(client.Config{Endpoints: s.cluster.Endpoints()})
	if err != nil {
		return err
	}
	defer c.Close()
	l := lock.New(c, contendedName)
	for range ourRounds {
		err := l.Do(ctx, func(ctx context.Context, held *lock.Held) error {
			defer w.leave()
			if err := w.enter("lock"); err != nil {
				return err
			}
			kv, err := c.GetOne(ctx, counterKey)
			if err != nil && !errors.Is(err, client.ErrNotFound) {
				return err
			}
			next, err := plusOne(string(kv.Value))
			if err != nil {
				return err
			}
			_, err = held.Txn().Then(client.OpPut(counterKey, []byte(next))).Commit(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *witness) contendMutex(ctx context.Context, s *side) error {
	cli, err := s.cluster.Client()
	if err != nil {
		return err
	}
	defer cli.Close()
	session, err := concurrency.NewSession(cli)
	if err != nil {
		return err
	}
	defer session.Close()
	for range mutexRounds {
		m := concurrency.NewMutex(session, contendedName)
		if err := m.Lock(ctx); err != nil {
			return err
		}
		if err := errors.Join(w.work(ctx, "mutex", s), m.Unlock(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// work adds one to the counter.
func (w *witness) work(ctx context.Context, kind string, s *side) error {
	defer w.leave()
	if err := w.enter(kind); err != nil {
		return err
	}
	got, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte(counterKey)})
	if err != nil {
		return err
	}
	text := ""
	if len(got.Kvs) > 0 {
		text = string(got.Kvs[0].Value)
	}
	next, err := plusOne(text)
	if err != nil {
		return err
	}
	_, err = s.kv.Put(ctx, &pb.PutRequest{Key: []byte(counterKey), Value: []byte(next)})
	return err
}

// contendSet takes the lock together with others, in an order of its own, and
// lets a mutex of etcd's client take one of the others in between.
func (w *witness) contendSet(ctx context.Context, s *side, party int) error {
	c, err := client.New(client.Config{Endpoints: s.cluster.Endpoints()})
	if err != nil {
		return err
	}
	defer c.Close()
	cli, err := s.cluster.Client()
	if err != nil {
		return err
	}
	defer cli.Close()
	session, err := concurrency.NewSession(cli)
	if err != nil {
		return err
	}
	defer session.Close()
	names := []string{"interop/first", contendedName, "interop/second"}
	if party%2 == 1 {
		slices.Reverse(names)
	}
	m := concurrency.NewMutex(session, names[0])
	for range setRounds {
		err := lock.DoAll(ctx, c, names, func(ctx context.Context, held *lock.HeldSet) error {
			if err := m.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
				return fmt.Errorf("a mutex has one of our locks: %v", err)
			}
			return errors.Join(w.work(ctx, "set", s), held.Check(ctx))
		})
		if err == nil {
			err = errors.Join(m.Lock(ctx), m.Unlock(ctx))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// contendService has the server wait for the lock, every other time with a
// lease that the server makes.
func (w *witness) contendService(ctx context.Context, s *side) error {
	locks := v3lockpb.NewLockClient(s.conn)
	lease, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: int64(testTimeout.Seconds())})
	if err != nil {
		return err
	}
	for i := range serviceRound {
		request := &v3lockpb.LockRequest{Name: []byte(contendedName)}
		if i%2 == 0 {
			request.Lease = lease.ID
		}
		held, err := locks.Lock(ctx, request)
		if err != nil {
			return err
		}
		err = w.work(ctx, "service", s)
		_, unlockErr := locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: held.Key})
		if err := errors.Join(err, unlockErr); err != nil {
			return err
		}
	}
	return nil
}

// contendEtcdctl holds the lock from the line that the command prints to its
// interruption.
func (w *witness) contendEtcdctl(ctx context.Context, c *ctl) error {
	work := func() error {
		defer w.leave()
		if err := w.enter("etcdctl"); err != nil {
			return err
		}
		text, err := c.run(ctx, ctlStep{args: "get --print-value-only " + counterKey})
		if err != nil {
			return err
		}
		next, err := plusOne(text)
		if err != nil {
			return err
		}
		_, err = c.run(ctx, ctlStep{args: "put " + counterKey + " " + next})
		return err
	}
	for range etcdctlRound {
		r, err := c.start(ctx, ctlStep{args: "lock " + contendedName})
		if err != nil {
			return err
		}
		if _, err := r.read(1); err != nil {
			return errors.Join(err, r.interrupt())
		}
		if err := errors.Join(work(), r.interrupt()); err != nil {
			return err
		}
	}
	return nil
}
