package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// holdMode is the mode that a lock is held in, which all handles of one acquisition
// share.
type holdMode struct {
	mu   sync.Mutex
	mode Mode // protected by mu
}

// become changes the mode, if it is the one that is expected.
func (h *holdMode) become(from, to Mode) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mode != from {
		return false
	}
	h.mode = to
	return true
}

func (h *holdMode) now() Mode {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mode
}

// WriteHeld is a read-write lock that is held alone. Beyond what [Held] has, it can
// become a reader's.
//
// Its transactions and its guard hold only as long as nobody else can read: a
// transaction that was sent before Downgrade and arrives after it is refused.
type WriteHeld struct {
	*Held
	lock    *RWLock
	mode    *holdMode
	alone   Mode            // the mode that makes it so
	whole   *Held           // the acquisition, which goes on after Downgrade
	changed client.Revision // the key's last change
	end     context.CancelCauseFunc
}

func newWriteHeld(l *RWLock, h *Held, mode *holdMode, changed client.Revision) *WriteHeld {
	w := &WriteHeld{lock: l, mode: mode, alone: mode.now(), whole: h, changed: changed}
	ctx, cancel := context.WithCancelCause(h.ctx)
	w.Held, w.end = &Held{&handle{hold: h.hold, ctx: ctx}}, cancel
	return w
}

// Guard returns the condition that holds exactly as long as the lock is held
// alone. See [Held.Guard].
func (w *WriteHeld) Guard() client.Compare { return client.ModRevision(w.Key()).Equal(w.changed) }

// Txn starts a transaction that is executed only while the lock is held alone.
// See [Held.Txn].
func (w *WriteHeld) Txn() *client.GuardedTxn {
	lost := w.hold.claim.Ended()
	if errors.Is(context.Cause(w.ctx), ErrDowngraded) {
		lost = w.lock.bid.lost(contender.Loss{Token: w.hold.claim.Token(), Reason: ErrDowngraded})
	}
	return w.lock.bid.client.Guarded(lost, w.Guard())
}

// Check asks the cluster whether the lock is held alone at this moment. See
// [Held.Check].
func (w *WriteHeld) Check(ctx context.Context) error { return check(ctx, w.Txn(), w.Key()) }

// Downgrade lets readers in, and returns the handle of the reader that we have
// become. Nobody else can write in between: the key, the place in the queue and the
// token stay what they are, and no writer who waits comes before us.
//
// The context of this handle ends before, with [ErrDowngraded] as its cause, and
// its transactions are refused from then on. Release of either handle gives all of
// it back.
//
// Errors: [ErrMode] when it was called before; [ErrLost]; those of ctx, with
// [client.ErrUncertain] when it is not known whether readers were let in: then
// call it again.
func (w *WriteHeld) Downgrade(ctx context.Context) (*Held, error) {
	if w.mode.now() != w.alone {
		return nil, fmt.Errorf("downgrade lock %q: %w", w.Name(), ErrMode)
	}
	w.end(ErrDowngraded)
	if err := w.hold.claim.Rewrite(ctx, 0, w.lock.record(ModeRead).encode()); err != nil {
		return nil, fmt.Errorf("downgrade lock %q: %w", w.Name(), err)
	}
	w.mode.become(w.alone, ModeRead)
	return w.whole, nil
}

// UpgradeableHeld is a read-write lock that is held to read, by the only one who
// can become a writer without letting go. Beyond what [Held] has, it can do that.
type UpgradeableHeld struct {
	*Held
	lock *RWLock
	mode *holdMode
}

