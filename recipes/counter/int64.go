package counter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"sync/atomic"

	"github.com/latchkey-go/latchkey/client"
)

// Conditions to test for with errors.Is.
var (
	// ErrOverflow: the result does not fit into 64 bits.
	ErrOverflow = errors.New("counter overflows")
	// ErrNotNumber: the key holds something else. A [*ValueError] tells what.
	ErrNotNumber = errors.New("value is not a number")
	// ErrName: the name is empty.
	ErrName = errors.New("name of a counter is empty")
)

// ValueError tells what is under a counter's key. It is [ErrNotNumber].
type ValueError struct {
	Name  string
	Value []byte
}

// Error tells the name and the value.
func (e *ValueError) Error() string {
	return fmt.Sprintf("counter %q: %v: %.40q", e.Name, ErrNotNumber, e.Value)
}

// Is makes the error ErrNotNumber.
func (e *ValueError) Is(target error) bool { return target == ErrNotNumber }

// Int64 is a number in the store. Any number of Int64 objects of one name, in any number
// of processes, are the same counter. It is safe for concurrent use.
type Int64 struct {
	client *client.Client
	name   string
	last   atomic.Pointer[number] // what was seen last, to be tried first; nil before
}

// number is a counter as it was at one revision, zero if it did not exist.
type number struct {
	value int64
	rev   client.Revision
}

// NewInt64 returns the counter with the name. It does nothing yet.
func NewInt64(c *client.Client, name string) *Int64 { return &Int64{client: c, name: name} }

// Name returns the counter's name, which is its key.
func (n *Int64) Name() string { return n.name }

// Get returns the value, and the revision of its last change: 0 and 0 for a counter that
// does not exist. [ErrNotNumber].
func (n *Int64) Get(ctx context.Context) (int64, client.Revision, error) {
	res, err := n.client.Get(ctx, n.name)
	if err != nil {
		return 0, 0, fmt.Errorf("get counter %q: %w", n.name, err)
	}
	got, err := n.parse(res.KVs)
	return got.value, got.rev, err
}

// Add adds d, exactly once, and returns the sum. Where answers get lost that takes until
// it is known what became of it, within ctx, or the client's RequestTimeout if ctx has no
// deadline.
//
// Errors: [ErrOverflow], [ErrNotNumber]: nothing was added. [client.ErrUncertain] when it
// is not known whether d was added. [client.ErrConflict] when others were faster each
// time: nothing was added.
func (n *Int64) Add(ctx context.Context, d int64) (int64, error) {
	return n.Update(ctx, func(v int64) (int64, error) {
		if d > 0 && v > math.MaxInt64-d || d < 0 && v < math.MinInt64-d {
			return 0, fmt.Errorf("%w: %d and %d", ErrOverflow, v, d)
		}
		return v + d, nil
	})
}

// errUnchanged ends an update that has nothing to write.
var errUnchanged = errors.New("value is another")

// CompareAndSwap sets the counter to new if it is old, and returns whether it was. A
// counter that does not exist is 0. Errors are those of [Int64.Add].
func (n *Int64) CompareAndSwap(ctx context.Context, old, new int64) (bool, error) {
	_, err := n.Update(ctx, func(v int64) (int64, error) {
		if v != old {
			return 0, errUnchanged
		}
		return new, nil
	})
	if errors.Is(err, errUnchanged) {
		return false, nil
	}
	return err == nil, err
}

// Update sets the counter to what f makes of it, exactly once, and returns that. f may be
// called several times, and must have no other effect; an error of f ends the update, and
// is found by errors.Is. Errors are those of [Int64.Add].
func (n *Int64) Update(ctx context.Context, f func(int64) (int64, error)) (int64, error) {
	if n.name == "" {
		return 0, ErrName
	}
	guess := n.last.Load()
	var out number
	err := once(ctx, n.client, func(tx *client.Tx) error {
		old, err := n.read(tx, guess)
		if err != nil {
			return err
		}
		v, err := f(old.value)
		if err != nil && guess != nil {
			// What f does not like may be out of date.
			if old, err = n.read(tx, nil); err == nil {
				v, err = f(old.value)
			}
		}
		if err != nil {
			return err
		}
		guess = nil // should this run again, it was wrong
		tx.Put(n.name, strconv.AppendInt(nil, v, 10))
		tx.AfterCommit(func(rev client.Revision) { out = number{v, rev} })
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("update counter %q: %w", n.name, err)
	}
	n.remember(out)
	return out.value, nil
}

// read returns the number as the transaction sees it: what was seen last, if there is
// such a guess, on the condition that it still is.
func (n *Int64) read(tx *client.Tx, guess *number) (number, error) {
	if guess != nil {
		tx.If(client.ModRevision(n.name).Equal(guess.rev))
		return *guess, nil
	}
	kv, err := tx.Get(n.name)
	switch {
	case errors.Is(err, client.ErrNotFound):
		return number{}, nil
	case err != nil:
		return number{}, err
	}
	return n.parse([]client.KV{kv})
}

// remember keeps the newest number that is known.
func (n *Int64) remember(out number) {
	for {
		last := n.last.Load()
		if last != nil && last.rev >= out.rev || n.last.CompareAndSwap(last, &out) {
			return
		}
	}
}

// parse returns the number that a read has found.
func (n *Int64) parse(kvs []client.KV) (number, error) {
	if len(kvs) == 0 {
		return number{}, nil
	}
	v, err := strconv.ParseInt(string(kvs[0].Value), 10, 64)
	if err != nil {
		return number{}, &ValueError{Name: n.name, Value: kvs[0].Value}
	}
	return number{v, kvs[0].ModRevision}, nil
}

// Watch yields the value now and after each change; see "Guarantees" in the package's
// documentation. What is no number is yielded as a [*ValueError], and the watch goes on
// if the loop does. It ends with an error: that of ctx, or one that waiting does not cure.
func (n *Int64) Watch(ctx context.Context) iter.Seq2[int64, error] {
	return func(yield func(int64, error) bool) {
		for kv, err := range follow(ctx, n.client, n.name) {
			var got number
			if err == nil && kv.ModRevision > 0 {
				got, err = n.parse([]client.KV{kv})
			}
			if !yield(got.value, err) {
				return
			}
		}
	}
}
