package lock

import (
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// Conditions to test for with errors.Is.
var (
	// ErrHeld: TryAcquire found the lock taken. A [*HeldError] tells by whom.
	ErrHeld = errors.New("lock is held")
	// ErrLost: the lock, or the place in its queue, was lost. A [*LostError]
	// tells why.
	ErrLost = errors.New("lock is lost")
	// ErrDeleted is a reason of a loss: the key was deleted, by a person or
	// because its lease ended.
	ErrDeleted = contender.ErrDeleted
	// ErrDetached is a reason of a loss: somebody has written the key and thereby
	// taken it off its lease.
	ErrDetached = contender.ErrDetached
	// ErrBroken is a reason of a loss: somebody called Break.
	ErrBroken = errors.New("lock was broken")
	// ErrNotHeld: nobody holds the lock, or nobody with that token.
	ErrNotHeld = errors.New("lock is not held")
	// ErrUnreachable: the holder is a client that can not be asked for anything.
	ErrUnreachable = errors.New("holder does not take requests")
	// ErrReleased is the cause of a handle's context after Release.
	ErrReleased = errors.New("lock was released")
	// ErrConflict: another recipe uses the name. A [*ConflictError] names it.
	ErrConflict = errors.New("name is used by another recipe")
	// ErrName: the name can not be one of a lock. See "Keys" in the package's
	// documentation.
	ErrName = errors.New("name can not be used for a lock")

	// ErrWouldDeadlock: who has a read-write lock already would have to wait for
	// it again.
	ErrWouldDeadlock = errors.New("would wait for a lock that the caller has")
	// ErrMode: the lock is not held, or no longer, in the mode that the call needs.
	ErrMode = errors.New("lock is held in another mode")
	// ErrDowngraded is the cause of a writer's context after Downgrade.
	ErrDowngraded = errors.New("lock was downgraded")

	// ErrPermits: a number of permits that can not be had, or kept.
	ErrPermits = errors.New("number of permits is not possible")
	// ErrLimitConflict: the semaphore was created with another limit. A
	// [*LimitError] tells both.
	ErrLimitConflict = errors.New("semaphore has another limit")
)

// LostError tells how a lock was lost. It is [ErrLost], and its reason.
type LostError struct {
	Name  string
	Token fence.Token // zero when the loss came before the place in the queue
	// Reason is ErrDeleted, ErrDetached, ErrBroken, or the end of the session:
	// client.ErrSessionLost with its reason, or client.ErrSessionClosed.
	Reason error
	// At is when this process learned of it; zero in the error of a guarded
	// transaction.
	At time.Time
}

// Error tells the lock and the reason.
func (e *LostError) Error() string {
	return fmt.Sprintf("lock %q (token %d) is lost: %v", e.Name, e.Token, e.Reason)
}

// Is makes the error ErrLost.
func (e *LostError) Is(target error) bool { return target == ErrLost }

// Unwrap returns the reason.
func (e *LostError) Unwrap() error { return e.Reason }

// HeldError tells who has the lock that TryAcquire wanted. It is [ErrHeld].
type HeldError struct {
	Name string
	// Holder is the first in the queue. Its Key is empty when the lock is
	// taken inside this process and nothing of that is in the store yet, or
	// no longer.
	Holder Contender
	// Delayed says that nobody holds the lock, but the delay after a holder that
	// ended without a release is not over. See WithDelay.
	Delayed bool
}

// Error tells the holder.
func (e *HeldError) Error() string {
	if e.Delayed {
		return fmt.Sprintf("lock %q is kept free for a time after its holder was cut off", e.Name)
	}
	if e.Holder.Key == "" {
		return fmt.Sprintf("lock %q is held in this process", e.Name)
	}
	return fmt.Sprintf("lock %q is held by %q with key %s", e.Name, e.Holder.Owner, e.Holder.Key)
}

// Is makes the error ErrHeld.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// ConflictError names the other recipe. It is [ErrConflict].
type ConflictError struct {
	Name   string
	Key    string // the key that shows it
	Recipe string // "read-write lock", "semaphore", "barrier", "latch", or "unknown"
}

// Error tells the key and the recipe.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("lock %q: key %s belongs to another recipe: %s", e.Name, e.Key, e.Recipe)
}

// Is makes the error ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// LimitError tells that programs disagree about a semaphore's limit. It is
// [ErrLimitConflict].
type LimitError struct {
	Name   string
	Wanted int64 // by this program; zero for whatever is in the store
	Stored int64 // -1 when there is none
}

// Error tells both limits.
func (e *LimitError) Error() string {
	if e.Stored < 0 {
		return fmt.Sprintf("semaphore %q has no limit yet", e.Name)
	}
	return fmt.Sprintf("semaphore %q was created with the limit %d, not %d", e.Name, e.Stored, e.Wanted)
}

// Is makes the error ErrLimitConflict.
func (e *LimitError) Is(target error) bool { return target == ErrLimitConflict }
