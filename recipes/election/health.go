package election

import (
	"context"
	"fmt"
	"time"
)

// healthInterval is the time between two checks, unless WithHealth says another.
const healthInterval = time.Second

// health is the check of WithHealth. Without one, everybody is healthy.
type health struct {
	check    func(ctx context.Context) error
	interval time.Duration
}

func (h health) every() time.Duration {
	if h.interval <= 0 {
		return healthInterval
	}
	return h.interval
}

// once returns nil, or a StepDown with what the check has said.
func (h health) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.every())
	defer cancel()
	if err := h.check(ctx); err != nil {
		return &StepDown{Kind: ErrUnhealthy, Reason: err.Error()}
	}
	return nil
}

// await returns when the candidate is healthy, or ctx ends.
func (h health) await(ctx context.Context) error {
	if h.check == nil {
		return nil
	}
	for {
		sick := h.once(ctx)
		if sick == nil {
			return nil
		}
		if !sleep(ctx, h.every()) {
			return fmt.Errorf("%w: %w", ctxError(ctx), sick)
		}
	}
}

// watch checks until the candidate is not healthy, and tells so, or ctx ends.
func (h health) watch(ctx context.Context, tell func(error)) {
	if h.check == nil {
		return
	}
	go func() {
		for sleep(ctx, h.every()) {
			if sick := h.once(ctx); sick != nil && ctx.Err() == nil {
				tell(sick)
				return
			}
		}
	}()
}

// sleep waits. It returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ctxError returns why ctx is done: its error, which says what kind of end it
// was, and its cause, where that is another one.
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
