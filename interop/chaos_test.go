//go:build chaos

package interop_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/interop/harness"
	"github.com/latchkey-go/latchkey/recipes/barrier"
	"github.com/latchkey-go/latchkey/recipes/counter"
	"github.com/latchkey-go/latchkey/recipes/discovery"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

var (
	chaosFor  = flag.Duration("chaos.for", 25*time.Second, "how `long` the chaos test makes faults")
	chaosSeed = flag.Uint64("chaos.seed", 0, "`seed` of the chaos test; 0 for one of the clock")
)

const (
	chaosPrefix   = "chaos/"
	chaosSettle   = time.Minute     // for members and clients to come to rest after the last fault
	chaosPatience = 3 * time.Minute // for what must have happened, where a machine has much else to do
)

// chaosLeast is what must have happened in 25 seconds, in proportion.
var chaosLeast = map[string]int{
	"fault: member killed": 2, "fault: member stopped": 2, "fault: member cut off": 2, "fault: client stopped": 2, "fault: holder stopped for longer than its TTL": 2,
	"fault: answer lost": 50, "fault: request lost": 30, "fault: link down": 15,
	"fault: answer lost: TxnRequest": 1, "fault: answer lost: PutRequest": 1, "fault: answer lost: DeleteRangeRequest": 1,
	"fault: answer lost: RangeRequest": 1, "fault: answer lost: LeaseGrantRequest": 1, "leader": 100,
	"hold lock": 50, "hold rw": 50, "hold semaphore": 50, "hold election": 50, "hold group/a": 5, "hold group/b": 5, "lost": 2, "late: refused": 1,
	"pass": 20, "add": 100, "put": 100, "event: added": 50, "event: deleted": 50, "store/lock": 30, "store/rw": 10, "store/election": 30, "store/group/a": 5, "store/group/b": 5,
}

// TestChaos runs one of every recipe in each of five processes, while members are killed, stopped and cut off from each other, clients are stopped, and
// connections and answers are lost. What the processes have logged must then be possible, and nothing of them be left.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test -run %s -chaos.for %v -chaos.seed %d", t.Name(), *chaosFor, seed)
	ctx, cancel := context.WithTimeout(t.Context(), *chaosFor+chaosPatience+3*chaosSettle)
	defer cancel()
	counts := &chaosCounts{of: map[string]int{}}
	cluster, err := harness.Start(ctx, harness.Config{Kind: harness.Kind(*subjectKind), Members: 3, Network: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Close()) })
	plain := newOurClient(t, cluster).Namespace(chaosPrefix)
	store := watchChaosStore(t, ctx, plain, counts)
	var procs []*chaosProcess
	t.Cleanup(func() { keepChaosLog(t, procs) })
	takes := make(chan *chaosProcess)
	for i := range chaosParties {
		procs = append(procs, startChaosProcess(t, seed, i, cluster.Endpoints(), takes, counts))
	}

	makeChaos(t, ctx, seed, cluster, procs, takes, counts)
	for _, p := range procs {
		p.say(t, "stop")
	}
	for _, p := range procs {
		p.await(t, ctx, "stopped")
	}
	checkChaosService(t, ctx, plain)
	for _, p := range procs {
		p.say(t, "check")
		require.Equal(t, chaosContent(t, ctx, plain), p.await(t, ctx, "content").Content, "the cache of client %d", p.id)
	}
	var log []chaosEvent
	for _, p := range procs {
		require.NoError(t, p.in.Close())
		log = append(log, p.wait(t, ctx)...)
	}
	checkChaosLeft(t, ctx, plain)
	store(t)
	require.Empty(t, checkChaos(log))
	checkChaosSum(t, ctx, plain, log)
	for _, what := range slices.Sorted(maps.Keys(counts.of)) {
		t.Logf("%7d %s", counts.of[what], what)
	}
	require.Empty(t, counts.missing(), "too little has happened")
}

// chaosCounts counts what has happened.
type chaosCounts struct {
	mu sync.Mutex
	of map[string]int // mu protects
}

func (c *chaosCounts) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of[what]++
}

