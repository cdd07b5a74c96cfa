package barrier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// Gate holds back all who wait at it until somebody opens it. It is closed while its
// key exists, as with etcd's recipe.Barrier: either opens what the other has closed. It
// holds no state of its own and is safe for concurrent use.
type Gate struct {
	client  *client.Client
	name    string
	session *client.Session
	err     error // what is wrong with the name; each call returns it
}

// NewGate returns the gate with the name. With [WithSession], a gate that it closes
// opens when the session ends; without, it stays closed until somebody opens it. It does
// nothing yet; a name that can not be used makes every call return [ErrName].
func NewGate(c *client.Client, name string, opts ...Option) *Gate {
	o := newOptions(options{}, opts)
	g := &Gate{client: c, name: name, session: o.session}
	if !validName(name) {
		g.err = fmt.Errorf("gate %q: %w", name, ErrName)
	}
	return g
}

// Name returns the gate's name, which is its key.
func (g *Gate) Name() string { return g.name }

// Hold closes the gate; one that is closed stays as it is.
//
// Errors: those of ctx, with [client.ErrUncertain] when it is not known whether the gate
// was closed; [ErrLost] when the session has ended; and those of the client.
func (g *Gate) Hold(ctx context.Context) error {
	if g.err != nil {
		return g.err
	}
	var opts []client.PutOption
	if g.session != nil {
		if err := g.session.Err(); err != nil {
			return &LostError{Name: g.name, Reason: err, At: time.Now()}
		}
		opts = append(opts, client.WithLease(g.session.ID()))
	}
	// Not a plain transaction, which could be repeated as well: one that arrives late
	// would close a gate that was opened since, and nobody would know of it.
	err := g.client.Update(ctx, func(tx *client.Tx) error {
		if _, err := tx.Get(g.name); !errors.Is(err, client.ErrNotFound) {
			return err
		}
		tx.Put(g.name, nil, opts...)
		return nil
	}, client.ExactlyOnce())
	if errors.Is(err, client.ErrLeaseNotFound) && g.session != nil {
		err = &LostError{Name: g.name, Reason: client.ErrSessionRevoked, At: time.Now()}
	}
	if err != nil {
		return fmt.Errorf("hold gate %q: %w", g.name, err)
	}
	return nil
}

// Open opens the gate for all who wait, and for all who come; one that is open stays
// as it is. Errors: those of ctx, with [client.ErrUncertain] when it is not known
// whether the gate was opened, and those of the client.
func (g *Gate) Open(ctx context.Context) error {
	if g.err != nil {
		return g.err
	}
	for n := 0; ; n++ {
		kv, err := g.client.GetOne(ctx, g.name)
		if errors.Is(err, client.ErrNotFound) {
			return nil
		}
		if err == nil {
			// It names the key that was seen, so it can be repeated, and if it arrives late
			// it does not open a gate that was closed since.
			var res *client.TxnResult
			res, err = g.client.Txn().
				If(client.CreateRevision(g.name).Equal(kv.CreateRevision)).
				Then(client.OpDelete(g.name)).Commit(ctx)
			if err == nil && res.Succeeded {
				return nil
			}
		}
		if err != nil && (!retry.Temporary(err) || ctx.Err() != nil) || !retry.Backoff(ctx, n) {
			if err == nil {
				err = retry.Why(ctx)
			}
			return fmt.Errorf("open gate %q: %w", g.name, err)
		}
	}
}

// Closed says whether the gate is closed.
func (g *Gate) Closed(ctx context.Context) (bool, error) {
	if g.err != nil {
		return false, g.err
	}
	res, err := g.client.Get(ctx, g.name, client.CountOnly())
	if err != nil {
		return false, fmt.Errorf("look at gate %q: %w", g.name, err)
	}
	return res.Count > 0, nil
}

// Wait returns when the gate is open, or was at some moment since the call. Errors:
// those of ctx, and those of the client that waiting does not cure.
func (g *Gate) Wait(ctx context.Context) error {
	if g.err != nil {
		return g.err
	}
	err := awaitKey(ctx, g.client, g.name, client.EventDelete)
	if err != nil {
		return fmt.Errorf("wait at gate %q: %w", g.name, err)
	}
	return nil
}

// awaitKey returns when a key is there, or is not, as after an event of the given type;
// or was at some moment since the call. It reads, watches from the revision after that,
// and reads again when the watch can not go on: that a watch ends is never the event.
func awaitKey(ctx context.Context, c *client.Client, key string, what client.EventType) error {
	filter := client.WithoutPuts()
	if what == client.EventPut {
		filter = client.WithoutDeletes()
	}
	for n := 0; ; n++ {
		res, err := c.Get(ctx, key, client.CountOnly())
		if err == nil {
			if (res.Count > 0) == (what == client.EventPut) {
				return nil
			}
			for _, err = range c.Watch(ctx, key, client.FromRevision(res.Revision+1), filter) {
				break
			}
			if err == nil {
				return nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return retry.Why(ctx)
		case errors.Is(err, client.ErrCompacted):
		case !retry.Temporary(err) || !retry.Backoff(ctx, n):
			return err
		}
	}
}
