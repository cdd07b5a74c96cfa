package pubsub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

const (
	defaultConcurrency  = 16
	defaultAttempts     = 20
	defaultDrainTimeout = 10 * time.Second
	// crashesMax is how many processes may end with a message before it becomes a
	// dead letter.
	crashesMax = 3
	// backoffFirst and backoffLast are the pauses before the second and before late
	// attempts.
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 30 * time.Second
)

// Group is a consumer group of a topic: each message is handled by one of its
// members, those of one key one at a time and in order. It is immutable.
type Group[T any] struct {
	topic *Topic[T]
	*group
}

// group is a group without a type.
type group struct {
	topic *topic
	name  string
	keys  groupKeys
	err   error // what is wrong with the name; each call returns it
}

// Group returns the group with the name. It does nothing yet.
func (t *Topic[T]) Group(name string) *Group[T] { return &Group[T]{topic: t, group: t.group(name)} }

func (t *topic) group(name string) *group {
	g := &group{topic: t, name: name, keys: t.keys.group(name)}
	if !validPart(name) {
		g.err = fmt.Errorf("group %q: %w", name, ErrName)
	}
	return g
}

// Name returns the group's name.
func (g *group) Name() string { return g.name }

// RunOption is an option of Group.Run and Group.Batches.
type RunOption func(*runConfig)

type runConfig struct {
	from        Start
	concurrency int
	maxAttempts int
	backoff     func(attempt int) time.Duration
	session     *client.Session
	drain       time.Duration

	batch     func(ctx context.Context, ds []*delivery) error // nil: messages are handled one by one
	batchMax  int
	batchWait time.Duration
}

func newRunConfig(opts []RunOption) runConfig {
	conf := runConfig{
		from: Earliest(), concurrency: defaultConcurrency, maxAttempts: defaultAttempts,
		backoff: defaultBackoff, drain: defaultDrainTimeout,
	}
	for _, o := range opts {
		o(&conf)
	}
	return conf
}

// From says where a group begins that is used for the first time. Default Earliest.
func From(s Start) RunOption { return func(c *runConfig) { c.from = s } }

// Concurrency bounds the handlers that run at once in this Run. Default 16.
func Concurrency(n int) RunOption { return func(c *runConfig) { c.concurrency = max(n, 1) } }

// MaxAttempts is how often a message is tried before it becomes a dead letter.
// Default 20.
func MaxAttempts(n int) RunOption { return func(c *runConfig) { c.maxAttempts = max(n, 1) } }

// Backoff sets the pause after an attempt, counted from 1. Default 100 ms, doubled
// each time up to 30 s, and up to a half of that less by chance.
func Backoff(f func(attempt int) time.Duration) RunOption {
	return func(c *runConfig) { c.backoff = f }
}

// WithSession makes the membership depend on a session instead of the client's own
// one. Run ends when it does.
func WithSession(s *client.Session) RunOption { return func(c *runConfig) { c.session = s } }

// DrainTimeout bounds how long handlers may go on when ctx has ended or another
// member takes a partition over; then their contexts end. Default 10 s.
func DrainTimeout(d time.Duration) RunOption { return func(c *runConfig) { c.drain = max(d, 0) } }

func defaultBackoff(attempt int) time.Duration {
	d := min(backoffFirst<<min(attempt-1, 16), backoffLast)
	return d/2 + rand.N(d/2+1)
}

// Dead wraps an error of a handler so that its message becomes a dead letter
// without further attempts.
func Dead(err error) error { return &deadError{err} }

type deadError struct{ error }

func (e *deadError) Unwrap() error { return e.error }

// Run is a member of the group until ctx ends: it takes its share of the topic's
// partitions and calls h for each message. A message counts as handled when h
// returns nil, or when Tx of the message does; the former is stored within 50 ms or
// 64 messages, so after a crash some messages are handled twice. An error, or a
// panic, means another try after a pause, during which later messages of the same
// key wait; after MaxAttempts the message becomes a dead letter.
//
// The context of h ends when the partition is lost, with [ErrLost] as its cause,
// and, after the DrainTimeout, when ctx has ended. Run then stores what was handled,
// gives its partitions back and returns the error of ctx. It goes on over lost
// sessions of the client itself.
//
// Other errors: [ErrName]; [ErrNoTopic]; the end of a session given by WithSession;
// and those of the client that waiting does not cure.
func (g *Group[T]) Run(ctx context.Context, h func(ctx context.Context, m *Msg[T]) error, opts ...RunOption) error {
	handle := func(ctx context.Context, d *delivery) error {
		m, err := g.topic.msg(d.message)
		if err != nil {
			return Dead(err)
		}
		m.Attempt, m.cursor = d.attempt(), d
		return h(ctx, m)
	}
	if err := g.group.run(ctx, handle, newRunConfig(opts)); err != nil {
		return fmt.Errorf("group %q of topic %q: %w", g.name, g.group.topic.name, err)
	}
	return nil
}

