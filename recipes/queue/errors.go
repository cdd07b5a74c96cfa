package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Conditions to test for with errors.Is.
var (
	// ErrClaimLost: the job is not this worker's any more: its session ended, and
	// another worker has adopted it. It is the cause of the job's context then, and
	// the error of what would have ended the job; nothing of that was executed.
	ErrClaimLost = errors.New("claim of the job is lost")
	// ErrCancelled is the cause of a job's context after Cancel.
	ErrCancelled = errors.New("job was cancelled")
	// ErrDuplicate: a job with the unique key is in the queue. A [*DuplicateError]
	// names it.
	ErrDuplicate = errors.New("unique key is taken")
	// ErrFull: the queue has as many jobs as it may, see WithMaxLength.
	ErrFull = errors.New("queue is full")
	// ErrName: the name can not be one of a queue.
	ErrName = errors.New("name can not be used for a queue")
	// ErrKubernetes: the cluster is that of a Kubernetes, which a queue could fill.
	// See AllowKubernetes.
	ErrKubernetes = errors.New("cluster holds the keys of a Kubernetes")
	// ErrMismatch: the queue exists with other settings than those asked for, or in
	// a format that this version does not know.
	ErrMismatch = errors.New("queue exists with other settings")
	// ErrNotFound: no such job is in the queue.
	ErrNotFound = errors.New("job is not in the queue")
	// ErrTooLarge: the job, or all of the batch, is more than one transaction takes.
	ErrTooLarge = errors.New("too much for one transaction")
	// ErrOption: an option's value makes no sense.
	ErrOption = errors.New("option can not be used")
	// ErrDead: the job has ended among the dead letters.
	ErrDead = errors.New("job is among the dead letters")
	// ErrClosed: the producer or delivery was closed.
	ErrClosed = errors.New("closed")
)

// DuplicateError names the jobs that hold unique keys. It is [ErrDuplicate].
type DuplicateError struct {
	// Jobs has, for each job of the call that has a unique key, the job that holds
	// it, or an empty ID.
	Jobs []ID
}

// Error names the jobs.
func (e *DuplicateError) Error() string {
	var ids []string
	for _, id := range e.Jobs {
		if id != "" {
			ids = append(ids, string(id))
		}
	}
	return fmt.Sprintf("%v: by job %s", ErrDuplicate, strings.Join(ids, ", "))
}

// Is makes the error ErrDuplicate.
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicate }

// verdict is what a handler's error asks for.
type verdict struct {
	err   error
	after time.Duration
	set   bool // after was given
	dead  bool
	free  bool // does not count as a failure
}

func (v *verdict) Error() string {
	if v.err == nil {
		return "snoozed"
	}
	return v.err.Error()
}

func (v *verdict) Unwrap() error { return v.err }

// Retry returns an error with which a handler asks to be run again after a time
// of its own choice. It counts as a failed attempt.
func Retry(err error, after time.Duration) error { return &verdict{err: err, after: after, set: true} }

// Discard returns an error with which a handler sends the job to the dead letters
// at once, as running it again would not help.
func Discard(err error) error { return &verdict{err: err, dead: true} }

// Snooze returns an error with which a handler asks to be run again later,
// without that counting as a failed attempt.
func Snooze(d time.Duration) error { return &verdict{after: d, set: true, free: true} }

// ctxError returns why ctx is done: its error, and its cause where that is
// another one.
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
