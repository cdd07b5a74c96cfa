//go:build chaos

package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/interop/harness"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

var (
	fleetFor  = flag.Duration("fleet.for", 60*time.Second, "how `long` the fleet test makes faults")
	fleetLate = flag.Duration("fleet.late", 10*time.Second, "how much `later` than a TTL a dead worker's jobs may come again")
	fleetRate = flag.Int("fleet.rate", 120, "`jobs` a second that the fleet test puts in")
)

const (
	fleetWorkers = 3
	fleetGroups  = 4
	fleetKeys    = 5 // of the topic
)

// TestFleet has processes work on a queue and a topic while they are killed and stopped, members are killed and stopped, and answers are lost. Every job
// and message has its effect once, those of a group in order, and those of a dead worker come again within a TTL.
func TestFleet(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test -tags chaos -run %s -fleet.for %v -chaos.seed %d", t.Name(), *fleetFor, seed)
	ctx, cancel := context.WithTimeout(t.Context(), *fleetFor+5*time.Minute)
	defer cancel()
	cluster := startSide(t, *subjectKind, 3).cluster
	f := &fleet{
		t: t, ctx: ctx, seed: seed, cluster: cluster, plain: newOurClient(t, cluster).Namespace(fleetPrefix),
		counts: map[string]int{}, known: map[string]bool{},
	}
	var err error
	f.queue, err = openFleetQueue(ctx, f.plain)
	require.NoError(t, err)
	topic, err := openFleetTopic(ctx, f.plain)
	require.NoError(t, err)
	require.NoError(t, topic.Group("g").Seek(ctx, pubsub.Earliest())) // from now on, what it has not handled is kept
	for range fleetWorkers {
		f.procs = append(f.procs, f.start())
	}
	over, stop := context.WithTimeout(ctx, *fleetFor)
	defer stop()
	var work sync.WaitGroup
	work.Go(func() { f.enqueue(over) })
	work.Go(func() { f.publish(over) })
	work.Go(func() { f.revive(over) })
	f.faults(over)
	work.Wait()
	f.settle()
	for _, p := range f.procs {
		require.NoError(t, p.in.Close())
		p.await(t, ctx)
	}
	f.judge()
}

// fleet is one run of the test.
type fleet struct {
	t       *testing.T
	ctx     context.Context
	seed    uint64
	cluster *harness.Cluster
	plain   *client.Client
	queue   *queue.Queue[fleetJob]
	procs   []*fleetProcess // owned by the goroutine of the faults
	born    int
	kills   []fleetKill
	doubts  atomic.Int64 // messages that may come late

	mu     sync.Mutex
	counts map[string]int  // mu protects
	known  map[string]bool // mu protects; what was put in for sure
	log    []fleetEvent    // mu protects; of all workers
}

// fleetKill is the end of a worker, and the jobs that it was running.
type fleetKill struct {
	at   int64
	open map[string]bool
}

func (f *fleet) count(what string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[what] += n
}

// told notes what became of a job that was put in.
func (f *fleet) told(j fleetJob, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.known[j.name()] = true
		f.counts["put in: "+j.Kind]++
	case errors.Is(err, client.ErrUncertain):
		f.counts["put in, perhaps"]++
	case f.ctx.Err() == nil:
		f.counts["refused: "+err.Error()]++
	}
}

// fleetProcess is one of the workers.
type fleetProcess struct {
	f    *fleet
	cmd  *exec.Cmd
	in   io.WriteCloser
	errs bytes.Buffer // complete once done is closed
	done chan struct{}
	err  error // how it ended; readable once done is closed

	mu   sync.Mutex
	open map[string]bool // mu protects; jobs that it runs
}

func (f *fleet) start() *fleetProcess {
	f.t.Helper()
	f.born++
	p := &fleetProcess{f: f, done: make(chan struct{}), open: map[string]bool{}}
	p.cmd = exec.CommandContext(f.ctx, os.Args[0])
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %s", fleetEnv, f.seed, f.born, strings.Join(f.cluster.Endpoints(), " ")))
	p.cmd.Stderr = &p.errs
	in, err := p.cmd.StdinPipe()
	require.NoError(f.t, err)
	p.in = in
	out, err := p.cmd.StdoutPipe()
	require.NoError(f.t, err)
	require.NoError(f.t, p.cmd.Start())
	go p.read(out)
	f.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // by its process id; an error when it has ended
		<-p.done
	})
	return p
}