// run is a member in one session after the other.
func (g *group) run(ctx context.Context, handle handler, conf runConfig) error {
	if g.err != nil {
		return g.err
	}
	if err := g.make(ctx, conf.from); err != nil {
		return err
	}
	for n := 0; ; n++ {
		s := conf.session
		if s == nil {
			var err error
			if s, err = g.topic.client.Session(ctx); err != nil {
				if ctx.Err() == nil && retry.Unreached(err) && retry.Backoff(ctx, n) {
					continue
				}
				return err
			}
		}
		err := newMember(g, s, handle, conf).run(ctx)
		if errors.Is(err, client.ErrLeaseNotFound) {
			// The session is about to notice.
			select {
			case <-s.Context().Done():
			case <-ctx.Done():
			}
		}
		switch {
		case ctx.Err() != nil:
			return retry.Why(ctx)
		case s.Err() != nil && conf.session != nil:
			return s.Err()
		case s.Err() == nil && err != nil && !retry.Unreached(err):
			return err
		case errors.Is(err, client.ErrClosed):
			return err
		}
		retry.Backoff(ctx, n)
	}
}

// make makes the group if there is none: all its cursors at once.
func (g *group) make(ctx context.Context, from Start) error {
	name := g.topic.keys.groupNames() + g.name
	for n := 0; ; n++ {
		res, err := g.topic.client.Get(ctx, name)
		if err == nil && len(res.KVs) > 0 {
			return nil
		}
		if err == nil {
			var p place
			if p, err = g.topic.resolve(ctx, from); err == nil {
				ops := append(g.place(p), client.OpPut(name, []byte("{}")))
				_, err = g.topic.client.Txn().If(client.Missing(name)).Then(ops...).Commit(ctx)
			}
		}
		if err == nil {
			return nil
		}
		// To make it once more does no harm, as it is made once only.
		if !retry.Temporary(err) || !retry.Backoff(ctx, n) {
			return err
		}
	}
}

// place returns the operations that put all cursors to a place.
func (g *group) place(p place) []client.Op {
	var ops []client.Op
	cur := startAt(p)
	cur.Owner = fmt.Sprintf("%016x", rand.Uint64())
	for i := range g.topic.partitions {
		ops = append(ops, client.OpPut(g.keys.cursor(i), cur.encode()))
	}
	return ops
}

// Seek moves the group to a start; members go on there within moments. What they
// are handling meanwhile may be handled once more. A start by a time goes back by up
// to some seconds more. It makes the group if there is none.
func (g *group) Seek(ctx context.Context, to Start) error {
	p, err := g.topic.resolve(ctx, to)
	if err == nil && g.err != nil {
		err = g.err
	}
	if err == nil {
		ops := append(g.place(p), client.OpPut(g.topic.keys.groupNames()+g.name, []byte("{}")),
			client.OpPut(g.keys.moved(), []byte(to.String())))
		_, err = g.topic.client.Txn().Then(ops...).Commit(ctx)
	}
	if err != nil {
		return fmt.Errorf("seek group %q of topic %q: %w", g.name, g.topic.name, err)
	}
	return nil
}

// Delete deletes the group with its cursors and dead letters. Members that run make
// it anew.
func (g *group) Delete(ctx context.Context) error {
	err := g.err
	if err == nil {
		_, err = g.topic.client.Txn().Then(
			client.OpDelete(g.topic.keys.groupNames()+g.name),
			client.OpDelete(g.keys.prefix, client.Prefix()),
		).Commit(ctx)
	}
	if err != nil {
		return fmt.Errorf("delete group %q of topic %q: %w", g.name, g.topic.name, err)
	}
	return nil
}

// Groups returns the names of the topic's groups, in order.
func (t *topic) Groups(ctx context.Context) ([]string, error) {
	prefix := t.keys.groupNames()
	res, err := t.client.Get(ctx, prefix, client.Prefix(), client.KeysOnly())
	if err != nil {
		return nil, fmt.Errorf("groups of topic %q: %w", t.name, err)
	}
	var names []string
	for _, kv := range res.KVs {
		names = append(names, strings.TrimPrefix(kv.Key, prefix))
	}
	return names, nil
}
