package queue

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

const (
	defaultShards      = 32
	shardsMax          = 1024
	lanesMax           = 8
	defaultMaxAttempts = 20
	defaultMaxCrashes  = 5
	backoffMin         = time.Second
	backoffMax         = 10 * time.Minute
)

// Option is an option of Open.
type Option func(*options)

type options struct {
	shards      int // 0: what the queue has, or the default
	lanes       int
	codec       any
	session     *client.Session
	maxAttempts int
	maxCrashes  int
	backoff     func(attempt int) time.Duration
	maxLength   int
	kubernetes  bool
	log         *slog.Logger
}

// WithShards sets how many shards a new queue is cut into, 1 to 1024. Default 32.
// As many workers can claim at once; order is kept within each, so one shard
// makes a queue strictly first in, first out. A queue that exists keeps its own,
// see [Queue.Reshard].
func WithShards(n int) Option { return func(o *options) { o.shards = n } }

// WithPriorities sets how many priorities a new queue has, 1 to 8. Default 1. Jobs
// of priority 0 go first.
func WithPriorities(n int) Option { return func(o *options) { o.lanes = n } }

// WithCodec sets how values become bytes. Default: JSON.
func WithCodec[T any](c client.Codec[T]) Option { return func(o *options) { o.codec = c } }

// WithSession binds workers and producers to a session instead of the client's
// own one. When it is lost, Run returns.
func WithSession(s *client.Session) Option { return func(o *options) { o.session = s } }

// WithMaxAttempts sets how often a job may fail before it goes to the dead
// letters. Default 20. A job can have its own, see Attempts.
func WithMaxAttempts(n int) Option { return func(o *options) { o.maxAttempts = n } }

// WithMaxCrashes sets how many workers may die with a job before it goes to the
// dead letters. Default 5.
func WithMaxCrashes(n int) Option { return func(o *options) { o.maxCrashes = n } }

// WithBackoff sets how long a job waits after its n-th failed attempt, from 1.
// Default: [Backoff].
func WithBackoff(f func(attempt int) time.Duration) Option { return func(o *options) { o.backoff = f } }

// WithMaxLength bounds the queue: with so many jobs in it, Enqueue returns
// [ErrFull], or waits, see WaitForRoom. Producers count for themselves, so the
// bound may be passed by what all of them add within a second. Default: no bound.
func WithMaxLength(n int) Option { return func(o *options) { o.maxLength = n } }

// AllowKubernetes lets a queue live on the cluster of a Kubernetes. A queue writes
// much, and a store that is full stops a Kubernetes.
func AllowKubernetes() Option { return func(o *options) { o.kubernetes = true } }

// WithLogger sends reports of workers to a logger: handlers that panic, claims that
// are lost, requests that fail. Default: nothing is logged.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.log = l } }

func newOptions(opts []Option) (options, error) {
	o := options{
		maxAttempts: defaultMaxAttempts, maxCrashes: defaultMaxCrashes, backoff: Backoff,
		log: slog.New(slog.DiscardHandler),
	}
	for _, opt := range opts {
		opt(&o)
	}
	switch {
	case o.shards < 0 || o.shards > shardsMax:
		return o, fmt.Errorf("%w: %d shards, 1 to %d are possible", ErrOption, o.shards, shardsMax)
	case o.lanes < 0 || o.lanes > lanesMax:
		return o, fmt.Errorf("%w: %d priorities, 1 to %d are possible", ErrOption, o.lanes, lanesMax)
	case o.maxAttempts < 1 || o.maxCrashes < 1 || o.maxLength < 0:
		return o, fmt.Errorf("%w: attempts, crashes and length are at least 1", ErrOption)
	}
	return o, nil
}

// Backoff is the default wait after the n-th failed attempt: a second, doubled by
// each failure up to ten minutes, and shorter by a random part of up to a quarter.
func Backoff(attempt int) time.Duration {
	d := backoffMax
	if attempt = max(1, attempt); attempt < 20 {
		d = min(backoffMax, backoffMin<<(attempt-1))
	}
	return d - rand.N(d/4)
}