// read takes the log in until the process ends.
func (p *fleetProcess) read(out io.Reader) {
	defer close(p.done)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e fleetEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // cut off by a kill
		}
		p.mu.Lock()
		switch e.What {
		case "start":
			p.open[e.Name] = true
		case "end":
			delete(p.open, e.Name)
		}
		p.mu.Unlock()
		p.f.mu.Lock()
		p.f.log = append(p.f.log, e)
		p.f.mu.Unlock()
	}
	p.err = p.cmd.Wait()
}

// await waits for the end of a process that was told to end.
func (p *fleetProcess) await(t *testing.T, ctx context.Context) {
	select {
	case <-p.done:
	case <-ctx.Done():
		t.Fatal("a worker does not end")
	}
	require.NoError(t, p.err, p.errs.String())
}

// ended notes what a process that has died was running.
func (f *fleet) ended(p *fleetProcess, at int64) {
	<-p.done
	f.kills = append(f.kills, fleetKill{at: at, open: p.open})
}

// faults makes one fault after the other, so that it is known what each of them does, and replaces workers that have died.
func (f *fleet) faults(over context.Context) {
	rng := rand.New(rand.NewPCG(f.seed, 2001))
	for n := 0; over.Err() == nil; n++ {
		f.wait(time.Duration(200+rng.IntN(500)) * time.Millisecond)
		f.replace()
		i := rng.IntN(len(f.procs))
		p := f.procs[i]
		switch n % 5 {
		case 0, 3:
			at := chaosNow()
			require.NoError(f.t, p.cmd.Process.Kill())
			f.count("fault: worker killed", 1)
			f.ended(p, at)
			f.procs[i] = f.start()
			f.wait(fleetTTL + time.Second) // with nothing else in the way
		case 1:
			f.member(rng)
		case 2:
			if p.cmd.Process.Signal(syscall.SIGSTOP) == nil {
				f.count("fault: worker stopped for longer than its TTL", 1)
				f.wait(fleetTTL + time.Duration(500+rng.IntN(1500))*time.Millisecond)
				_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may be gone
			}
		case 4:
			if err := f.queue.Reshard(f.ctx, 2+rng.IntN(9)); err == nil {
				f.count("resharded", 1)
			}
			if err := f.plain.Compact(f.ctx, f.plain.Seen()); err == nil {
				f.count("compacted", 1)
			}
		}
	}
	f.replace()
}

// member kills or stops a member for a while.
func (f *fleet) member(rng *rand.Rand) {
	m, away := f.cluster.Members[rng.IntN(len(f.cluster.Members))], time.Duration(300+rng.IntN(1500))*time.Millisecond
	if rng.IntN(2) == 0 {
		require.NoError(f.t, m.Kill())
		f.count("fault: member killed", 1)
		f.wait(away)
		require.NoError(f.t, m.Start(f.ctx))
	} else {
		require.NoError(f.t, m.Pause())
		f.count("fault: member stopped", 1)
		f.wait(away)
		require.NoError(f.t, m.Resume())
	}
	_, err := f.cluster.Leader(f.ctx)
	require.NoError(f.t, err)
}

// replace starts a worker for each that a job has killed.
func (f *fleet) replace() {
	for i, p := range f.procs {
		select {
		case <-p.done:
			f.count("worker ended by a job", 1)
			require.Equal(f.t, 3, p.cmd.ProcessState.ExitCode(), p.errs.String())
			f.procs[i] = f.start()
		default:
		}
	}
}

func (f *fleet) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-f.ctx.Done():
	}
}

// wire returns a client that loses answers.
func (f *fleet) wire(stream uint64) *client.Client {
	wire := &clienttest.Wire{}
	cfg := wire.Config()
	cfg.Endpoints, cfg.Namespace, cfg.SessionTTL = f.cluster.Endpoints(), fleetPrefix, fleetTTL
	c, err := client.New(cfg)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { _ = c.Close() })
	wire.Before(loseSome(rand.New(rand.NewPCG(f.seed, stream))))
	return c
}

