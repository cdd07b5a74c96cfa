//go:build chaos

package interop_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/barrier"
	"github.com/latchkey-go/latchkey/recipes/cache"
	"github.com/latchkey-go/latchkey/recipes/counter"
	"github.com/latchkey-go/latchkey/recipes/discovery"
	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// chaosEnv makes this test binary a client of the chaos test: "<seed> <client> <endpoint>...".
const chaosEnv = "LATCHKEY_CHAOS_CLIENT"

const (
	chaosTTL     = 2 * time.Second
	chaosParties = 5 // clients, and members of the barrier
	chaosPermits = 3 // of the semaphore
	chaosCall    = 3 * time.Second
)

// chaosEvent is one line of a client's log. Times are nanoseconds of the machine's monotonic clock, which is one for all processes.
type chaosEvent struct {
	What   string `json:"what"`
	At     int64  `json:"at"` // when the line was written
	Name   string `json:"name,omitempty"`
	Token  uint64 `json:"token,omitempty"`
	Weight int64  `json:"weight,omitempty"` // of a hold: how much of the name it takes
	// From and To are the first and the last moment at which a hold was seen to be valid, or at which a member of the barrier had arrived and went on.
	From       int64             `json:"from,omitempty"`
	To         int64             `json:"to,omitempty"`
	Generation uint64            `json:"generation,omitempty"`
	Members    []string          `json:"members,omitempty"`
	N          int64             `json:"n,omitempty"`
	Sum        int64             `json:"sum,omitempty"`
	Text       string            `json:"text,omitempty"`
	Content    map[string]string `json:"content,omitempty"`
	client     int               // set by the parent
}

func chaosNow() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// chaosClient is a process with one of every recipe.
type chaosClient struct {
	id   int
	seed uint64
	c    *client.Client
	stop context.Context // ends when the work is to end
	work sync.WaitGroup

	mu  sync.Mutex
	out *json.Encoder // mu protects
}

// runChaosClient is the whole life of the process: it works until it reads "stop", says what its cache has at "check", and gives everything back when its input ends.
func runChaosClient(args string) error {
	fields := strings.Fields(args)
	seed, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(fields[1])
	if err != nil {
		return err
	}
	stop, cancel := context.WithCancel(context.Background())
	defer cancel()
	p := &chaosClient{id: id, seed: seed, stop: stop, out: json.NewEncoder(os.Stdout)}
	wire, link := &clienttest.Wire{}, clienttest.NewLink()
	cfg := wire.Config()
	cfg.Endpoints, cfg.Namespace, cfg.SessionTTL, cfg.Dialer = fields[2:], chaosPrefix, chaosTTL, link.Dial
	if p.c, err = client.New(cfg); err != nil {
		return err
	}
	defer p.c.Close()
	wire.Before(p.loseAnswers(p.rng(0)))
	copied, err := cache.New[string](p.c, "cache/")
	if err != nil {
		return err
	}
	defer copied.Close()
	p.start(link, copied)
	in := bufio.NewScanner(os.Stdin)
	var registration *discovery.Registration[string]
	registered := make(chan error, 1)
	go func() {
		var err error
		registration, err = discovery.Register(context.Background(), p.c, discovery.Instance[string]{Service: "service", ID: p.name(), Addr: p.name()})
		registered <- err
	}()
	for in.Scan() && in.Text() != "stop" {
	}
	cancel()
	p.work.Wait()
	if err := <-registered; err != nil {
		return err
	}
	wire.Before(nil)
	p.log(chaosEvent{What: "stopped"})
	if !in.Scan() {
		return errors.New("the parent has gone")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := copied.Sync(ctx); err != nil {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2) // for who looks for the cause
		return fmt.Errorf("at revision %d: %w", copied.Rev(), err)
	}
	content := map[string]string{}
	for key, item := range copied.All() {
		content[key] = item.Value
	}
	p.log(chaosEvent{What: "content", Content: content})
	for in.Scan() {
	}
	return registration.Close(ctx)
}

func (p *chaosClient) name() string { return chaosName(p.id) }

func chaosName(id int) string { return fmt.Sprintf("client%d", id) }

// rng gives the n-th goroutine its own chance.
func (p *chaosClient) rng(n int) *rand.Rand {
	return rand.New(rand.NewPCG(p.seed, uint64(p.id*100+n)))
}

func (p *chaosClient) log(e chaosEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.At = chaosNow()
	if err := p.out.Encode(e); err != nil {
		panic(err) // the parent has gone
	}
}

// pause waits for up to so long, or until the work is to end.
func (p *chaosClient) pause(rng *rand.Rand, most time.Duration) {
	select {
	case <-time.After(time.Duration(rng.Int64N(int64(most)))):
	case <-p.stop.Done():
	}
}

// loseAnswers loses the answers of some calls, the first of each kind included, and some before they have arrived.
func (p *chaosClient) loseAnswers(rng *rand.Rand) func(context.Context, *clienttest.Call) clienttest.Fate {
	called := map[string]bool{}
	return func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		kind := string(c.Req.(proto.Message).ProtoReflect().Descriptor().Name())
		n := rng.IntN(100)
		if !called[kind] {
			called[kind], n = true, 0
		}
		switch {
		case n < 3:
			p.log(chaosEvent{What: "fault: answer lost", Name: kind})
			return clienttest.AnswerDropped
		case n < 5:
			p.log(chaosEvent{What: "fault: request lost", Name: kind})
			return clienttest.RequestLost
		}
		return clienttest.Arrives
	}
}

