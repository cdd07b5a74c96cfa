package pubsub

import (
	"bytes"
	"context"
	"errors"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// errMoved: somebody has sought: the cursor is elsewhere, and still ours.
var errMoved = errors.New("cursor was moved")

// slot is a key with a cursor that one writer writes, again and again, each time on
// the condition that nobody else has since. So a write that arrives late has no
// effect, and one whose answer is lost can be found out. Whoever uses it is alone.
type slot struct {
	client *client.Client
	key    string
	mod    client.Revision // of our latest write that is known
	tried  []byte          // a later one, whose outcome is not known
	guard  []client.Compare
}

func (s *slot) compares() []client.Compare {
	return append([]client.Compare{client.ModRevision(s.key).Equal(s.mod)}, s.guard...)
}

// put writes a value, with other operations, until it is known whether it was
// written. Errors: those of lost, and those of the client; client.ErrUncertain only
// when ctx has ended.
func (s *slot) put(ctx context.Context, value []byte, also ...client.Op) error {
	ops := append([]client.Op{client.OpPut(s.key, value)}, also...)
	uncertain := false
	for n := 0; ; n++ {
		res, err := s.client.Txn().If(s.compares()...).Then(ops...).Else(client.OpGet(s.key)).Commit(ctx)
		switch {
		case err == nil && res.Succeeded:
			s.mod, s.tried = res.Revision, nil
			return nil
		case err == nil:
			kvs := res.Results[0].Get.KVs
			switch {
			case uncertain && len(kvs) > 0 && bytes.Equal(kvs[0].Value, value):
				s.mod, s.tried = kvs[0].ModRevision, nil
				return nil
			case s.tried != nil && len(kvs) > 0 && bytes.Equal(kvs[0].Value, s.tried):
				s.mod, s.tried = kvs[0].ModRevision, nil // and once more
				continue
			}
			return s.lost(ctx)
		case errors.Is(err, client.ErrUncertain):
			if !uncertain && s.tried == nil {
				s.tried = value
			}
			uncertain = true
			if !retry.Backoff(ctx, n) {
				return err
			}
		case !retry.Unreached(err) || !retry.Backoff(ctx, n):
			if uncertain {
				err = errors.Join(client.ErrUncertain, err)
			}
			return err
		}
	}
}

// update runs fn in a transaction that also writes a value. fence is another value
// for the same state as now, which is written if it has to be found out what became
// of the transaction.
func (s *slot) update(ctx context.Context, value, fence []byte, fn func(tx *client.Tx) error) error {
	for {
		var at client.Revision
		err := s.client.Update(ctx, func(tx *client.Tx) error {
			in := tx.In(s.client)
			in.Require(errMoved, s.compares()...)
			in.Put(s.key, value)
			tx.AfterCommit(func(rev client.Revision) { at = rev })
			return fn(tx)
		})
		switch {
		case err == nil:
			s.mod = at
			return nil
		case errors.Is(err, errMoved):
			return s.lost(ctx)
		case !errors.Is(err, client.ErrUncertain):
			return err
		}
		done, failed := s.resolve(ctx, value, fence)
		if done {
			return nil
		}
		if failed != nil {
			return failed
		}
	}
}

// resolve finds out whether a transaction was executed that has written value, and
// makes sure that it is not executed from now on.
func (s *slot) resolve(ctx context.Context, value, fence []byte) (done bool, err error) {
	for n := 0; ; n++ {
		res, err := s.client.Txn().If(s.compares()...).Then(client.OpPut(s.key, fence)).
			Else(client.OpGet(s.key)).Commit(ctx)
		if err != nil {
			if retry.Temporary(err) && retry.Backoff(ctx, n) {
				continue
			}
			return false, errors.Join(client.ErrUncertain, err)
		}
		if res.Succeeded {
			s.mod = res.Revision
			return false, nil
		}
		kvs := res.Results[0].Get.KVs
		switch {
		case len(kvs) > 0 && bytes.Equal(kvs[0].Value, value):
			s.mod = kvs[0].ModRevision
			return true, nil
		case len(kvs) > 0 && bytes.Equal(kvs[0].Value, fence): // by an attempt before
			s.mod = kvs[0].ModRevision
			return false, nil
		}
		return false, s.lost(ctx)
	}
}

// lost tells why a condition did not hold: ErrLost when the guard does not,
// errMoved when it does, and ErrTaken when there is none.
func (s *slot) lost(ctx context.Context) error {
	if len(s.guard) == 0 {
		return ErrTaken
	}
	for n := 0; ; n++ {
		res, err := s.client.Txn().If(s.guard...).Commit(ctx)
		switch {
		case err == nil && res.Succeeded:
			return errMoved
		case err == nil:
			return ErrLost
		case !retry.Unreached(err) || !retry.Backoff(ctx, n):
			return err
		}
	}
}