// event counts what a client has logged.
func (c *chaosCounts) event(e chaosEvent) {
	switch {
	case e.What == "hold":
		c.add(e.What + " " + e.Name)
		return
	case strings.HasSuffix(e.What, " lost") && e.Name != "":
		c.add(e.What + ": " + e.Name)
	}
	c.add(e.What)
}

// missing tells of what too little has happened.
func (c *chaosCounts) missing() (what []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, least := range chaosLeast {
		least = max(1, int(float64(least)*chaosFor.Seconds()/25))
		if c.of[name] < least {
			what = append(what, fmt.Sprintf("%s: %d of %d", name, c.of[name], least))
		}
	}
	return what
}

// chaosProcess is one of the clients.
type chaosProcess struct {
	id   int
	cmd  *exec.Cmd
	in   io.WriteCloser
	errs bytes.Buffer // complete once done is closed
	done chan struct{}
	err  error // how it ended; readable once done is closed

	mu      sync.Mutex
	changed chan struct{} // mu protects; closed and replaced at each line that somebody waits for
	events  []chaosEvent  // mu protects
}

func startChaosProcess(t *testing.T, seed uint64, id int, endpoints []string, takes chan<- *chaosProcess, counts *chaosCounts) *chaosProcess {
	t.Helper()
	p := &chaosProcess{id: id, done: make(chan struct{}), changed: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %s", chaosEnv, seed, id, strings.Join(endpoints, " ")))
	p.cmd.Stderr = &p.errs
	in, err := p.cmd.StdinPipe()
	require.NoError(t, err)
	p.in = in
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go p.read(out, takes, counts)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // by its process id; an error when it has ended
		<-p.done
	})
	return p
}

// read takes the process's log in until its end, and tells who waits for it when the process has begun to hold something alone.
func (p *chaosProcess) read(out io.Reader, takes chan<- *chaosProcess, counts *chaosCounts) {
	defer close(p.done)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e chaosEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = chaosEvent{What: "wrong", Text: lines.Text()}
		}
		e.client = p.id
		counts.event(e)
		if e.What == "take" && e.Token != 0 {
			select {
			case takes <- p:
			default:
			}
		}
		if e.What == "put" || strings.HasPrefix(e.What, "event: ") {
			continue // most of all, and of no use but to be counted
		}
		p.mu.Lock()
		p.events = append(p.events, e)
		if e.What == "stopped" || e.What == "content" {
			close(p.changed)
			p.changed = make(chan struct{})
		}
		p.mu.Unlock()
	}
	p.err = p.cmd.Wait()
}

func (p *chaosProcess) say(t *testing.T, line string) {
	t.Helper()
	_, err := fmt.Fprintln(p.in, line)
	require.NoError(t, err)
}

// await waits until the process says something.
func (p *chaosProcess) await(t *testing.T, ctx context.Context, what string) chaosEvent {
	t.Helper()
	for {
		p.mu.Lock()
		i := slices.IndexFunc(p.events, func(e chaosEvent) bool { return e.What == what })
		var e chaosEvent
		if i >= 0 {
			e = p.events[i]
		}
		changed := p.changed
		p.mu.Unlock()
		if i >= 0 {
			return e
		}
		select {
		case <-changed:
		case <-p.done:
			t.Fatalf("client %d ended: %v\n%s", p.id, p.err, p.errs.String())
		case <-ctx.Done():
			t.Fatalf("client %d did not say %q: %v\n%s", p.id, what, ctx.Err(), p.dump())
		}
	}
}

// dump ends the process and returns what its goroutines were at.
func (p *chaosProcess) dump() string {
	_ = p.cmd.Process.Signal(syscall.SIGQUIT) // an error when it has ended
	<-p.done
	return p.errs.String()
}

// keepChaosLog keeps what the clients of a test that failed have logged, in order of time, where go test -artifacts wants it.
func keepChaosLog(t *testing.T, procs []*chaosProcess) {
	if !t.Failed() {
		return
	}
	var all []chaosEvent
	for _, p := range procs {
		p.mu.Lock()
		all = append(all, p.events...)
		p.mu.Unlock()
	}
	slices.SortStableFunc(all, func(a, b chaosEvent) int { return cmp.Compare(a.At, b.At) })
	var out bytes.Buffer
	for _, e := range all {
		line, err := json.Marshal(e)
		require.NoError(t, err)
		fmt.Fprintf(&out, "%d %s\n", e.client, line)
	}
	file := filepath.Join(t.ArtifactDir(), "events")
	require.NoError(t, os.WriteFile(file, out.Bytes(), 0o600))
	t.Logf("the clients' events are in %s, kept with -artifacts", file)
}