// Upgrade keeps new readers out, waits until those are gone who have the lock now,
// and returns the handle of the writer that we have become. What was read before
// is still so: nobody else could write in between. The token stays; it is larger
// than that of every earlier writer.
//
// ctx bounds the waiting. If it ends, or something fails, the lock is upgradeable
// again when Upgrade returns; should that not be confirmed within five seconds,
// the lock is given up, and its context ends.
//
// This handle stays what it is, and its context goes on. After
// [WriteHeld.Downgrade], the lock can not be upgraded again.
//
// Errors: [ErrMode] when it is, or is about to be, upgraded, or was downgraded;
// [ErrLost]; those of ctx, and those of the client that waiting does not cure.
func (u *UpgradeableHeld) Upgrade(ctx context.Context) (*WriteHeld, error) {
	if !u.mode.become(ModeUpgradeable, ModeUpgraded) {
		return nil, fmt.Errorf("upgrade lock %q: %w", u.Name(), ErrMode)
	}
	changed, err := u.upgrade(ctx)
	if err != nil {
		u.revert(ctx)
		return nil, fmt.Errorf("upgrade lock %q: %w", u.Name(), err)
	}
	return newWriteHeld(u.lock, u.Held, u.mode, changed), nil
}

func (u *UpgradeableHeld) upgrade(ctx context.Context) (client.Revision, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(u.ctx, func() { cancel(context.Cause(u.ctx)) })()
	w := &upgrade{lock: u.lock, claim: u.hold.claim}
	if err := w.write(ctx); err != nil {
		return 0, err
	}
	if err := u.hold.claim.Await(ctx, w, nil); err != nil {
		return 0, err
	}
	return w.since, nil
}

// revert undoes an upgrade. ctx may have ended.
func (u *UpgradeableHeld) revert(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := u.hold.claim.Rewrite(ctx, 0, u.lock.record(ModeUpgradeable).encode()); err != nil {
		u.hold.claim.Lose(err)
		return
	}
	u.mode.become(ModeUpgraded, ModeUpgradeable)
}

// upgrade is the rule of somebody upgradeable who waits to be alone.
type upgrade struct {
	lock    *RWLock
	claim   *contender.Claim
	since   client.Revision // the upgrade; zero until it is known
	sharers []place         // who had the lock at that revision
}

func (w *upgrade) write(ctx context.Context) error {
	return w.claim.Rewrite(ctx, 0, w.lock.record(ModeUpgraded).encode())
}

// Reads reads all contenders. Readers who came later are among them, and so are
// those who have been let in meanwhile, but not any that has the lock and is not
// one of the sharers.
func (w *upgrade) Reads(client.Revision) []client.Op {
	ops := []client.Op{client.OpGet(w.claim.Key(0))}
	for _, part := range w.lock.parts(ModeWrite) {
		ops = append(ops, client.OpGet(part, client.Prefix()))
	}
	return ops
}

// Blocker returns the end of a sharer that is still there.
func (w *upgrade) Blocker(ctx context.Context, v contender.View) (*contender.Wait, error) {
	me := v.Results[0].Get.KVs[0]
	now := append(v.Results[1].Get.KVs, v.Results[2].Get.KVs...)
	if w.since != me.ModRevision {
		if err := w.begin(ctx, me, v.Revision, now); err != nil {
			return nil, err
		}
	}
	there := make(map[string]bool, len(now))
	for _, kv := range now {
		there[kv.Key] = true
	}
	for _, s := range w.sharers {
		if there[s.key] {
			return contender.End(s.key), nil
		}
	}
	return nil, nil
}

// begin finds out whom to wait for, given the contenders at a revision, at or
// after the upgrade.
func (w *upgrade) begin(ctx context.Context, me client.KV, rev client.Revision, kvs []client.KV) error {
	if rev != me.ModRevision {
		kvs = nil
		for _, part := range w.lock.parts(ModeWrite) {
			res, err := w.claim.Get(ctx, part, client.Prefix(), client.AtRevision(me.ModRevision))
			if errors.Is(err, client.ErrCompacted) {
				if err := w.write(ctx); err != nil { // and so have a later revision
					return err
				}
				return contender.ErrAgain
			}
			if err != nil {
				return err
			}
			kvs = append(kvs, res.KVs...)
		}
	}
	w.since = me.ModRevision
	w.sharers = sharers(place{key: me.Key, created: me.CreateRevision}, w.lock.places(kvs, anyRevision))
	return nil
}
