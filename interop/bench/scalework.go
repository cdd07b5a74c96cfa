package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/interop/harness"
)

const (
	scaleKeys       = 1_000_000
	scaleLeases     = 1_000_000
	scaleLeaseTTL   = 24 * 3600 // seconds: nobody renews them
	scaleStreams    = 100_000
	scaleWatches    = 1_000_000
	scaleWorkers    = 256 // callers that fill
	streamsPerConn  = 500
	watchesPerConn  = 10 // streams, of
	watchesAStream  = 1000
	sampledWatches  = 100 // that are seen to work
	restartDeadline = 5 * time.Minute
)

// scaleFlags raise what would refuse the numbers; neither makes a server faster.
var scaleFlags = map[harness.Kind][]string{
	harness.Etcd:     {"--quota-backend-bytes=8589934592"},
	harness.Latchkey: {"--quota-backend-bytes=8589934592"},
}

// each calls work for 0 to n-1 on the workers, and ends with the first error.
func (s *scaleRun) each(ctx context.Context, n int, work func(ctx context.Context, worker, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for worker := range scaleWorkers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				if err := work(ctx, worker, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// noteCost notes how long the filling took, and what it cost the servers.
func (s *scaleRun) noteCost(start time.Time, n int) error {
	took := time.Since(start)
	after, _, err := s.cluster.Usage()
	if err != nil {
		return err
	}
	s.note("made", "/s", float64(n)/took.Seconds())
	s.note("CPU of all servers for one", "us", (after.CPU-s.usage.CPU).Seconds()*1e6/float64(n))
	return nil
}

func scaleKey(i int) string { return fmt.Sprintf("bench/scale/%07d", i) }

// fillKeys puts the keys in transactions of preloadBatch, the fastest way on
// both sides, and then restarts a member, killed and told.
func fillKeys(ctx context.Context, s *scaleRun) error {
	n := s.number(scaleKeys)
	start := time.Now()
	err := s.each(ctx, (n+preloadBatch-1)/preloadBatch, func(ctx context.Context, worker, i int) error {
		var ops []clientv3.Op
		for k := i * preloadBatch; k < min(n, (i+1)*preloadBatch); k++ {
			ops = append(ops, clientv3.OpPut(scaleKey(k), payload))
		}
		_, err := s.conn(worker).Txn(ctx).Then(ops...).Commit()
		return err
	})
	if err != nil {
		return err
	}
	if err := errors.Join(s.noteCost(start, n), s.noteMemory(ctx, "with the keys")); err != nil {
		return err
	}
	m := s.cluster.Members[0]
	if err := s.restart(ctx, n, "kill -9", m, m.Kill); err != nil {
		return err
	}
	if err := s.restart(ctx, n, "SIGTERM", m, func() error { return m.Terminate(ctx) }); err != nil {
		return err
	}
	if err := wait(ctx, settleTime); err != nil {
		return err
	}
	u, err := m.Usage()
	s.note("resident after the restart", "MB", float64(u.RSS)/(1<<20))
	return err
}

// restart notes how long a member is away: from its new start to the answer of a
// linearizable read through it, and that nothing is missing.
func (s *scaleRun) restart(ctx context.Context, n int, how string, m *harness.Member, stop func() error) error {
	ctx, cancel := context.WithTimeout(ctx, restartDeadline)
	defer cancel()
	if err := stop(); err != nil {
		return err
	}
	start := time.Now()
	if err := m.Start(ctx); err != nil {
		return err
	}
	s.note("restart after "+how+", until it says so", "s", time.Since(start).Seconds())
	c, err := s.cluster.Client(m.ClientURL)
	if err != nil {
		return err
	}
	got, err := c.Get(ctx, scaleKey(0), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err = errors.Join(err, c.Close()); err != nil {
		return err
	}
	s.note("restart after "+how+", until a read is answered", "s", time.Since(start).Seconds())
	all, err := s.conn(0).Get(ctx, strings.TrimSuffix(scaleKey(0), "0000000"), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err == nil && (got.Count != 1 || all.Count != int64(n)) {
		err = fmt.Errorf("%d keys of %d after a restart", all.Count, n)
	}
	return err
}

// fillLeases grants leases that nobody renews or uses.
func fillLeases(ctx context.Context, s *scaleRun) error {
	n := s.number(scaleLeases)
	start := time.Now()
	err := s.each(ctx, n, func(ctx context.Context, worker, _ int) error {
		_, err := s.conn(worker).Grant(ctx, scaleLeaseTTL)
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(s.noteCost(start, n), s.noteMemory(ctx, "with the leases"))
}

func fillStreams(ctx context.Context, s *scaleRun) error {
	return s.watchKeys(ctx, s.number(scaleStreams), 1, streamsPerConn)
}

func fillWatches(ctx context.Context, s *scaleRun) error {
	return s.watchKeys(ctx, s.number(scaleWatches)/watchesAStream, watchesAStream, watchesPerConn)
}

// watchKeys opens streams with some watches each, of keys of their own, spread
// over the members, and sees that a sample of them delivers. The streams are
// those of the official API's stubs: the client's own object for a stream would
// only cost memory on our side.
func (s *scaleRun) watchKeys(ctx context.Context, streams, watches, streamsPerConn int) (err error) {
	if err := raiseFileLimit(); err != nil {
		return err
	}
	conns := make([]pb.WatchClient, (streams+streamsPerConn-1)/streamsPerConn)
	for i := range conns {
		m := s.cluster.Members[i%len(s.cluster.Members)]
		c, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(m.ClientURL, "http://"),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		conns[i] = pb.NewWatchClient(c)
	}
	open := make([]pb.Watch_WatchClient, streams) // each element is owned by who opens it
	start := time.Now()
	err = s.each(ctx, streams, func(ctx context.Context, _, i int) (err error) {
		// The stream outlives the call that opens it.
		open[i], err = openWatches(context.WithoutCancel(ctx), conns[i%len(conns)], i*watches, watches)
		return err
	})
	if err != nil {
		return err
	}
	err = errors.Join(s.noteCost(start, streams*watches), s.noteMemory(ctx, "with the watches"))
	if err != nil {
		return err
	}
	return s.sample(ctx, open, watches)
}

// openWatches opens a stream and returns once all of its watches are created.
func openWatches(ctx context.Context, c pb.WatchClient, first, n int) (pb.Watch_WatchClient, error) {
	stream, err := c.Watch(ctx)
	if err != nil {
		return nil, err
	}
	for i := range n {
		err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
			CreateRequest: &pb.WatchCreateRequest{Key: []byte(scaleKey(first + i))},
		}})
		if err != nil {
			return nil, err
		}
		r, err := stream.Recv()
		if err == nil && (!r.Created || r.Canceled) {
			err = fmt.Errorf("watch %d is not created: %s", first+i, r.CancelReason)
		}
		if err != nil {
			return nil, err
		}
	}
	return stream, nil
}

// sample puts some of the keys and waits for their events.
func (s *scaleRun) sample(ctx context.Context, open []pb.Watch_WatchClient, watches int) error {
	var took []float64
	for i := range min(sampledWatches, len(open)) {
		at := i * (len(open) / min(sampledWatches, len(open)))
		key := scaleKey(at*watches + i%watches)
		start := time.Now()
		if _, err := s.conn(i).Put(ctx, key, payload); err != nil {
			return err
		}
		r, err := open[at].Recv()
		if err == nil && (len(r.Events) != 1 || string(r.Events[0].Kv.Key) != key) {
			err = fmt.Errorf("watch of %s has %v", key, r)
		}
		if err != nil {
			return err
		}
		took = append(took, time.Since(start).Seconds()*1e3)
	}
	s.note("put to event, median", "ms", median(took))
	s.note("put to event, most", "ms", slices.Max(took))
	return nil
}

// raiseFileLimit lets this process, and the servers that it starts later, have
// as many files as the machine allows.
func raiseFileLimit() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}
