//go:build chaos

package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

// fleetEnv makes this test binary a worker of the fleet test: "<seed> <worker> <endpoint>...".
const fleetEnv = "LATCHKEY_FLEET_WORKER"

const (
	fleetPrefix  = "fleet/"
	fleetTTL     = 3 * time.Second
	fleetCrashes = 3 // workers that may die with a job
)

// Kinds of jobs.
const (
	jobPlain   = "plain"
	jobGroup   = "group"
	jobPacked  = "packed"
	jobDelayed = "delayed"
	jobFails   = "fails" // twice
	jobDead    = "dead"  // until it is redriven
	jobLong    = "long"
	jobKills   = "kills" // its worker
	jobCron    = "cron"
)

// fleetJob is a job, or a message of the topic.
type fleetJob struct {
	Kind string `json:"kind"`
	N    int    `json:"n"`
	Due  int64  `json:"due,omitempty"` // ms, of a delayed one
}

func (j fleetJob) name() string { return fmt.Sprintf("%s-%d", j.Kind, j.N) }

// fleetEvent is one line of a worker's log.
type fleetEvent struct {
	What string `json:"what"` // start, end, early, wrong
	At   int64  `json:"at"`   // of the machine's monotonic clock
	Name string `json:"name,omitempty"`
}

// fleetWorker is a process that works on the queue and is a member of the topic's group, until it is killed or its input ends.
type fleetWorker struct {
	c   *client.Client
	rng *rand.Rand // of the wire

	mu  sync.Mutex
	out *json.Encoder // mu protects
}

func runFleetWorker(args string) error {
	fields := strings.Fields(args)
	seed, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return err
	}
	id, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return err
	}
	w := &fleetWorker{rng: rand.New(rand.NewPCG(seed, id)), out: json.NewEncoder(os.Stdout)}
	wire := &clienttest.Wire{}
	cfg := wire.Config()
	cfg.Endpoints, cfg.Namespace, cfg.SessionTTL = fields[2:], fleetPrefix, fleetTTL
	if w.c, err = client.New(cfg); err != nil {
		return err
	}
	defer w.c.Close()
	wire.Before(loseSome(w.rng))
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent ends it, or is gone
		stop()
	}()
	errs := make(chan error, 3)
	go func() { errs <- w.work(ctx) }()
	go func() { errs <- w.cron(ctx) }()
	go func() { errs <- w.subscribe(ctx) }()
	for range cap(errs) {
		if failed := <-errs; failed != nil && err == nil {
			err = failed
			stop()
		}
	}
	return err
}

// loseSome loses the answers of some calls, and some before they have arrived.
func loseSome(rng *rand.Rand) func(context.Context, *clienttest.Call) clienttest.Fate {
	return func(context.Context, *clienttest.Call) clienttest.Fate {
		switch rng.IntN(100) {
		case 0, 1:
			return clienttest.AnswerDropped
		case 2:
			return clienttest.RequestLost
		}
		return clienttest.Arrives
	}
}

func (w *fleetWorker) log(what, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.out.Encode(fleetEvent{What: what, At: chaosNow(), Name: name}); err != nil {
		panic(err) // the parent has gone
	}
}

func openFleetQueue(ctx context.Context, c *client.Client) (*queue.Queue[fleetJob], error) {
	return queue.Open[fleetJob](ctx, c, "work", queue.WithShards(8), queue.WithPriorities(2), queue.WithMaxCrashes(fleetCrashes),
		queue.WithMaxAttempts(1000), queue.WithBackoff(func(int) time.Duration { return 50 * time.Millisecond }))
}

func openFleetTopic(ctx context.Context, c *client.Client) (*pubsub.Topic[fleetJob], error) {
	return pubsub.Open[fleetJob](ctx, c, "events", pubsub.Interest(), pubsub.WithPartitions(6))
}

func (w *fleetWorker) work(ctx context.Context) error {
	q, err := openFleetQueue(ctx, w.c)
	for n := 0; err != nil && n < 100 && pause(ctx, 50*time.Millisecond); n++ { // members are away
		q, err = openFleetQueue(ctx, w.c)
	}
	if err != nil {
		return err
	}
	return q.Run(ctx, func(ctx context.Context, j *queue.Job[fleetJob]) error {
		v := j.Value
		if tick := j.Header["tick"]; tick != "" {
			v.Kind = jobCron + "-" + tick
		}
		w.log("start", v.name())
		err := w.do(ctx, j, v)
		w.log("end", v.name())
		return err
	}, queue.WithConcurrency(4), queue.WithDrainTimeout(time.Second))
}

func (w *fleetWorker) cron(ctx context.Context) error {
	q, err := openFleetQueue(ctx, w.c)
	if err != nil {
		return nil // another one's will do
	}
	if err := q.Cron(ctx, queue.Cron[fleetJob]{Name: "tick", Schedule: "@every 1s", Job: func(time.Time) fleetJob { return fleetJob{} }}); err != nil && ctx.Err() == nil {
		w.log("cron ended", err.Error())
	}
	return nil
}

// do is what jobs do: their effect is in the same transaction as their end.
func (w *fleetWorker) do(ctx context.Context, j *queue.Job[fleetJob], v fleetJob) error {
	switch v.Kind {
	case jobKills:
		os.Exit(3)
	case jobDelayed:
		if time.Now().UnixMilli() < v.Due {
			w.log("early", v.name())
		}
	case jobFails:
		if j.Attempt-j.Crashes < 3 {
			return errors.New("not yet")
		}
	case jobLong:
		select {
		case <-time.After(400 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	tx := j.Tx()
	if v.Kind == jobDead {
		if _, err := tx.Get("revive/" + v.name()); errors.Is(err, client.ErrNotFound) {
			return queue.Discard(errors.New("unwanted"))
		} else if err != nil {
			return err
		}
	}
	return effectOnce(tx, v, j.Group)
}

// effectOnce stages an effect that tells when it is not the first of its kind, or out of order.
func effectOnce(tx *client.Tx, v fleetJob, group string) error {
	key := "effect/" + v.name()
	switch _, err := tx.Get(key); {
	case err == nil:
		tx.Put("double/"+v.name(), nil)
	case !errors.Is(err, client.ErrNotFound):
		return err
	}
	tx.Put(key, nil)
	if group == "" {
		return nil
	}
	kv, err := tx.Get("last/" + group)
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		return err
	}
	if err == nil {
		if last, err := strconv.Atoi(string(kv.Value)); err != nil || last >= v.N {
			tx.Put(fmt.Sprintf("disorder/%s after %d", v.name(), last), nil)
		}
	}
	tx.Put("last/"+group, []byte(strconv.Itoa(v.N)))
	return nil
}

func (w *fleetWorker) subscribe(ctx context.Context) error {
	t, err := openFleetTopic(ctx, w.c)
	for n := 0; err != nil && n < 100 && pause(ctx, 50*time.Millisecond); n++ {
		t, err = openFleetTopic(ctx, w.c)
	}
	if err != nil {
		return err
	}
	err = t.Group("g").Run(ctx, func(ctx context.Context, m *pubsub.Msg[fleetJob]) error {
		return m.Tx(ctx, func(tx *client.Tx) error { return effectOnce(tx, m.Value, m.Key) })
	}, pubsub.Backoff(func(int) time.Duration { return 20 * time.Millisecond }), pubsub.MaxAttempts(1000))
	if ctx.Err() != nil {
		return nil
	}
	return err
}
