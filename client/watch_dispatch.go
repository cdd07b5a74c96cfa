package client

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// allWatches is the number with which a server speaks of all watches of a stream, or of one that it could not make.
const allWatches = -1

// dispatch hands one answer of the server to the watch that it is for. An error means that the stream is of no more use.
func (h *watchHub) dispatch(resp *pb.WatchResponse) error {
	switch {
	case resp.Created:
		return h.created(resp)
	case resp.Canceled:
		return h.canceled(resp)
	case resp.WatchId == allWatches:
		h.allProgressed(revisionOf(resp.Header))
	case len(resp.Events) == 0:
		h.progressed(resp.WatchId, revisionOf(resp.Header))
	default:
		h.received(resp)
	}
	return nil
}

// created notes that a watch is on the stream, or was refused.
func (h *watchHub) created(resp *pb.WatchResponse) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.asked) == 0 {
		return fmt.Errorf("server made watch %d, which was not asked for", resp.WatchId)
	}
	// Requests are answered in order. A refusal does not name the watch: it is the oldest one.
	at := max(0, slices.Index(h.asked, resp.WatchId))
	id := h.asked[at]
	h.asked = slices.Delete(h.asked, at, at+1)
	w := h.byID[id]
	if resp.Canceled {
		resp.WatchId = id
		return h.canceledLocked(w, resp)
	}
	if w == nil {
		return nil // its loop has ended meanwhile, and the request to cancel it is on its way
	}
	w.confirmed, w.renewed = true, false
	if w.next == 0 {
		// The watch may have begun somewhat earlier than at this revision, and events up to it may follow. It is this
		// one that the loop is told as the beginning, so received leaves out what is older.
		w.next = revisionOf(resp.Header) + 1
		w.start = w.next // etcd before 3.7 sees it so
	}
	if !w.reported {
		w.reported = true
		w.push(WatchBatch{Revision: w.next - 1, Created: true}, 0)
	}
	return nil
}

func (h *watchHub) canceled(resp *pb.WatchResponse) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.canceledLocked(h.byID[resp.WatchId], resp)
}

// canceledLocked ends a watch that the server has ended, or gives up the stream if the watch may fare better elsewhere.
func (h *watchHub) canceledLocked(w *watcher, resp *pb.WatchResponse) error {
	if w == nil {
		return nil // ended by its loop
	}
	err := canceledError(resp, w.next)
	if compacted, ok := err.(*CompactedError); ok { //nolint:errorlint // it is that very value
		// etcd counts it with those that are behind, and tells the stream of no progress until it is canceled.
		h.takeOffLocked(w)
		if w.start < w.next && compacted.Revision <= w.next {
			notify(h.wake) // it began earlier than it had to, see takeOffBeyondLocked, and misses nothing
			return nil
		}
	}
	// The server has no such watch any more: there is nothing to cancel.
	delete(h.byID, w.id)
	w.id, w.confirmed = 0, false
	if h.user && !w.renewed && needsToken(plainReason(resp)) {
		w.renewed, err = true, nil // the next stream has another token
	}
	if err == nil {
		return fmt.Errorf("server canceled watch %d: %q", resp.WatchId, resp.CancelReason)
	}
	h.failLocked(w, err)
	return nil
}

// canceledError returns why a watch ended for good; nil if it should be made anew on another stream.
func canceledError(resp *pb.WatchResponse, next Revision) error {
	compacted := &CompactedError{Wanted: next, Revision: Revision(resp.CompactRevision)}
	if resp.CompactRevision > 0 {
		return compacted
	}
	reason := plainReason(resp)
	e := &Error{Op: methodWatch.name, Code: codes.Unknown, Message: reason, Kind: ErrInvalid}
	if a, ok := answered(reason); ok {
		e.Kind = a.kind
		if a.fate != refused {
			return nil
		}
		if a.kind == ErrCompacted {
			return compacted
		}
	}
	if reason == "" {
		return nil
	}
	return e
}

// plainReason returns the server's words for why a watch was canceled. They may be the text of a gRPC status: then only
// what follows its "desc = " is the server's.
func plainReason(resp *pb.WatchResponse) string {
	if _, desc, ok := strings.Cut(resp.CancelReason, " desc = "); ok {
		return desc
	}
	return resp.CancelReason
}

// allProgressed notes that everything up to rev was sent to all watches of the stream. One that the server has not
// confirmed yet is not meant: its first events may still be held back.
func (h *watchHub) allProgressed(rev Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asking = false
	for _, w := range h.byID {
		w.progressed(rev)
	}
}

func (h *watchHub) progressed(id int64, rev Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.byID[id]; w != nil {
		w.progressed(rev)
	}
}

// progressed notes that everything up to rev was sent. A member that lags may report less than was seen on another. That
// nothing has changed is told too: it is what who waits for news wants to hear.
func (w *watcher) progressed(rev Revision) {
	if !w.confirmed || rev+1 < w.next {
		return
	}
	w.next = rev + 1
	if !w.req.progress {
		return
	}
	if n := len(w.queue); n > 0 && w.queue[n-1].Progress {
		w.queue[n-1].Revision = rev
		return
	}
	w.push(WatchBatch{Revision: rev, Progress: true}, 0)
}

// received queues the events of one watch.
func (h *watchHub) received(resp *pb.WatchResponse) {
	h.mu.Lock()
	w := h.byID[resp.WatchId]
	h.mu.Unlock()
	if w == nil {
		return // ended by its loop
	}
	events, bytes := watchEvents(resp.Events, w.ns)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byID[resp.WatchId] != w {
		return
	}
	// A server never repeats what is before the revision that it was asked to start from, but see created.
	events = slices.DeleteFunc(events, func(e Event) bool { return e.KV.ModRevision < w.next })
	if len(events) == 0 {
		return
	}
	if len(w.queue) > 0 && w.bytes+bytes > watchQueueBytesMax {
		// Nothing is lost: next still is the revision of the first event left out.
		h.takeOffLocked(w)
		w.behind = true
		notify(h.wake)
		return
	}
	w.next = events[len(events)-1].KV.ModRevision + 1
	w.push(WatchBatch{Revision: w.next - 1, Events: events}, bytes)
}

// push queues a batch for the loop.
func (w *watcher) push(b WatchBatch, bytes int) {
	w.queue = append(w.queue, b)
	w.bytes += bytes
	notify(w.wake)
}

// watchEvents returns events as a client with namespace ns sees them, and what they cost in memory.
func watchEvents(evs []*mvccpb.Event, ns string) (out []Event, bytes int) {
	out = make([]Event, len(evs))
	for i, ev := range evs {
		out[i] = Event{KV: keyValue(ev.Kv, ns), Prev: keyValueOrNil(ev.PrevKv, ns)}
		if ev.Type == mvccpb.Event_DELETE {
			out[i].Type = EventDelete
		}
		bytes += eventOverheadBytes + len(ev.Kv.Key) + len(ev.Kv.Value)
		if ev.PrevKv != nil {
			bytes += eventOverheadBytes + len(ev.PrevKv.Key) + len(ev.PrevKv.Value)
		}
	}
	return out, bytes
}
