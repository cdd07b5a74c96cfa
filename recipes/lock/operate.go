package lock

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// editTries bounds the attempts to write a key that others write all the time.
const editTries = 32

// RequestRelease asks the holder of a lock to give it up, see
// [Held.ReleaseRequested]. It does not wait for an answer: whether and when the
// holder does so is up to it. What the request says is in the holder's key, for
// others to see, until the next one.
//
// Errors: [ErrNotHeld]; [ErrUnreachable] if the holder is a client of etcd, which
// can not be asked; [ErrName], [ErrConflict], and those of the client.
func RequestRelease(ctx context.Context, c *client.Client, name string, r Request) error {
	if r.By == "" {
		r.By = defaultOwner()
	}
	r.By, r.Reason = cut(r.By, ownerBytesMax), cut(r.Reason, ownerBytesMax)
	err := ErrNotHeld
	for range editTries {
		info, ierr := Inspect(ctx, c, name)
		if ierr != nil {
			return ierr
		}
		if len(info.Holders) == 0 {
			break
		}
		// If the holder leaves meanwhile, the request is for the next one.
		if err = edit(ctx, c, info.Holders[0], "request", r); !errors.Is(err, client.ErrConflict) && !errors.Is(err, ErrNotHeld) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("request the release of lock %q: %w", name, err)
	}
	return nil
}

// Break takes a lock away from its holder, or a place in the queue from a waiter,
// whose token it is. The holder's context ends with [ErrBroken] as its cause, as
// soon as it learns of that; until then it may go on, so a resource that does
// not check tokens may see two holders. Ask first, see [RequestRelease].
//
// Errors: [ErrNotHeld] when there is no such token in the queue; [ErrName],
// [ErrConflict], and those of the client.
func Break(ctx context.Context, c *client.Client, name string, t fence.Token) error {
	victim, err := find(ctx, c, name, t)
	found := err == nil
	// The owner is told by a last change of the value. That a client of etcd does
	// not understand it is no reason not to go on.
	for n := 0; err == nil && n < editTries; n++ {
		if err = edit(ctx, c, victim, "broken", defaultOwner()); err == nil || !errors.Is(err, client.ErrConflict) {
			break
		}
		victim, err = find(ctx, c, name, t)
	}
	if err == nil || errors.Is(err, ErrUnreachable) {
		err = retry.Do(ctx, func() error {
			_, err := c.Txn().
				If(client.CreateRevision(victim.Key).Equal(client.Revision(t))).
				Then(client.OpDelete(victim.Key)).
				Commit(ctx)
			return err
		})
	}
	if found && errors.Is(err, ErrNotHeld) {
		return nil // it is gone, be it because an attempt whose answer was lost has told its owner
	}
	if err != nil {
		return fmt.Errorf("break lock %q: %w", name, err)
	}
	return nil
}

// find returns the contender with the token.
func find(ctx context.Context, c *client.Client, name string, t fence.Token) (Contender, error) {
	if !contender.ValidName(name) {
		return Contender{}, ErrName
	}
	rev := client.Revision(t)
	res, err := c.Get(ctx, name+"/", client.Prefix(), client.MinCreateRevision(rev), client.MaxCreateRevision(rev))
	if err != nil {
		return Contender{}, err
	}
	kv, err := first(name, res.KVs, anyRevision)
	if err != nil {
		return Contender{}, err
	}
	if kv == nil {
		return Contender{}, ErrNotHeld
	}
	return contenderOf(*kv), nil
}

// edit sets a field of the record in a contender's key. ErrConflict says that
// somebody else wrote it meanwhile, or that an attempt whose answer was lost has;
// ErrNotHeld that it is gone.
func edit(ctx context.Context, c *client.Client, of Contender, field string, v any) error {
	return retry.Do(ctx, func() error { return editOnce(ctx, c, of, field, v) })
}

func editOnce(ctx context.Context, c *client.Client, of Contender, field string, v any) error {
	ours := client.CreateRevision(of.Key).Equal(client.Revision(of.Token))
	res, err := c.Get(ctx, of.Key)
	if err != nil {
		return err
	}
	if len(res.KVs) == 0 || res.KVs[0].CreateRevision != client.Revision(of.Token) {
		return ErrNotHeld
	}
	value, err := edited(res.KVs[0].Value, field, v)
	if err != nil {
		return err
	}
	done, err := c.Txn().
		If(ours, client.ModRevision(of.Key).Equal(res.KVs[0].ModRevision)).
		Then(client.OpPut(of.Key, value, client.KeepLease())).
		Commit(ctx)
	if err != nil {
		return err
	}
	if !done.Succeeded {
		return client.ErrConflict
	}
	return nil
}
