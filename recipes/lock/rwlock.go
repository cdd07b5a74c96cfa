package lock

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// RWLock is a lock on a name that any number of readers have together, or one
// writer alone. It is fair: everybody waits for those only who came before, so a
// stream of readers does not keep a writer out, nor the reverse.
//
// Like Lock, it holds no state of its own, and is safe for concurrent use. Each
// acquisition is a contender of its own, also of goroutines that share a session.
type RWLock struct{ bid *bid }

// NewRW returns the read-write lock with the name. It does nothing yet; a name
// that can not be used makes every call return [ErrName]. WithReentrant and
// WithDelay have no effect.
func NewRW(c *client.Client, name string, opts ...Option) *RWLock {
	l := &RWLock{bid: newBid(c, []string{name}, opts)}
	l.bid.opts.reentrant, l.bid.opts.delay = false, 0
	return l
}

// Name returns the lock's name.
func (l *RWLock) Name() string { return l.bid.names[0] }

func (l *RWLock) prefix() string { return l.bid.names[0] + "/" }

// RLock waits until we may read: until no writer is left who came before.
//
// ctx bounds the waiting only, as with [Lock.Acquire]. If it is, or comes from,
// the context of a handle of this same lock that is still held, the caller would
// wait for himself: then RLock does not wait, and returns [ErrWouldDeadlock] where
// it would have to, such as behind a writer who waits for that handle.
//
// Errors: [ErrWouldDeadlock], and those of [Lock.Acquire].
func (l *RWLock) RLock(ctx context.Context) (*Held, error) {
	return l.read(l.enter(ctx, ModeRead, true))
}

// TryRLock is RLock if that is possible without waiting, and otherwise returns
// [ErrHeld]. It never joins the queue. Writers who wait count as well.
func (l *RWLock) TryRLock(ctx context.Context) (*Held, error) {
	return l.read(l.enter(ctx, ModeRead, false))
}

// Lock waits until we have the lock alone: until nobody is left who came before.
// Everything else is as with [RWLock.RLock].
func (l *RWLock) Lock(ctx context.Context) (*WriteHeld, error) {
	return l.write(l.enter(ctx, ModeWrite, true))
}

// TryLock is Lock if that is possible without waiting, and otherwise returns
// [ErrHeld]. It never joins the queue.
func (l *RWLock) TryLock(ctx context.Context) (*WriteHeld, error) {
	return l.write(l.enter(ctx, ModeWrite, false))
}

// ULock waits until we may read, and be the only one who can become a writer
// without letting go: until no writer and nobody upgradeable is left who came
// before. Everything else is as with [RWLock.RLock].
func (l *RWLock) ULock(ctx context.Context) (*UpgradeableHeld, error) {
	return l.upgradeable(l.enter(ctx, ModeUpgradeable, true))
}

// TryULock is ULock if that is possible without waiting, and otherwise returns
// [ErrHeld]. It never joins the queue.
func (l *RWLock) TryULock(ctx context.Context) (*UpgradeableHeld, error) {
	return l.upgradeable(l.enter(ctx, ModeUpgradeable, false))
}

// Inspect tells who has the lock and who waits for it, at one revision. It counts
// clients of etcd's recipe as well.
//
// Errors: [ErrName], [ErrConflict], and those of a read.
func (l *RWLock) Inspect(ctx context.Context) (Info, error) {
	info, err := l.inspect(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("inspect lock %q: %w", l.Name(), err)
	}
	return info, nil
}

func (l *RWLock) inspect(ctx context.Context) (Info, error) {
	if l.bid.err != nil {
		return Info{}, l.bid.err
	}
	reads := make([]client.Op, 0, 3)
	for _, part := range l.parts(ModeWrite) {
		reads = append(reads, client.OpGet(part, client.Prefix(), client.Descending(client.ByCreateRevision), client.Limit(inspectMax)))
	}
	res, err := l.bid.client.Txn().Then(append(reads, l.readStrangers())...).Commit(ctx)
	if err != nil {
		return Info{}, err
	}
	if err := l.strangers(res.Results[len(reads)].Get); err != nil {
		return Info{}, err
	}
	info := Info{Name: l.Name(), Revision: res.Revision}
	var kvs []client.KV
	for _, r := range res.Results[:len(reads)] {
		kvs = append(kvs, r.Get.KVs...)
		info.More = info.More || r.Get.More
	}
	newest := l.places(kvs, anyRevision)
	owners := make(map[string]client.KV, len(kvs))
	for _, kv := range kvs {
		owners[kv.Key] = kv
	}
	for i := len(newest) - 1; i >= 0; i-- {
		c := contenderOf(owners[newest[i].key])
		c.Mode = newest[i].mode
		if _, waits := blocker(c.Mode, newest[i+1:]); waits {
			info.Waiters = append(info.Waiters, c)
		} else {
			info.Holders = append(info.Holders, c)
		}
	}
	return info, nil
}

// rwKey is a lock, with the client's namespace, as a key of context values; the
// value is the hold.
type rwKey struct{ name string }

func (l *RWLock) contextKey() rwKey { return rwKey{l.bid.client.Prefix() + l.Name()} }

// enter makes a claim in the mode m, if wait is false only if that need not wait.
func (l *RWLock) enter(ctx context.Context, m Mode, wait bool) (*Held, error) {
	s, err := l.bid.open(ctx)
	for err == nil {
		h := newHold(l.bid)
		var c *contender.Claim
		if c, err = contender.Take(ctx, h.spec(s, l.newKey(s, m))); err != nil {
			break
		}
		h.claim = c
		q := &rwQueue{lock: l, claim: c, mode: m, again: l.heldBy(ctx)}
		if wait {
			err = c.Run(ctx, func(ctx context.Context) error { return c.Queue(ctx, q) })
		} else {
			err = c.Run(ctx, q.seize)
		}
		if err == nil {
			held := &Held{h.handle()}
			held.ctx = context.WithValue(held.ctx, l.contextKey(), h)
			return held, nil
		}
		if errors.Is(err, errPlaceUnclear) {
			err = nil // that claim is undone in the background, and has another key
		}
	}
	return nil, l.bid.wrap(err)
}

// heldBy says whether ctx comes from a handle of this lock that is still held.
func (l *RWLock) heldBy(ctx context.Context) bool {
	h, ok := ctx.Value(l.contextKey()).(*hold)
	return ok && h.claim.Context().Err() == nil
}

func (l *RWLock) read(h *Held, err error) (*Held, error) { return h, err }

func (l *RWLock) write(h *Held, err error) (*WriteHeld, error) {
	if err != nil {
		return nil, err
	}
	return newWriteHeld(l, h, &holdMode{mode: ModeWrite}, client.Revision(h.Token())), nil
}

func (l *RWLock) upgradeable(h *Held, err error) (*UpgradeableHeld, error) {
	if err != nil {
		return nil, err
	}
	return &UpgradeableHeld{Held: h, lock: l, mode: &holdMode{mode: ModeUpgradeable}}, nil
}

func (l *RWLock) record(m Mode) record {
	r := l.bid.record
	r.Mode = m.String()
	return r
}

// newKey returns a key that nobody else uses: a session may have several.
func (l *RWLock) newKey(s *client.Session, m Mode) contender.Key {
	part := "write/"
	if m == ModeRead {
		part = "read/"
	}
	return contender.Key{Name: l.prefix() + part + ownKey(s), Value: l.record(m).encode()}
}

// ownKey names a contender of a session that may have several.
func ownKey(s *client.Session) string {
	return s.ID().String() + "." + strconv.FormatUint(contender.Serial(), 10)
}
