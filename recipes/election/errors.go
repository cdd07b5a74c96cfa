package election

import (
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// Conditions to test for with errors.Is.
var (
	// ErrNoLeader: nobody leads.
	ErrNoLeader = errors.New("election has no leader")
	// ErrNoCandidate: nobody of that ID stands for the election.
	ErrNoCandidate = errors.New("no such candidate")
	// ErrUnheard: the leader is a client of etcd, which does not know of requests.
	ErrUnheard = errors.New("leader does not hear requests")
	// ErrLost: the leadership, or the place in the line, was lost. A
	// [*LostError] tells why.
	ErrLost = errors.New("leadership is lost")
	// ErrDeleted is a reason of a loss: the key was deleted, by a person, by a
	// candidate of the same identity, or because its lease ended.
	ErrDeleted = contender.ErrDeleted
	// ErrDetached is a reason of a loss: somebody has written the key and thereby
	// taken it off its lease.
	ErrDetached = contender.ErrDetached
	// ErrResigned is the cause of a handle's context after Resign and HandOver.
	ErrResigned = errors.New("leadership was resigned")
	// ErrStop, returned by the function that Run was given, ends Run.
	ErrStop = errors.New("stop campaigning")
	// ErrConflict: another recipe uses the name. A [*ConflictError] names it.
	ErrConflict = errors.New("name is used by another recipe")
	// ErrName: the name can not be one of an election. See "Keys" in the
	// package's documentation.
	ErrName = errors.New("name can not be used for an election")

	// Why a leader is asked to step down: the Kind of a [*StepDown].

	// ErrAsked: somebody has called RequestStepDown or RequestHandOver.
	ErrAsked = errors.New("leader was asked to step down")
	// ErrPreempted: a candidate of higher priority, made with WithPreempt, stands.
	ErrPreempted = errors.New("leader is preempted by a candidate of higher priority")
	// ErrUnhealthy: the health check has failed.
	ErrUnhealthy = errors.New("candidate is not healthy")
)

// LostError tells how a leadership, or a place in the line, was lost. It is
// [ErrLost], and its reason.
type LostError struct {
	Name string
	Term fence.Token // zero when the loss came before the place in the line
	// Reason is ErrDeleted, ErrDetached, or the end of the session:
	// client.ErrSessionLost with its reason, or client.ErrSessionClosed. In the
	// error of a guarded transaction it may be ErrResigned.
	Reason error
	// At is when this process learned of it; zero in the error of a guarded
	// transaction.
	At time.Time
}

// Error tells the election and the reason.
func (e *LostError) Error() string {
	return fmt.Sprintf("leadership of %q (term %d) is lost: %v", e.Name, e.Term, e.Reason)
}

// Is makes the error ErrLost.
func (e *LostError) Is(target error) bool { return target == ErrLost }

// Unwrap returns the reason.
func (e *LostError) Unwrap() error { return e.Reason }

// ConflictError names the other recipe. It is [ErrConflict].
type ConflictError struct {
	Name   string
	Key    string // the key that shows it
	Recipe string // "read-write lock", "semaphore", "barrier", "latch", or "unknown"
}

// Error tells the key and the recipe.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("election %q: key %s belongs to another recipe: %s", e.Name, e.Key, e.Recipe)
}

// Is makes the error ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// StepDown asks a leader to give up its leadership. It is an error, and its
// Kind, so that it can be the cause of the context that [Election.Run] gives.
type StepDown struct {
	// Kind is ErrAsked, ErrPreempted or ErrUnhealthy.
	Kind error
	// Reason is what whoever asks says about it: the text of the request, the
	// ID of the candidate that preempts, or the error of the health check.
	Reason string
	// To is the ID of the candidate to hand over to; empty for whoever is next.
	To string
}

// Error tells the kind and the reason.
func (s *StepDown) Error() string {
	if s.Reason == "" {
		return s.Kind.Error()
	}
	return s.Kind.Error() + ": " + s.Reason
}

// Unwrap returns the kind.
func (s *StepDown) Unwrap() error { return s.Kind }
