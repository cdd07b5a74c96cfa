package client

import (
	"context"
	"iter"
)

// EventType says what happened to a key.
type EventType uint8

// The types of events.
const (
	EventPut    EventType = iota // the key was written
	EventDelete                  // the key was deleted, by a call or with its lease
)

// String returns "put" or "delete".
func (t EventType) String() string {
	if t == EventDelete {
		return "delete"
	}
	return "put"
}

// Event is one change of one key.
type Event struct {
	Type EventType
	// KV is the key after the change. Of a deleted key, only Key and ModRevision (of the deletion) are set.
	KV KV
	// Prev is the key before the change; only with PrevKV, and nil when there was none or it is compacted.
	Prev *KV
}

// Created says that the event brought the key into being.
func (e Event) Created() bool { return e.Type == EventPut && e.KV.CreateRevision == e.KV.ModRevision }

// WatchBatch is what a watch has to say at once. The events of one revision are always in one batch.
type WatchBatch struct {
	// Revision is what the watch has reached: everything that happened up to it has been yielded. A new watch, or a
	// read, continues from Revision+1 without gap or repetition.
	Revision Revision
	// Events are in order of revision; none in a batch that only reports Created or Progress.
	Events []Event
	// Created marks the first batch: the watch is established on a server.
	Created bool
	// Progress marks a batch that only tells the revision. Only with WithProgress.
	Progress bool
}

// Watch yields every change of a key, or of a range of keys, in order, each exactly once. It survives the loss of
// connections and members: it goes on where it was on another member. The loop's end is never silent: a watch that ends
// for any reason but a break yields one last error:
//   - the error of ctx when that is done,
//   - [*CompactedError] when events that were not yielded yet have been compacted away: read again, and watch from the
//     revision of that read + 1,
//   - [ErrPermissionDenied] and the like when the server refuses the watch,
//   - [ErrClosed].
//
// Breaking out of the loop ends the watch. A slow loop lags behind and costs bounded memory. Without [FromRevision], the
// watch starts some time after the loop does: to miss nothing, read first and watch from the revision after.
func (c *Client) Watch(ctx context.Context, key string, opts ...WatchOption) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for batch, err := range c.WatchBatches(ctx, key, opts...) {
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, ev := range batch.Events {
				if !yield(ev, nil) {
					return
				}
			}
		}
	}
}

// WatchBatches is Watch with a batch at a time: the first says that the watch is established, and each tells the
// revision that the watch has reached.
func (c *Client) WatchBatches(ctx context.Context, key string, opts ...WatchOption) iter.Seq2[WatchBatch, error] {
	req := watchRequest{keys: keyRange{key: key}}
	for _, o := range opts {
		o.applyWatch(&req)
	}
	return func(yield func(WatchBatch, error) bool) {
		fail := func(kind error) { yield(WatchBatch{}, &Error{Op: methodWatch.name, Kind: kind}) }
		if req.keys.single() && req.keys.key == "" {
			fail(ErrEmptyKey)
			return
		}
		h := c.core.watches[0]
		if req.withoutLeader {
			h = c.core.watches[1]
		}
		w := &watcher{req: req, ns: c.ns, next: req.from, wake: make(chan struct{}, 1)}
		if err := h.add(w); err != nil {
			fail(err)
			return
		}
		defer h.remove(w)
		if err := w.consume(ctx, h, func(b WatchBatch) bool { return yield(b, nil) }); err != nil {
			yield(WatchBatch{}, err)
		}
	}
}

// AskProgress asks the server, on the stream that all watches of the client share, how far it is, and does not wait: the
// answer comes to the watches that have [WithProgress], in a batch. There may be none: a server does not answer while it
// has events of the past to send to a watch of the stream, nor while one is to begin in the future, which the second
// unanswered call takes care of. So who needs an answer asks again. Without this call, it is asked once in 30 s.
func (c *Client) AskProgress() {
	for _, h := range c.core.watches {
		h.askProgress()
	}
}

// consume yields what is received until the watch ends, and returns why, or nil when yield does not want more.
func (w *watcher) consume(ctx context.Context, h *watchHub, yield func(WatchBatch) bool) error {
	for {
		batches, err := h.take(w)
		for _, b := range batches {
			if ctx.Err() != nil {
				break
			}
			if !yield(b) {
				return nil
			}
		}
		if ctx.Err() != nil {
			return &Error{Op: methodWatch.name, causes: []error{ctxError(ctx)}}
		}
		if err != nil {
			if err == ErrClosed { //nolint:errorlint // it is that very value
				err = &Error{Op: methodWatch.name, Kind: ErrClosed}
			}
			return err
		}
		if len(batches) > 0 {
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
		}
	}
}
