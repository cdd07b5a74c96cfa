package pubsub

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"sync/atomic"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

const (
	// defaultPartitions is how many partitions a topic has unless told otherwise.
	defaultPartitions = 8
	// partitionsMax bounds them: one transaction may write to all.
	partitionsMax = 60
	// kubernetesPrefix is where Kubernetes keeps its objects.
	kubernetesPrefix = "/registry/"
)

// Topic is a durable topic whose messages have values of type T. Any number of
// Topic objects of one name, in any number of processes, are the same topic; those
// who subscribe through one object share a watch and its buffer. It is safe for
// concurrent use and needs no closing.
type Topic[T any] struct {
	*topic
	codec client.Codec[T]
	keyOf func(T) string // may be nil
}

// topic is a topic without a type. What is not immutable protects itself.
type topic struct {
	client     *client.Client
	name       string
	keys       keys
	partitions int
	log        sequence.Log
	mint       *sequence.Mint
	turn       atomic.Uint32 // of partitions, for messages without a key
	feed       *feed
	trimmer    *trimmer
	dedup      *dedup
}

// settings is what the registry says of a topic.
type settings struct {
	Partitions int       `json:"partitions"`
	Retention  Retention `json:"retention"`
}

// Option is an option of Open.
type Option func(*options)

type options struct {
	settings   settings
	bounded    bool
	kubernetes bool
	window     window
	dedup      dedupConfig
	codec      any
	keyOf      any
	err        error
}

// WithPartitions sets the number of partitions of a topic that is made: how many
// members of a group can work at once. 1 to 60, default 8. It can not be changed.
func WithPartitions(n int) Option {
	return func(o *options) {
		if o.settings.Partitions = n; n < 1 || n > partitionsMax {
			o.err = fmt.Errorf("%d partitions: 1 to %d are possible", n, partitionsMax)
		}
	}
}

// WithCodec sets how values become bytes. Default: client.JSON. All who use a topic
// must agree; nothing checks that.
func WithCodec[T any](c client.Codec[T]) Option { return func(o *options) { o.codec = c } }

// WithKey sets how a message's key follows from its value, for messages that are
// published without the option Key.
func WithKey[T any](f func(T) string) Option { return func(o *options) { o.keyOf = f } }

// BesideKubernetes allows to make topics in a cluster that holds the keys of
// Kubernetes, whose quota and history they then share.
func BesideKubernetes() Option { return func(o *options) { o.kubernetes = true } }

// Raw returns the codec of messages that are bytes. They are not copied: neither a
// publisher nor a subscriber may change them.
func Raw() client.Codec[[]byte] { return rawCodec{} }

type rawCodec struct{}

func (rawCodec) Encode(v []byte) ([]byte, error) { return v, nil }
func (rawCodec) Decode(b []byte) ([]byte, error) { return b, nil }

// Open returns the topic with the name, and makes it if there is none. A new topic
// needs a bound for what it keeps, [MaxAge], [MaxBytes], [MaxMessages] or
// [Interest], or [Unlimited]; for one that exists, settings may be left out.
//
// The client's namespace is part of the name. Opening is safe to repeat; a ctx that
// ends leaves the topic made or not.
//
// Errors: [ErrName]; [ErrUnbounded]; [ErrConfig] when it exists with other
// settings, see [Topic.SetRetention]; [ErrKubernetes]; and those of the client.
func Open[T any](ctx context.Context, c *client.Client, name string, opts ...Option) (*Topic[T], error) {
	o := options{window: window{windowMessages, windowBytes}, dedup: dedupConfig{dedupWindow}}
	for _, opt := range opts {
		opt(&o)
	}
	t := &Topic[T]{codec: client.JSON[T]()}
	var ok bool
	if o.codec != nil {
		if t.codec, ok = o.codec.(client.Codec[T]); !ok {
			o.err = fmt.Errorf("%T is no codec of %T", o.codec, *new(T))
		}
	}
	if o.keyOf != nil {
		if t.keyOf, ok = o.keyOf.(func(T) string); !ok {
			o.err = fmt.Errorf("%T makes no key of %T", o.keyOf, *new(T))
		}
	}
	if !validName(name) {
		o.err = ErrName
	}
	var s settings
	err := o.err
	if err == nil {
		s, err = open(ctx, c, name, o)
	}
	if err != nil {
		return nil, fmt.Errorf("open topic %q: %w", name, err)
	}
	t.topic = newTopic(c, name, s, o)
	return t, nil
}

