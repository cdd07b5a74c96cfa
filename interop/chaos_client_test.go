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
	"github.com/latchkey-go/latchkey/recipes/cache"
	"github.com/latchkey-go/latchkey/recipes/discovery"
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
		p.lockWork, p.rwWork, p.semaphoreWork, p.electionWork, p.observeWork, p.shareWork, p.barrierWork, p.counterWork, p.cacheWork,
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