// enqueue puts in jobs of all kinds until it is over.
func (f *fleet) enqueue(over context.Context) {
	q, err := openFleetQueue(f.ctx, f.wire(3001))
	if err != nil {
		f.t.Error(err)
		return
	}
	p, err := q.Producer(queue.WithPack(16))
	if err != nil {
		f.t.Error(err)
		return
	}
	var calls sync.WaitGroup
	for g := range fleetGroups {
		calls.Go(func() { f.enqueueGroup(over, q, g) })
	}
	rest := time.Second / time.Duration(*fleetRate) * (fleetGroups + 4) / 4
	kinds := []string{jobPlain, jobPacked, jobPacked, jobDelayed, jobFails, jobPacked, jobDead, jobPlain, jobLong}
	room := make(chan struct{}, 500)
	for n := 0; over.Err() == nil; n++ {
		j := fleetJob{Kind: kinds[n%len(kinds)], N: n}
		if n%3000 == 1500 {
			j.Kind = jobKills
		}
		var opts []queue.EnqueueOption
		if n%2 == 0 {
			opts = append(opts, queue.Priority(1))
		}
		if j.Kind == jobDelayed {
			due := time.Now().Add(time.Duration(500+n%1500) * time.Millisecond)
			j.Due = due.UnixMilli()
			opts = append(opts, queue.At(due))
		}
		room <- struct{}{}
		calls.Go(func() {
			defer func() { <-room }()
			var err error
			if j.Kind == jobPacked {
				var d *queue.Pending
				if d, err = p.Send(f.ctx, j, opts...); err == nil {
					_, err = d.Wait(f.ctx)
				}
			} else {
				_, err = q.Enqueue(f.ctx, j, opts...)
			}
			f.told(j, err)
		})
		f.wait(rest)
	}
	calls.Wait()
	if err := p.Close(f.ctx); err != nil {
		f.t.Error(err)
	}
}

// enqueueGroup puts in the jobs of a group, one after the other, so that there is an order to keep.
func (f *fleet) enqueueGroup(over context.Context, q *queue.Queue[fleetJob], g int) {
	name := fmt.Sprint("g", g)
	for n := g; over.Err() == nil; n += fleetGroups {
		j := fleetJob{Kind: jobGroup, N: n}
		_, err := q.Enqueue(f.ctx, j, queue.Group(name))
		if f.told(j, err); err != nil {
			name = fmt.Sprintf("g%d from %d", g, n) // it may still come, behind later ones
		}
		f.wait(2 * fleetGroups * time.Second / time.Duration(*fleetRate))
	}
}

// publish publishes messages until it is over.
func (f *fleet) publish(over context.Context) {
	topic, err := openFleetTopic(f.ctx, f.wire(3002))
	if err != nil {
		f.t.Error(err)
		return
	}
	p := topic.Publisher()
	var told sync.WaitGroup
	for n := 0; over.Err() == nil; n++ {
		j := fleetJob{Kind: "message", N: n}
		pending, err := p.Publish(f.ctx, j, pubsub.Key(fmt.Sprintf("k%d.%d", n%fleetKeys, f.doubts.Load())))
		if err != nil {
			f.told(j, err)
			continue
		}
		told.Go(func() {
			_, err := pending.Wait(f.ctx)
			if f.told(j, err); err != nil {
				f.doubts.Add(1) // it may still come, behind later ones of its key
			}
		})
		f.wait(time.Second / time.Duration(*fleetRate))
	}
	told.Wait()
	if err := p.Close(f.ctx); err != nil {
		f.t.Error(err)
	}
}

// revive redrives dead letters that are meant to be, until it is over.
func (f *fleet) revive(over context.Context) {
	for over.Err() == nil {
		f.wait(2 * time.Second)
		if _, err := f.reviveAll(); err != nil && f.ctx.Err() == nil {
			f.count("redriving failed", 1)
		}
	}
}

// reviveAll redrives what was discarded, and returns how many dead letters are left to redrive.
func (f *fleet) reviveAll() (left int, err error) {
	for in, err := range f.queue.Dead().Items(f.ctx) {
		if err != nil {
			return left, err
		}
		var j fleetJob
		if err := json.Unmarshal(in.Payload, &j); err != nil {
			return left, err
		}
		if j.Kind == jobKills {
			continue
		}
		left++
		if _, err := f.plain.Put(f.ctx, "revive/"+j.name(), nil); err != nil {
			return left, err
		}
		n, err := f.queue.Dead().Redrive(f.ctx, in.ID)
		if err != nil {
			return left, err
		}
		f.count("redriven", n)
	}
	return left, nil
}