// start runs one of every recipe, and a network that breaks.
func (p *chaosClient) start(link *clienttest.Link, copied *cache.Cache[string]) {
	for i, run := range []func(rng *rand.Rand){
		func(rng *rand.Rand) { p.breakLink(rng, link) },
		p.lockWork, p.rwWork, p.semaphoreWork, p.electionWork, p.observeWork, p.barrierWork, p.counterWork, p.cacheWork,
		func(*rand.Rand) { p.follow(copied) },
	} {
		rng := p.rng(i + 1)
		p.work.Go(func() { run(rng) })
	}
}

func (p *chaosClient) breakLink(rng *rand.Rand, link *clienttest.Link) {
	for p.stop.Err() == nil {
		p.pause(rng, 6*time.Second)
		restore := link.Down()
		p.log(chaosEvent{What: "fault: link down"})
		p.pause(rng, 600*time.Millisecond)
		restore()
	}
}

// chaosGrip is what the handles of locks, permits and leaderships have in common.
type chaosGrip interface {
	Context() context.Context
	Valid() bool
	Txn() *client.GuardedTxn
	Release(ctx context.Context) error
}

// chaosTerm gives a leadership the names of a lock.
type chaosTerm struct{ *election.Leadership[string] }

func (t chaosTerm) Release(ctx context.Context) error { return t.Resign(ctx) }

func (p *chaosClient) lockWork(rng *rand.Rand) {
	l := lock.New(p.c, "lock")
	for p.stop.Err() == nil {
		h, err := l.Acquire(p.stop)
		if p.failed("lock", err, rng) {
			continue
		}
		p.hold(h, chaosEvent{Name: "lock", Token: uint64(h.Token()), Weight: 1}, rng)
	}
}

func (p *chaosClient) rwWork(rng *rand.Rand) {
	l := lock.NewRW(p.c, "rw")
	for p.stop.Err() == nil {
		if rng.IntN(3) > 0 {
			h, err := l.RLock(p.stop)
			if !p.failed("rw", err, rng) {
				p.hold(h, chaosEvent{Name: "rw", Weight: 1}, rng)
			}
			continue
		}
		h, err := l.Lock(p.stop)
		if !p.failed("rw", err, rng) {
			p.hold(h, chaosEvent{Name: "rw", Token: uint64(h.Token()), Weight: chaosParties}, rng)
		}
	}
}

func (p *chaosClient) semaphoreWork(rng *rand.Rand) {
	s := lock.NewSemaphore(p.c, "semaphore", chaosPermits)
	for p.stop.Err() == nil {
		h, err := s.Acquire(p.stop, 1+rng.Int64N(2))
		if !p.failed("semaphore", err, rng) {
			p.hold(h, chaosEvent{Name: "semaphore", Weight: h.Permits()}, rng)
		}
	}
}

func (p *chaosClient) electionWork(rng *rand.Rand) {
	e := election.New[string](p.c, "election")
	for p.stop.Err() == nil {
		l, err := e.Campaign(p.stop, p.name())
		if !p.failed("election", err, rng) {
			p.hold(chaosTerm{l}, chaosEvent{Name: "election", Token: uint64(l.Term()), Weight: 1}, rng)
		}
	}
}

// observeWork tells who leads, as seen from outside.
func (p *chaosClient) observeWork(*rand.Rand) {
	for leader, err := range election.New[string](p.c, "election").Observe(p.stop) {
		switch {
		case err != nil && p.stop.Err() == nil:
			p.log(chaosEvent{What: "wrong", Text: "observing ended: " + err.Error()})
		case err == nil && !leader.Vacant:
			p.log(chaosEvent{What: "leader", Name: leader.Value, Token: uint64(leader.Term)})
		}
	}
}

// failed records an error of an acquisition; the work goes on.
func (p *chaosClient) failed(name string, err error, rng *rand.Rand) bool {
	if err == nil {
		return false
	}
	if p.stop.Err() == nil {
		p.log(chaosEvent{What: "failed", Name: name, Text: err.Error()})
		p.pause(rng, 50*time.Millisecond)
	}
	return true
}

