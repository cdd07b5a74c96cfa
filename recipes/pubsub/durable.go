package pubsub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

const (
	// A durable name's cursor is stored when so many messages were handled, or when
	// the last time is this long ago, and at the end of the loop.
	durableMessages = 64
	durablePause    = time.Second
	// durableTimeout bounds storing it at the end.
	durableTimeout = 5 * time.Second
)

// durable is the cursor of a durable name, of the one process that has it.
type durable struct {
	topic *topic
	now   func() time.Time

	mu     sync.Mutex // protects what follows
	slot   slot
	cur    cursor
	dirty  int
	stored time.Time
}

// takeDurable takes a durable name over, or makes it.
func (t *topic) takeDurable(ctx context.Context, from Start) (*durable, error) {
	if !validPart(from.name) {
		return nil, fmt.Errorf("durable name %q: %w", from.name, ErrName)
	}
	d := &durable{topic: t, now: time.Now, slot: slot{client: t.client, key: t.keys.durable(from.name)}}
	res, err := t.client.Get(ctx, d.slot.key)
	if err != nil {
		return nil, err
	}
	if len(res.KVs) > 0 {
		d.slot.mod = res.KVs[0].ModRevision
		if d.cur, err = parseCursor(res.KVs[0].Value); err != nil {
			return nil, err
		}
	} else {
		first := Latest()
		if from.first != nil {
			first = *from.first
		}
		p, err := t.resolve(ctx, first)
		if err != nil {
			return nil, err
		}
		d.cur = startAt(p)
	}
	d.cur.Owner = fmt.Sprintf("%016x", rand.Uint64())
	if err := d.store(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// place returns where the name's subscription begins.
func (d *durable) place() place {
	return place{at: d.cur.position(), after: d.cur.After}
}

// store writes the cursor.
func (d *durable) store(ctx context.Context) error {
	d.cur.Seq++
	if err := d.slot.put(ctx, d.cur.encode()); err != nil {
		return err
	}
	d.dirty, d.stored = 0, d.now()
	return nil
}

// handled notes that the loop has asked for the message after this one.
func (d *durable) handled(ctx context.Context, o Offset) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o.Compare(d.cur.After) > 0 {
		d.cur.After = o
		d.dirty++
	}
	if d.dirty < durableMessages && d.now().Sub(d.stored) < durablePause {
		return nil
	}
	return d.store(ctx)
}

// reached notes that all up to a position was handled.
func (d *durable) reached(at sequence.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cur.Revision, d.cur.From = at.Revision, at.From
}

func (d *durable) done(o Offset) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o.Compare(d.cur.After) > 0 {
		d.cur.After = o
		d.dirty++
	}
}

func (d *durable) commit(ctx context.Context, o Offset, fn func(tx *client.Tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fence, next := d.cur, d.cur
	fence.Seq++
	next.Seq += 2
	if o.Compare(next.After) > 0 {
		next.After = o
	}
	if err := d.slot.update(ctx, next.encode(), fence.encode(), fn); err != nil {
		d.cur.Seq += 2
		return err
	}
	d.cur, d.dirty, d.stored = next, 0, d.now()
	return nil
}

// end stores the cursor after the loop, and returns why the loop ended.
func (d *durable) end(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, ErrTaken) || d.dirty == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), durableTimeout)
	defer cancel()
	if failed := d.store(ctx); failed != nil {
		if errors.Is(err, errStopped) {
			return failed
		}
		return errors.Join(err, failed)
	}
	return err
}

// DeleteDurable deletes a durable name: its next subscription begins anew. One that
// runs ends with [ErrTaken].
func (t *topic) DeleteDurable(ctx context.Context, name string) error {
	if _, err := t.client.Delete(ctx, t.keys.durable(name)); err != nil {
		return fmt.Errorf("delete durable name %q of topic %q: %w", name, t.name, err)
	}
	return nil
}
