package barrier

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// latchIDBytesMax bounds the id of a count.
const latchIDBytesMax = 512

// Latch lets all who wait go on once a number of things are done, each of which is
// counted once, by its id, however often that is reported. Counts stay when those who
// made them die. It holds no state of its own and is safe for concurrent use.
type Latch struct {
	client *client.Client
	name   string
	count  string // holds the number; its last change is the latch's era
	done   string // prefix: a key for each id
	downs  string // its version counts the ids
	open   string // is there once the latch is open
	err    error  // what is wrong with the name; each call returns it
}

// NewLatch returns the latch with the name. It does nothing yet; a name that can not be
// used makes every call return [ErrName].
func NewLatch(c *client.Client, name string) *Latch {
	l := &Latch{
		client: c, name: name,
		count: name + ".count", done: name + "/d/", downs: name + ".downs", open: name + ".open",
	}
	if !validName(name) {
		l.err = fmt.Errorf("latch %q: %w", name, ErrName)
	}
	return l
}

// Name returns the latch's name.
func (l *Latch) Name() string { return l.name }

// Init makes the latch, for n counts, and returns whether it did: if it exists already,
// whatever its number, it stays as it is. [ErrParties] when n is less than 1.
func (l *Latch) Init(ctx context.Context, n int) (bool, error) {
	if l.err != nil {
		return false, l.err
	}
	if n < 1 {
		return false, fmt.Errorf("init latch %q: %w: %d", l.name, ErrParties, n)
	}
	made := false
	err := l.client.Update(ctx, func(tx *client.Tx) error {
		made = false
		if _, err := tx.Get(l.count); !errors.Is(err, client.ErrNotFound) {
			return err
		}
		tx.Put(l.count, strconv.AppendInt(nil, int64(n), 10))
		tx.AfterCommit(func(client.Revision) { made = true })
		return nil
	}, client.ExactlyOnce())
	if err != nil {
		return false, fmt.Errorf("init latch %q: %w", l.name, err)
	}
	return made, nil
}

// CountDown counts the id, unless it was counted before, and returns how many are left:
// zero when the latch is open. It can be called again with the same id as often as one
// likes; so ErrUncertain, or a crash, is an occasion to call it again.
//
// The id must not be empty nor contain "/", and has at most 512 bytes: [ErrName].
// [client.ErrNotFound] when there is no such latch.
func (l *Latch) CountDown(ctx context.Context, id string) (left int, err error) {
	if l.err != nil {
		return 0, l.err
	}
	if id == "" || strings.Contains(id, "/") || len(id) > latchIDBytesMax {
		return 0, fmt.Errorf("count down latch %q: id %q: %w", l.name, id, ErrName)
	}
	for n := 0; ; n++ {
		var again bool
		left, again, err = l.tryCountDown(ctx, id)
		if !again && !(err != nil && retry.Temporary(err) && ctx.Err() == nil) || !retry.Backoff(ctx, n) {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("count down latch %q: %w", l.name, err)
	}
	return left, nil
}

// tryCountDown counts the id in the latch's present era. again says that the era has
// changed meanwhile.
//
// The last id opens the latch, in its own transaction, so there is no moment at which
// all are counted and it is not open. No condition can count keys; but the version of a
// key counts its changes, and the ids' keys are only made together with one.
func (l *Latch) tryCountDown(ctx context.Context, id string) (left int, again bool, err error) {
	state, err := l.read(ctx)
	if err != nil {
		return 0, false, err
	}
	if state.open {
		return 0, false, nil
	}
	last := client.OpTxn([]client.Compare{client.Version(l.downs).Equal(state.n - 1)}, []client.Op{client.OpPut(l.open, []byte(id))}, nil)
	res, err := l.client.Txn().
		If(client.ModRevision(l.count).Equal(state.era)).
		Then(client.OpTxn(
			[]client.Compare{client.Missing(l.done + id)},
			[]client.Op{client.OpPut(l.done+id, nil), client.OpPut(l.downs, []byte(id)), last}, nil),
			client.OpGet(l.downs)).
		Commit(ctx)
	if err != nil || !res.Succeeded {
		return 0, err == nil, err
	}
	if kvs := res.Results[1].Get.KVs; len(kvs) > 0 {
		state.counts = kvs[0].Version
	}
	return state.left(), false, nil
}

// Wait returns when the latch is open. One that does not exist yet is waited for.
// Errors: those of ctx, and those of the client that waiting does not cure.
func (l *Latch) Wait(ctx context.Context) error {
	if l.err != nil {
		return l.err
	}
	if err := awaitKey(ctx, l.client, l.open, client.EventPut); err != nil {
		return fmt.Errorf("wait for latch %q: %w", l.name, err)
	}
	return nil
}

// Left returns how many counts are missing: zero when the latch is open.
// [client.ErrNotFound] when there is no such latch.
func (l *Latch) Left(ctx context.Context) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	state, err := l.read(ctx)
	if err != nil {
		return 0, fmt.Errorf("read latch %q: %w", l.name, err)
	}
	return state.left(), nil
}

// Reset closes the latch and forgets all counts; its number stays. Counts that are
// under way do not count any more. [client.ErrNotFound] when there is no such latch.
func (l *Latch) Reset(ctx context.Context) error {
	if l.err != nil {
		return l.err
	}
	var state latchState
	err := retry.Do(ctx, func() (err error) {
		state, err = l.read(ctx)
		return err
	})
	if err == nil {
		// That the era is another one means that it was this request, executed after all,
		// or somebody else's: the latch was reset. So it may be repeated, and come late.
		err = retry.Do(ctx, func() error {
			_, err := l.client.Txn().
				If(client.ModRevision(l.count).Equal(state.era)).
				Then(client.OpPut(l.count, strconv.AppendInt(nil, state.n, 10)), client.OpDelete(l.done, client.Prefix()),
					client.OpDelete(l.downs), client.OpDelete(l.open)).
				Commit(ctx)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("reset latch %q: %w", l.name, err)
	}
	return nil
}

// latchState is a latch as it was at one revision.
type latchState struct {
	n, counts int64
	era       client.Revision
	open      bool
}

func (s *latchState) left() int {
	if s.open {
		return 0
	}
	return int(max(0, s.n-s.counts))
}

func (l *Latch) read(ctx context.Context) (latchState, error) {
	res, err := l.client.Txn().Then(client.OpGet(l.count), client.OpGet(l.downs), client.OpGet(l.open, client.CountOnly())).Commit(ctx)
	if err != nil {
		return latchState{}, err
	}
	kvs := res.Results[0].Get.KVs
	if len(kvs) == 0 {
		return latchState{}, fmt.Errorf("key %q: %w", l.count, client.ErrNotFound)
	}
	n, err := strconv.ParseInt(string(kvs[0].Value), 10, 64)
	if err != nil || n < 1 {
		return latchState{}, &ConflictError{Name: l.name, Theirs: "something else", Ours: "a latch"}
	}
	s := latchState{n: n, era: kvs[0].ModRevision, open: res.Results[2].Get.Count > 0}
	if downs := res.Results[1].Get.KVs; len(downs) > 0 {
		s.counts = downs[0].Version
	}
	return s, nil
}