// hold keeps what was acquired for a while, writes to the store that its token guards, and gives it back. Its log says from when to when the handle was
// valid: a moment counts if Valid was true after it, so a process that was stopped in between can not claim what it no longer had.
func (p *chaosClient) hold(h chaosGrip, e chaosEvent, rng *rand.Rand) {
	e.What = "hold"
	written := make(chan struct{})
	go func() {
		defer close(written)
		p.write(h, e, "write")
	}()
	end := time.After(time.Duration(5+rng.IntN(60)) * time.Millisecond)
	valid := true
	for over := false; !over && valid; {
		select {
		case <-end:
			over = true
		case <-time.After(time.Millisecond):
		}
		at := chaosNow()
		if valid = h.Valid(); valid {
			if e.From == 0 {
				e.From = at
				p.log(chaosEvent{What: "take", Name: e.Name, Token: e.Token})
			}
			e.To = at
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
	defer cancel()
	if valid {
		<-written
		at := chaosNow()
		if valid = h.Valid(); valid {
			e.To = at
		}
	}
	if e.From != 0 {
		p.log(e)
	}
	if !valid {
		<-h.Context().Done() // a handle that is not valid and whose context stays keeps the client from ending
		<-written
		p.log(chaosEvent{What: "lost", Name: e.Name, Text: context.Cause(h.Context()).Error()})
		p.write(h, e, "late") // is refused once the lease has ended, which may be later; the store's order is what counts
	}
	_ = h.Release(ctx) // of one that was lost, an error
}

// write writes the token to the guarded store, of those who are alone.
func (p *chaosClient) write(h chaosGrip, e chaosEvent, what string) {
	if e.Token == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
	defer cancel()
	_, err := h.Txn().Then(client.OpPut("store/"+e.Name, strconv.AppendUint(nil, e.Token, 10))).Commit(ctx)
	result := "done"
	switch {
	case errors.Is(err, lock.ErrLost), errors.Is(err, election.ErrLost):
		result = "refused"
	case err != nil:
		result = "unknown"
	}
	p.log(chaosEvent{What: what + ": " + result, Name: e.Name, Token: e.Token})
}

// barrierWork is a member of the barrier, under a new name whenever it has joined anew.
func (p *chaosClient) barrierWork(rng *rand.Rand) {
	for n := 0; p.stop.Err() == nil; n++ {
		member := fmt.Sprintf("%s.%d", p.name(), n)
		party, err := barrier.NewCyclic(p.c, "barrier", chaosParties, barrier.WithMember(member)).Join(p.stop)
		if p.failed("barrier", err, rng) {
			continue
		}
		for p.stop.Err() == nil {
			from := chaosNow()
			p.log(chaosEvent{What: "arrive", Name: member, From: from})
			a, err := party.Await(p.stop)
			if p.failed("barrier", err, rng) {
				break
			}
			p.log(chaosEvent{What: "pass", Name: member, From: from, To: chaosNow(), Generation: a.Generation, Token: uint64(a.Token), Members: a.Members})
			p.pause(rng, 20*time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
		_ = party.Leave(ctx) // of one that was broken, an error
		cancel()
	}
}

// counterWork adds numbers of which each outcome is known, or known not to be.
func (p *chaosClient) counterWork(rng *rand.Rand) {
	n := counter.NewInt64(p.c, "counter")
	for p.stop.Err() == nil {
		d := 1 + rng.Int64N(9)
		ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
		sum, err := n.Add(ctx, d)
		cancel()
		switch {
		case err == nil:
			p.log(chaosEvent{What: "add", N: d, Sum: sum})
		case errors.Is(err, client.ErrUncertain):
			p.log(chaosEvent{What: "add: unknown", N: d})
		default:
			p.log(chaosEvent{What: "add: failed", N: d, Text: err.Error()})
		}
		p.pause(rng, 40*time.Millisecond)
	}
}

// cacheWork changes what all caches follow.
func (p *chaosClient) cacheWork(rng *rand.Rand) {
	for n := 0; p.stop.Err() == nil; n++ {
		key := fmt.Sprintf("cache/%d/%d", p.id, rng.IntN(8))
		ctx, cancel := context.WithTimeout(context.Background(), chaosCall)
		var err error
		if rng.IntN(4) == 0 {
			_, err = p.c.Delete(ctx, key)
		} else {
			_, err = p.c.Put(ctx, key, strconv.AppendQuote(nil, fmt.Sprint(n)))
		}
		cancel()
		if err == nil {
			p.log(chaosEvent{What: "put"})
		}
		p.pause(rng, 40*time.Millisecond)
	}
}

// follow holds that the cache never goes back: neither its revision, nor a key's.
func (p *chaosClient) follow(copied *cache.Cache[string]) {
	var events, newest client.Revision
	keys := map[string]client.Revision{}
	for e, err := range copied.Events(p.stop) {
		if err != nil {
			if p.stop.Err() == nil {
				p.log(chaosEvent{What: "wrong", Text: "events ended: " + err.Error()})
			}
			return
		}
		rev := copied.Rev()
		if e.Rev < events || rev < newest || e.Rev > rev {
			p.log(chaosEvent{What: "wrong", Text: fmt.Sprintf("the cache went from revision %d, event %d, to %d, %d", newest, events, rev, e.Rev)})
		}
		events, newest = e.Rev, rev
		for _, change := range append(e.Diff, e) {
			if change.New.Revision == 0 {
				continue
			}
			if change.New.Revision <= keys[change.Key] {
				p.log(chaosEvent{What: "wrong", Text: fmt.Sprintf("%s went from revision %d to %d", change.Key, keys[change.Key], change.New.Revision)})
			}
			keys[change.Key] = change.New.Revision
		}
		p.log(chaosEvent{What: "event: " + e.Type.String()})
	}
}
