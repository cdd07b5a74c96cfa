package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
)

// Drain tells an instance to drain, from outside: those who watch stop to use it,
// and its own Registration.Draining tells the instance. Registrations of etcd's
// clients take it as well, but only users of this package heed it.
//
// Errors: [ErrNoInstance], [ErrName], and those of client.Update.
func Drain(ctx context.Context, c *client.Client, service, id string) error {
	if err := errors.Join(checkService(service), checkID(id)); err != nil {
		return err
	}
	key := prefix(service) + id
	return c.Update(ctx, func(tx *client.Tx) error {
		kv, err := tx.Get(key)
		if errors.Is(err, client.ErrNotFound) {
			return fmt.Errorf("drain %s: %w", key, ErrNoInstance)
		}
		if err != nil {
			return err
		}
		// Whatever else is in the value stays.
		fields := make(map[string]json.RawMessage)
		if err := json.Unmarshal(kv.Value, &fields); err != nil {
			return &client.DecodeError{Key: key, Err: err}
		}
		if fields["state"], err = json.Marshal(Draining.String()); err != nil {
			return err
		}
		value, err := json.Marshal(fields)
		if err != nil {
			return err
		}
		tx.Put(key, value, client.KeepLease())
		return nil
	})
}

// List returns the instances of a service at this moment, in the order of their
// ids. What can not be read as one is in the snapshot's Invalid.
func List[M any](ctx context.Context, c *client.Client, service string) (Snapshot[M], error) {
	if err := checkService(service); err != nil {
		return Snapshot[M]{}, err
	}
	res, err := c.Get(ctx, prefix(service), client.Prefix())
	if err != nil {
		return Snapshot[M]{}, err
	}
	for i := range res.KVs {
		res.KVs[i].Key = res.KVs[i].Key[len(prefix(service)):]
	}
	t := newTracker[M](service, 0)
	s, _ := t.next(viewOf(res))
	s.Joined = nil
	return s, nil
}