func (p *chaosProcess) wait(t *testing.T, ctx context.Context) []chaosEvent {
	t.Helper()
	select {
	case <-p.done:
	case <-ctx.Done():
		t.Fatalf("client %d does not end\n%s", p.id, p.dump())
	}
	require.NoError(t, p.err, "client %d: %s", p.id, p.errs.String())
	return p.events
}

// chaos makes faults of members and of clients, one of each at a time.
type chaos struct {
	ctx, over context.Context // over ends when no more faults are to be made
	seed      uint64
	cluster   *harness.Cluster
	procs     []*chaosProcess
	takes     <-chan *chaosProcess
	counts    *chaosCounts
}

// makeChaos makes faults for as long as the test is to run, and then until enough has happened, and leaves everybody running.
func makeChaos(t *testing.T, ctx context.Context, seed uint64, cluster *harness.Cluster, procs []*chaosProcess, takes <-chan *chaosProcess, counts *chaosCounts) {
	over, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &chaos{ctx: ctx, over: over, seed: seed, cluster: cluster, procs: procs, takes: takes, counts: counts}
	errs := make(chan error, 2)
	go func() { errs <- c.members() }()
	go func() { errs <- c.clients() }()
	c.wait(*chaosFor)
	for end := time.Now().Add(chaosPatience); len(counts.missing()) > 0 && time.Now().Before(end); {
		c.wait(time.Second)
	}
	cancel()
	first, second := <-errs, <-errs
	require.NoError(t, first)
	require.NoError(t, second)
}

func (c *chaos) count(what string) { c.counts.add("fault: " + what) }

func (c *chaos) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.ctx.Done():
	}
}

// members kills one, then stops one, then cuts one off from the others, and so on.
func (c *chaos) members() (err error) {
	rng := rand.New(rand.NewPCG(c.seed, 1001))
	for n := 0; err == nil && c.over.Err() == nil; n++ {
		c.wait(time.Duration(200+rng.IntN(800)) * time.Millisecond)
		m, away := c.cluster.Members[rng.IntN(len(c.cluster.Members))], time.Duration(300+rng.IntN(1700))*time.Millisecond
		switch n % 3 {
		case 0:
			if err = m.Kill(); err == nil {
				c.count("member killed")
				c.wait(away)
				err = m.Start(c.ctx)
			}
		case 1:
			if err = m.Pause(); err == nil {
				c.count("member stopped")
				c.wait(away)
				err = m.Resume()
			}
		case 2:
			restore := m.CutOff()
			c.count("member cut off")
			c.wait(away)
			restore()
		}
	}
	return err
}

// clients stops one, then one that holds something for longer than its lease lasts, and so on.
func (c *chaos) clients() (err error) {
	rng := rand.New(rand.NewPCG(c.seed, 1002))
	for n := 0; err == nil && c.over.Err() == nil; n++ {
		c.wait(time.Duration(300+rng.IntN(1000)) * time.Millisecond)
		p, away, what := c.procs[rng.IntN(len(c.procs))], time.Duration(300+rng.IntN(1700))*time.Millisecond, "client stopped"
		if n%2 == 1 {
			select {
			case p = <-c.takes:
			case <-c.over.Done():
				return nil
			}
			away += chaosTTL
			what = "holder stopped for longer than its TTL"
		}
		if err = p.cmd.Process.Signal(syscall.SIGSTOP); err == nil {
			c.count(what)
			c.wait(away)
			err = p.cmd.Process.Signal(syscall.SIGCONT)
		}
	}
	return err
}

