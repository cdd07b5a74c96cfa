package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"sync/atomic"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

// ID names a job for its whole life, also while it is retried, delayed or dead.
type ID string

// Queue is a durable queue of jobs whose values are of type T. Any number of Queue
// objects of one name, in any number of processes, are the same queue. It is safe
// for concurrent use.
type Queue[T any] struct {
	*core
	codec client.Codec[T]
}

// core is what does not depend on the type of the values.
type core struct {
	root   *client.Client // that of Open
	client *client.Client // with the queue's keys as its namespace
	name   string
	opts   options
	mint   *sequence.Mint
	conf   atomic.Pointer[config]
	writes committer
	sends  sender
	length gauge
	leases leaseBook
}

// config is what all processes must agree on.
type config struct {
	Version int `json:"version"`
	First   int `json:"first"`  // number of the first shard in use
	Shards  int `json:"shards"` // how many there are
	Lanes   int `json:"lanes"`
	// Old are shards that were in use before and may have jobs left.
	Old []span `json:"old,omitempty"`

	mod int64
}

type span struct {
	First  int `json:"first"`
	Shards int `json:"shards"`
}

const (
	configVersion   = 1
	nameBytesMax    = 256
	marksPerTxn     = 100
	kubernetesRange = "/registry/"
)

// Open returns the queue with the name, which it makes if there is none. ctx
// bounds the call only; nothing runs on, and there is nothing to close.
//
// Errors: [ErrName], [ErrOption], [ErrKubernetes], [ErrMismatch], and those of the client.
func Open[T any](ctx context.Context, c *client.Client, name string, opts ...Option) (*Queue[T], error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, fmt.Errorf("open queue %q: %w", name, err)
	}
	q := &Queue[T]{codec: client.JSON[T]()}
	if o.codec != nil {
		codec, ok := o.codec.(client.Codec[T])
		if !ok {
			return nil, fmt.Errorf("open queue %q: %w: the codec is one of another type", name, ErrOption)
		}
		q.codec = codec
	}
	if q.core, err = open(ctx, c, name, o); err != nil {
		return nil, fmt.Errorf("open queue %q: %w", name, err)
	}
	return q, nil
}

func open(ctx context.Context, c *client.Client, name string, o options) (*core, error) {
	if name == "" || len(name) > nameBytesMax || strings.HasSuffix(name, "/") || strings.Contains(name, "//") {
		return nil, ErrName
	}
	q := &core{root: c, client: c.Namespace("q/" + name + "/"), name: name, opts: o, mint: sequence.NewMint()}
	q.writes.core, q.sends.core = q, q
	q.length.core = q
	q.leases.core = q
	if err := q.refuseKubernetes(ctx); err != nil {
		return nil, err
	}
	conf, err := q.load(ctx)
	for n := 0; errors.Is(err, client.ErrNotFound) && (n == 0 || pause(ctx, n)); n++ {
		if err = q.create(ctx); err == nil {
			conf, err = q.load(ctx) // which may still find nothing, if the answer was lost
		}
	}
	if err != nil {
		return nil, err
	}
	if o.lanes != 0 && o.lanes != conf.Lanes {
		return nil, fmt.Errorf("%w: it has %d priorities", ErrMismatch, conf.Lanes)
	}
	return q, nil
}

// refuseKubernetes looks for keys of a Kubernetes, which is never meant to share
// its store with a queue. Who may not look is not asked to.
func (q *core) refuseKubernetes(ctx context.Context) error {
	if q.opts.kubernetes {
		return nil
	}
	s, err := q.session(ctx)
	if err != nil {
		return err
	}
	res, err := s.Client().Get(ctx, kubernetesRange, client.Prefix(), client.Limit(1), client.KeysOnly())
	switch {
	case errors.Is(err, client.ErrPermissionDenied):
		return nil
	case err != nil:
		return err
	case len(res.KVs) > 0:
		return ErrKubernetes
	}
	return nil
}