// settle waits until all is done.
func (f *fleet) settle() {
	for f.ctx.Err() == nil {
		f.replace()
		left, err := f.reviveAll()
		st, failed := f.queue.Stats(f.ctx)
		group, lagErr := f.lag()
		if errors.Join(err, failed, lagErr) == nil && left+st.Ready+st.Delayed+st.Running == 0 && group == 0 {
			return
		}
		f.wait(200 * time.Millisecond)
	}
	st, _ := f.queue.Stats(context.Background())
	f.t.Fatalf("not all was done: %+v", st)
}

func (f *fleet) lag() (int64, error) {
	topic, err := openFleetTopic(f.ctx, f.plain)
	if err != nil {
		return 0, err
	}
	lag, err := topic.Group("g").Lag(f.ctx)
	return lag.Messages, err
}

// keys returns the keys below a prefix, without it, with their versions.
func (f *fleet) keys(prefix string) map[string]int64 {
	out := map[string]int64{}
	for from := prefix; ; {
		res, err := f.plain.Get(f.ctx, from, client.Range(prefix+"~"), client.Limit(1000))
		require.NoError(f.t, err)
		for _, kv := range res.KVs {
			out[strings.TrimPrefix(kv.Key, prefix)] = kv.Version
			from = kv.Key + "\x00"
		}
		if !res.More {
			return out
		}
	}
}

// judge holds what must be, and tells what has happened.
func (f *fleet) judge() {
	effects := f.keys("effect/")
	lost, double := 0, len(f.keys("double/"))
	for name := range f.known {
		if strings.HasPrefix(name, jobKills) {
			continue
		}
		if effects[name] == 0 {
			lost++
			f.t.Errorf("%s is lost", name)
		}
	}
	for name, version := range effects {
		if version != 1 {
			double++
			f.t.Errorf("%s had %d effects", name, version)
		}
		if strings.HasPrefix(name, jobCron) {
			f.counts["ticks of the cron entry"]++
		}
	}
	killers := 0
	for in, err := range f.queue.Dead().Items(f.ctx) {
		require.NoError(f.t, err)
		killers++
		require.Contains(f.t, in.LastError, "workers died", "%+v", in)
	}
	disorder := slices.Sorted(maps.Keys(f.keys("disorder/")))
	early, again, late := f.redelivered()
	for _, what := range slices.Sorted(maps.Keys(f.counts)) {
		f.t.Logf("%7d %s", f.counts[what], what)
	}
	f.t.Logf("%7d effects; %d lost, %d double, %d out of order, %d too early, %d killers among the dead letters", len(effects), lost, double, len(disorder), early, killers)
	f.t.Logf("%7d jobs of killed workers were started again, at the latest %v after the kill (TTL %v)", again, late.Round(time.Millisecond), fleetTTL)
	require.Zero(f.t, double)
	for _, what := range disorder {
		name, _, _ := strings.Cut(what, " ")
		f.t.Errorf("%s (put in for sure: %v)", what, f.known[name])
	}
	require.Zero(f.t, early)
	require.Equal(f.t, f.counts["put in: "+jobKills], killers)
	require.LessOrEqual(f.t, late, fleetTTL+*fleetLate)
	f.enough(len(effects), again)
}

// redelivered tells how long it took until jobs of workers that were killed were started again.
func (f *fleet) redelivered() (early, again int, late time.Duration) {
	starts := map[string][]int64{}
	for _, e := range f.log {
		switch e.What {
		case "start":
			starts[e.Name] = append(starts[e.Name], e.At)
		case "early":
			early++
		}
	}
	for _, k := range f.kills {
		for name := range k.open {
			i := slices.IndexFunc(starts[name], func(at int64) bool { return at > k.at })
			if i >= 0 { // else it had ended
				again++
				late = max(late, time.Duration(starts[name][i]-k.at))
			}
		}
	}
	return early, again, late
}

// enough fails if too little has happened: a quiet run is no pass.
func (f *fleet) enough(effects, again int) {
	share := fleetFor.Seconds() / 60
	for what, least := range map[string]float64{
		"fault: worker killed": 4, "fault: worker stopped for longer than its TTL": 1, "resharded": 1, "redriven": 20,
		"ticks of the cron entry": 10, "put in: " + jobGroup: 100, "put in: " + jobPacked: 200, "put in: message": 300,
	} {
		require.GreaterOrEqual(f.t, float64(f.counts[what]), least*share, what)
	}
	require.GreaterOrEqual(f.t, f.counts["fault: member killed"]+f.counts["fault: member stopped"], int(share))
	require.Greater(f.t, float64(effects), 1000*share)
	require.Greater(f.t, float64(again), share)
}