func newTopic(c *client.Client, name string, s settings, o options) *topic {
	k := keysOf(name)
	t := &topic{
		client: c, name: name, keys: k, partitions: s.Partitions,
		log: k.all(s.Partitions), mint: sequence.NewMint(),
	}
	t.feed = newFeed(sequence.NewReader(c, t.log), o.window)
	t.trimmer = newTrimmer(t, s.Retention)
	t.dedup = &dedup{client: c, conf: o.dedup}
	return t
}

// open reads or makes the topic's settings.
func open(ctx context.Context, c *client.Client, name string, o options) (settings, error) {
	k := keysOf(name)
	res, err := c.Get(ctx, k.config())
	if err != nil {
		return settings{}, err
	}
	if len(res.KVs) > 0 {
		return agree(name, res.KVs[0].Value, o)
	}
	if !o.bounded {
		return settings{}, ErrUnbounded
	}
	if o.settings.Partitions == 0 {
		o.settings.Partitions = defaultPartitions
	}
	if !o.kubernetes {
		if err := refuseKubernetes(ctx, c); err != nil {
			return settings{}, err
		}
	}
	config, err := json.Marshal(o.settings)
	if err != nil {
		return settings{}, err
	}
	l := k.all(o.settings.Partitions)
	ops := []client.Op{client.OpPut(k.config(), config), l.Create()}
	for p := range o.settings.Partitions {
		ops = append(ops, k.one(p).Create())
	}
	made, err := c.Txn().If(client.Missing(k.config())).Then(ops...).Else(client.OpGet(k.config())).Commit(ctx)
	switch {
	case err != nil:
		return settings{}, err
	case !made.Succeeded:
		return agree(name, made.Results[0].Get.KVs[0].Value, o)
	}
	return o.settings, nil
}

// agree compares the settings of a topic that exists with those that are wanted.
func agree(name string, config []byte, o options) (settings, error) {
	var s settings
	if err := json.Unmarshal(config, &s); err != nil {
		return s, fmt.Errorf("settings: %w", err)
	}
	if s.Partitions < 1 || s.Partitions > partitionsMax {
		return s, fmt.Errorf("settings: %d partitions", s.Partitions)
	}
	want := o.settings
	if want.Partitions != 0 && want.Partitions != s.Partitions || o.bounded && want.Retention != s.Retention {
		return s, &ConfigError{Topic: name, Partitions: s.Partitions, Retention: s.Retention}
	}
	return s, nil
}

// refuseKubernetes fails if the cluster, whatever the namespace, holds objects of
// Kubernetes: a topic would use up its quota and its history.
func refuseKubernetes(ctx context.Context, c *client.Client) error {
	s, err := c.Session(ctx)
	if err != nil {
		return err
	}
	res, err := s.Client().Get(ctx, kubernetesPrefix, client.Prefix(), client.Limit(1), client.KeysOnly())
	if err != nil {
		return err
	}
	if len(res.KVs) > 0 {
		return ErrKubernetes
	}
	return nil
}

// Name returns the topic's name.
func (t *topic) Name() string { return t.name }

// Partitions returns how many partitions the topic has.
func (t *topic) Partitions() int { return t.partitions }

// partitionOf returns the partition of a key.
func (t *topic) partitionOf(key string) int {
	h := fnv.New32a()
	h.Write([]byte(key))
	return int(h.Sum32() % uint32(t.partitions))
}

// anyPartition returns the next partition in turn, for messages without a key.
func (t *topic) anyPartition() int { return int(t.turn.Add(1) % uint32(t.partitions)) }

// Delete deletes a topic with all messages, cursors and groups. Publishers and
// subscribers then get [ErrNoTopic]. Deleting one that does not exist is no error.
func Delete(ctx context.Context, c *client.Client, name string) error {
	if !validName(name) {
		return fmt.Errorf("delete topic %q: %w", name, ErrName)
	}
	k := keysOf(name)
	_, err := c.Txn().Then(client.OpDelete(k.config()), client.OpDelete(k.prefix, client.Prefix())).Commit(ctx)
	if err != nil {
		return fmt.Errorf("delete topic %q: %w", name, err)
	}
	return nil
}
