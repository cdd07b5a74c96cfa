package barrier

import (
	"errors"
	"fmt"
	"time"
)

// Conditions to test for with errors.Is.
var (
	// ErrBroken: the generation will never be complete, as a member was lost, the
	// action of a trip failed, or somebody reset the barrier. A [*BrokenError]
	// tells which.
	ErrBroken = errors.New("barrier is broken")
	// ErrLost: this member was lost: its session ended or its key was deleted. A
	// [*LostError] tells which.
	ErrLost = errors.New("place in the barrier is lost")
	// ErrDeleted is a reason of a loss: the member's key was deleted.
	ErrDeleted = errors.New("key was deleted")
	// ErrLeft is the cause of a member's context once it has left.
	ErrLeft = errors.New("left the barrier")
	// ErrFull: the context ended while as many members as the barrier has room for
	// were inside. It comes with the context's error.
	ErrFull = errors.New("barrier is full")
	// ErrBusy: another goroutine waits with the same handle.
	ErrBusy = errors.New("handle is in use by another goroutine")
	// ErrConflict: others use the name for another recipe, or for the same with other
	// terms, such as another number of parties. A [*ConflictError] tells both.
	ErrConflict = errors.New("name is used on other terms")
	// ErrName: the name can not be one of a barrier. See "Keys" in the package's
	// documentation.
	ErrName = errors.New("name can not be used for a barrier")
	// ErrParties: the number of parties is less than 1 or larger than 4096.
	ErrParties = errors.New("number of parties is out of bounds")
	// ErrPolicy: a phaser can not wait for somebody to take the place of a lost member, as
	// it has no number of places.
	ErrPolicy = errors.New("loss policy makes no sense for this barrier")
	// ErrAction: the action of a trip returned an error. It is a reason of ErrBroken.
	ErrAction = errors.New("action of the barrier failed")
)

// BrokenError tells how a generation ended without being complete. It is
// [ErrBroken].
type BrokenError struct {
	Name       string
	Generation uint64
	// Reason is for people: "a member was lost", "the barrier was reset", or what the
	// action's error said.
	Reason string
	// Action is true when the action of the trip failed: the error is ErrAction too.
	Action bool
}

// Error tells the generation and the reason.
func (e *BrokenError) Error() string {
	return fmt.Sprintf("barrier %q, generation %d, is broken: %s", e.Name, e.Generation, e.Reason)
}

// Is makes the error ErrBroken, and ErrAction where that is the reason.
func (e *BrokenError) Is(target error) bool {
	return target == ErrBroken || target == ErrAction && e.Action
}

// LostError tells how this member was lost. It is [ErrLost], and its reason.
type LostError struct {
	Name string
	// Reason is ErrDeleted, or the end of the session: client.ErrSessionLost with its
	// reason, or client.ErrSessionClosed.
	Reason error
	At     time.Time // when this process learned of it
}

// Error tells the reason.
func (e *LostError) Error() string {
	return fmt.Sprintf("barrier %q: %v: %v", e.Name, ErrLost, e.Reason)
}

// Is makes the error ErrLost.
func (e *LostError) Is(target error) bool { return target == ErrLost }

// Unwrap returns the reason.
func (e *LostError) Unwrap() error { return e.Reason }

// ConflictError tells on what terms others use the name. It is [ErrConflict].
type ConflictError struct {
	Name   string
	Theirs string
	Ours   string
}

// Error tells both terms.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("barrier %q: %v: %s, not %s", e.Name, ErrConflict, e.Theirs, e.Ours)
}

// Is makes the error ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }
