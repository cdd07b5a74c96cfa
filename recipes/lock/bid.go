package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// bid is what one lock, or several together, are acquired with. Immutable.
type bid struct {
	client *client.Client
	names  []string // the i-th lock's
	opts   options
	record record // of each key
	shared bool   // several can have it at once, so tokens are no fences
	err    error  // what is wrong with the names; each call returns it
}

func newBid(c *client.Client, names []string, opts []Option) *bid {
	b := &bid{client: c, names: names, opts: newOptions(opts)}
	b.record = record{Owner: b.opts.owner, Info: b.opts.info}
	for _, name := range names {
		if !contender.ValidName(name) {
			b.err = ErrName
		}
	}
	return b
}

// title is what errors call the locks.
func (b *bid) title() string { return strings.Join(b.names, ", ") }

// open returns the session to use, which is live.
func (b *bid) open(ctx context.Context) (*client.Session, error) {
	if b.err != nil {
		return nil, b.err
	}
	s := b.opts.session
	if s == nil {
		var err error
		if s, err = b.client.Session(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.Err(); err != nil {
		return nil, b.lost(contender.Loss{Reason: err, At: time.Now()})
	}
	return s, nil
}

func (b *bid) lost(loss contender.Loss) error {
	return &LostError{Name: b.title(), Token: fence.Token(loss.Token), Reason: loss.Reason, At: loss.At}
}

// keys are the ones that a claim of the locks wants.
func (b *bid) keys(s *client.Session) []contender.Key {
	keys := make([]contender.Key, len(b.names))
	for i, name := range b.names {
		keys[i] = contender.Key{Name: name + "/" + s.ID().String(), Value: b.record.encode()}
	}
	return keys
}

// acquire waits for the locks.
func (b *bid) acquire(ctx context.Context) (*hold, error) {
	s, err := b.open(ctx)
	if err != nil {
		return nil, b.wrap(err)
	}
	if h := b.carried(ctx, s); h != nil {
		return h, nil
	}
	h := newHold(b)
	c, err := contender.Take(ctx, h.spec(s, b.keys(s)...))
	if err != nil {
		return nil, b.wrap(err)
	}
	return h.run(ctx, c, (*queue).wait)
}

// try takes the locks if they are all free.
func (b *bid) try(ctx context.Context) (*hold, error) {
	s, err := b.open(ctx)
	if err != nil {
		return nil, b.wrap(err)
	}
	if h := b.carried(ctx, s); h != nil {
		return h, nil
	}
	h := newHold(b)
	c, err := contender.Try(ctx, h.spec(s, b.keys(s)...))
	if err != nil {
		return nil, b.wrap(err)
	}
	if c == nil {
		return nil, b.heldHere(ctx)
	}
	return h.run(ctx, c, (*queue).seize)
}

// wrap makes an error of the package of what a claim returned.
func (b *bid) wrap(err error) error {
	var foreign *contender.ForeignError
	if errors.As(err, &foreign) {
		i := strings.LastIndexByte(foreign.Key, '/')
		err = &ConflictError{Name: foreign.Key[:i], Key: foreign.Key, Recipe: "unknown"}
	}
	return fmt.Errorf("acquire lock %q: %w", b.title(), err)
}

// heldHere makes the error for locks one of which is taken inside this process.
func (b *bid) heldHere(ctx context.Context) error {
	held := &HeldError{Name: b.names[0]}
	for _, name := range b.names {
		info, err := Inspect(ctx, b.client, name)
		if err != nil {
			return b.wrap(err)
		}
		if len(info.Holders) > 0 {
			held.Name, held.Holder = name, info.Holders[0]
			break
		}
	}
	return held
}