// watchChaosStore follows what was written under the guard of tokens. The function that it returns ends that: the tokens of a name never went down.
func watchChaosStore(t *testing.T, ctx context.Context, c *client.Client, counts *chaosCounts) func(t *testing.T) {
	res, err := c.Get(ctx, "store/", client.Prefix())
	require.NoError(t, err)
	require.Empty(t, res.KVs)
	ctx, cancel := context.WithCancel(ctx)
	var wrong []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		last := map[string]uint64{}
		for e, err := range c.Watch(ctx, "store/", client.Prefix(), client.FromRevision(res.Revision+1)) {
			if err != nil {
				if ctx.Err() == nil {
					wrong = append(wrong, err.Error())
				}
				return
			}
			if e.KV.Key == "store/end" {
				return
			}
			token, err := strconv.ParseUint(string(e.KV.Value), 10, 64)
			if err != nil || token < last[e.KV.Key] {
				wrong = append(wrong, fmt.Sprintf("%s: %q after %d", e.KV.Key, e.KV.Value, last[e.KV.Key]))
			}
			last[e.KV.Key] = token
			counts.add(e.KV.Key)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func(t *testing.T) {
		_, err := c.Put(ctx, "store/end", nil)
		require.NoError(t, err)
		<-done
		require.Empty(t, wrong)
	}
}

// checkChaosService waits until all clients are registered again.
func checkChaosService(t *testing.T, ctx context.Context, c *client.Client) {
	for s, err := range discovery.Watch[string](ctx, c, "service") {
		require.NoError(t, err, "not all are registered")
		if len(s.Instances) == chaosParties {
			return
		}
	}
}

// chaosContent is what every cache has to have.
func chaosContent(t *testing.T, ctx context.Context, c *client.Client) map[string]string {
	content := map[string]string{}
	res, err := c.Get(ctx, "cache/", client.Prefix())
	require.NoError(t, err)
	for _, kv := range res.KVs {
		value, err := strconv.Unquote(string(kv.Value))
		require.NoError(t, err)
		content[strings.TrimPrefix(kv.Key, "cache/")] = value
	}
	return content
}

// checkChaosLeft holds that one TTL after the clients have ended nothing is left but what is meant to stay. What has a lease may stay longer, as its end has to
// be noticed, on a machine that may have much else to do.
func checkChaosLeft(t *testing.T, ctx context.Context, c *client.Client) {
	select {
	case <-time.After(chaosTTL):
	case <-ctx.Done():
	}
	// All permits are free. The limit of a semaphore whose last holder was lost stays until the next release, which this is.
	permit, err := lock.NewSemaphore(c, "semaphore", chaosPermits).TryAcquire(ctx, chaosPermits)
	require.NoError(t, err)
	require.NoError(t, permit.Release(ctx))
	// So do the counts of a barrier, until the next member comes. They are gone some time after that one has.
	party, err := barrier.NewCyclic(c, "barrier", chaosParties).Join(ctx)
	require.NoError(t, err)
	require.NoError(t, party.Leave(ctx))
	own, err := c.Session(ctx)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(ctx, chaosSettle)
	defer cancel()
	for {
		res, err := c.Get(ctx, "", client.Prefix())
		require.NoError(t, err)
		left := slices.DeleteFunc(res.KVs, func(kv client.KV) bool { return chaosStays(kv, own.ID()) })
		if len(left) == 0 {
			return
		}
		for _, err := range c.Watch(ctx, "", client.Prefix(), client.FromRevision(res.Revision+1), client.WithoutPuts()) {
			require.NoError(t, err, "what is left: %v", left)
			break
		}
	}
}

// chaosStays says that a key is to be there when all clients are gone.
func chaosStays(kv client.KV, own client.LeaseID) bool {
	if kv.Lease != 0 {
		return kv.Lease == own
	}
	return kv.Key == "counter" || kv.Key == "barrier.gen" || strings.HasPrefix(kv.Key, "cache/") || strings.HasPrefix(kv.Key, "store/")
}

// checkChaosSum holds that the counter is the sum of what was added, with some or all of what may have been.
func checkChaosSum(t *testing.T, ctx context.Context, c *client.Client, log []chaosEvent) {
	var known, most int64
	for _, e := range log {
		switch e.What {
		case "add":
			known += e.N
			most += e.N
		case "add: unknown":
			most += e.N
		}
	}
	sum, _, err := counter.NewInt64(c, "counter").Get(ctx)
	require.NoError(t, err)
	require.GreaterOrEqual(t, sum, known)
	require.LessOrEqual(t, sum, most)
}
