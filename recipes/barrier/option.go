package barrier

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

const (
	// partiesMax bounds the parties of a barrier: their list is one value in the store.
	partiesMax = 4096
	// memberBytesMax bounds what WithMember puts into each key; the rest is cut off.
	memberBytesMax = 128
	// resolveTimeout bounds how long the background finds out what became of a request
	// without an answer. The session ends it earlier in all cases that are known.
	resolveTimeout = time.Hour
)

// Option is an option of the constructors.
type Option func(*options)

type options struct {
	session *client.Session
	name    string
	onLoss  LossPolicy
	action  Action
}

// WithSession binds members, or the closing of a gate, to a session. By default it is
// the client's own for members, and none for a gate.
func WithSession(s *client.Session) Option { return func(o *options) { o.session = s } }

// WithMember sets the name that others see of this member, up to 128 bytes. Names need
// not differ. Default: the host's name and the process id.
func WithMember(name string) Option { return func(o *options) { o.name = name } }

// WithOnLoss says what becomes of a generation when a member is lost. All members of
// a barrier must say the same. Default: Break; of a phaser: Shrink.
func WithOnLoss(p LossPolicy) Option { return func(o *options) { o.onLoss = p } }

// WithAction gives a cyclic barrier something to do at each trip: once all have
// arrived, one of them runs it, and then all go on. All members must give the same
// one, as any of them may be chosen.
//
// It runs once. If the process that runs it dies, or its session ends, another one
// runs it again: then the first run's context ends with a cause, its transactions
// ([Trip.Txn]) fail, and its token ([Arrival.Token], or [fence.FromContext] with
// the barrier's name) is smaller than the second's. An error breaks the barrier.
func WithAction(a Action) Option { return func(o *options) { o.action = a } }

func newOptions(o options, opts []Option) options {
	for _, opt := range opts {
		opt(&o)
	}
	if o.name == "" {
		host, _ := os.Hostname() // only for people to read
		o.name = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	o.name = o.name[:min(len(o.name), memberBytesMax)]
	return o
}

// lastID makes members' ids unique in the process; a session belongs to one.
var lastID atomic.Int64

// base is what the recipes with members have in common. Immutable.
type base struct {
	client *client.Client
	name   string
	terms  terms
	opts   options
	err    error // what is wrong with the arguments; each call returns it
}

func newBase(c *client.Client, name string, t terms, o options) base {
	t.OnLoss, t.Action = o.onLoss, o.action != nil
	b := base{client: c, name: name, terms: t, opts: o}
	if t.Recipe != phaser && (t.Parties < 1 || t.Parties > partiesMax) {
		b.err = fmt.Errorf("barrier %q: %w: %d", name, ErrParties, t.Parties)
	}
	if t.Recipe == phaser && t.OnLoss == Wait {
		b.err = fmt.Errorf("phaser %q: %w: %s", name, ErrPolicy, t.OnLoss)
	}
	if !validName(name) {
		b.err = fmt.Errorf("barrier %q: %w", name, ErrName)
	}
	return b
}

// Name returns the barrier's name.
func (b *base) Name() string { return b.name }

// enter returns the room of the barrier; the caller has to leave it.
func (b *base) enter(ctx context.Context) (*room, error) {
	if b.err != nil {
		return nil, b.err
	}
	s := b.opts.session
	if s == nil {
		var err error
		if s, err = b.client.Session(ctx); err != nil {
			return nil, fmt.Errorf("barrier %q: %w", b.name, err)
		}
	}
	if err := s.Err(); err != nil {
		return nil, &LostError{Name: b.name, Reason: err, At: time.Now()}
	}
	return openRoom(ctx, b.client, s, b.name, b.terms)
}

// Reset breaks the generation for all that are in it, with [ErrBroken], and begins
// the next one with nobody. It is for operators: a barrier that is broken begins
// anew by itself when all its members have left.
func (b *base) Reset(ctx context.Context) error {
	r, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer r.leave()
	return r.reset(ctx)
}

// reserved are the last segments that a name can not have: recipes call the level
// below their names so.
var reserved = map[string]bool{"read": true, "write": true, "g": true, "d": true}

// validName says whether a barrier can have the name.
func validName(name string) bool {
	last := name[strings.LastIndexByte(name, '/')+1:]
	return last != "" && !strings.Contains(name, "//") && !reserved[last]
}