// load reads the configuration.
func (q *core) load(ctx context.Context) (*config, error) {
	kv, err := q.client.GetOne(ctx, shard.ConfigKey)
	if err != nil {
		return nil, err
	}
	return q.configure(kv.Value, int64(kv.ModRevision))
}

func (q *core) configure(value []byte, mod int64) (*config, error) {
	conf := &config{mod: mod}
	if err := json.Unmarshal(value, conf); err != nil || conf.Version != configVersion || conf.Shards < 1 || conf.Lanes < 1 {
		return nil, fmt.Errorf("%w: its configuration is %q", ErrMismatch, value)
	}
	if old := q.conf.Load(); old == nil || old.mod < mod {
		q.conf.Store(conf)
	}
	return q.conf.Load(), nil
}

// create makes the queue: first the marks of its shards, then what says that
// they are there.
func (q *core) create(ctx context.Context) error {
	conf := config{Version: configVersion, Shards: q.opts.shards, Lanes: max(1, q.opts.lanes)}
	if conf.Shards == 0 {
		conf.Shards = defaultShards
	}
	if err := q.makeMarks(ctx, conf.First, conf.Shards, conf.Lanes); err != nil {
		return err
	}
	value, err := json.Marshal(conf)
	if err != nil {
		return err
	}
	_, err = q.client.Txn().If(client.Missing(shard.ConfigKey)).Then(client.OpPut(shard.ConfigKey, value)).Commit(ctx)
	if errors.Is(err, client.ErrUncertain) {
		return nil // it is read next, and what was written is what anybody would write
	}
	return err
}

// makeMarks makes the marks that are missing; those that exist stay.
func (q *core) makeMarks(ctx context.Context, first, shards, lanes int) error {
	var ops []client.Op
	for n := first; n < first+shards; n++ {
		for lane := range lanes {
			key := shard.MarkKey(n, lane)
			ops = append(ops, client.OpTxn([]client.Compare{client.Missing(key)},
				[]client.Op{client.OpPut(key, []byte(shard.Bound(0)))}, nil))
		}
	}
	for len(ops) > 0 {
		n := min(len(ops), marksPerTxn/2)
		if _, err := q.client.Txn().Then(ops[:n]...).Commit(ctx); err != nil && !errors.Is(err, client.ErrUncertain) {
			return err
		} else if err == nil {
			ops = ops[n:]
		} else if ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// session returns the session to use.
func (q *core) session(ctx context.Context) (*client.Session, error) {
	if s := q.opts.session; s != nil {
		return s, s.Err()
	}
	return q.root.Session(ctx)
}

// Name returns the queue's name.
func (q *core) Name() string { return q.name }

// all returns the numbers of all shards that may have jobs, old ones first.
func (c *config) all() (out []int) {
	for _, s := range append(c.Old[:len(c.Old):len(c.Old)], span{c.First, c.Shards}) {
		for n := s.First; n < s.First+s.Shards; n++ {
			out = append(out, n)
		}
	}
	return out
}

// current says whether a shard is one that producers use.
func (c *config) current(n int) bool { return n >= c.First && n < c.First+c.Shards }

// oldest says whether a shard is of the first of those that may have jobs: older
// jobs of its groups can be in no other.
func (c *config) oldest(n int) bool {
	first := span{c.First, c.Shards}
	if len(c.Old) > 0 {
		first = c.Old[0]
	}
	return n >= first.First && n < first.First+first.Shards
}

// keep returns a shard if it may have jobs, else another one that is in use.
func (c *config) keep(n int) int {
	for _, s := range c.Old {
		if n >= s.First && n < s.First+s.Shards {
			return n
		}
	}
	if c.current(n) {
		return n
	}
	return c.First + n%c.Shards
}

// home returns the shard of a group.
func (c *config) home(group string) int { return c.First + int(hash(group)%uint64(c.Shards)) }

func hash(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
		_, _ = h.Write([]byte{0})
	}
	// FNV's high bits are weak for short inputs; mix them.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}
