package client

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// watchesMax bounds the watches of one client that run at once.
	watchesMax = 10_000
	// watchQueueBytesMax bounds what is kept for a loop that is slower than its events. Beyond, the watch is taken off
	// the stream, and continues where it was when the loop has caught up. One batch is taken in any case.
	watchQueueBytesMax = 4 << 20
	// eventOverheadBytes is what an event costs in memory besides its key and values.
	eventOverheadBytes = 160
	// progressInterval is how often a stream asks how far it is, so that a watch without events has a recent revision to
	// resume from, which is not compacted yet.
	progressInterval = 30 * time.Second
	// mutePeriods is after how many such intervals without any answer a stream is given up: a member that answers
	// whatever else it is asked, but sends nothing to watches, shows in no other way. The first question may stay without
	// an answer, see takeOffBeyondLocked, and a member may be busy.
	mutePeriods = 4
	// steadyStream is how long a stream must have lasted for the next one to be opened without a pause.
	steadyStream = time.Second
)

// watchHub runs all watches of a client over one stream.
//
// One goroutine runs it while there are watches: it finds an endpoint, opens a stream, sends what the watches want; when
// the stream ends, it does so again elsewhere. Another reads from the stream into the queues of the watches. Neither
// waits for a loop that consumes a queue.
//
// A watch has a number of its own on each stream that it is put on, given by us and never used again, so that answers
// that come late are not taken for those of its successor.
type watchHub struct {
	core   *core
	leader bool          // the stream requires a leader
	user   bool          // the stream has a user's token
	wake   chan struct{} // capacity 1: there is something to send
	mute   atomic.Int32  // intervals that have ended since something was received

	mu      sync.Mutex // protects what follows and the state of each watcher
	all     map[*watcher]struct{}
	byID    map[int64]*watcher // those on the stream
	asked   []int64            // on the stream, not confirmed yet, in the order sent: the server answers in order
	cancels []int64            // numbers to take off the stream
	lastID  int64
	ask     bool // somebody wants to know how far the stream is
	asking  bool // the server was asked and did not answer yet
	running bool
}

// watcher is one watch: a range, what of it was received and not consumed yet, and the revision to go on from.
type watcher struct {
	req  watchRequest
	ns   string        // immutable, as is req
	wake chan struct{} // capacity 1: the queue, or err, has changed

	// Protected by the hub's mu.
	id        int64    // on the stream; 0 while it is not
	start     Revision // where it begins on the stream, at most next; 0 while that is unknown
	confirmed bool     // the server has said so
	reported  bool     // and the loop has been told, once
	next      Revision // of the first change that was not queued yet; 0 while it is unknown: from now
	queue     []WatchBatch
	bytes     int
	behind    bool  // taken off the stream because the queue is full
	renewed   bool  // put on a stream with another token, and not confirmed since
	err       error // why it ended
}

func newWatchHub(co *core, leader bool) *watchHub {
	return &watchHub{
		core: co, leader: leader, wake: make(chan struct{}, 1),
		all: make(map[*watcher]struct{}), byID: make(map[int64]*watcher),
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been told and did not look yet
	}
}

// add puts a watcher to work.
func (h *watchHub) add(w *watcher) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.all) >= watchesMax {
		return ErrLimit
	}
	if !h.running && !h.core.start(h.run) {
		return ErrClosed
	}
	h.running = true
	h.all[w] = struct{}{}
	notify(h.wake)
	return nil
}

// askProgress asks the server how far it is, if there are watches.
func (h *watchHub) askProgress() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ask = h.running
	notify(h.wake)
}

// remove ends a watcher whose loop has ended.
func (h *watchHub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.takeOffLocked(w)
	delete(h.all, w)
	notify(h.wake)
}

// takeOffLocked takes a watcher off the stream.
func (h *watchHub) takeOffLocked(w *watcher) {
	if w.id == 0 {
		return
	}
	h.cancels = append(h.cancels, w.id)
	delete(h.byID, w.id)
	w.id, w.confirmed = 0, false
}

// failLocked ends a watcher with an error for its loop.
func (h *watchHub) failLocked(w *watcher, err error) {
	h.takeOffLocked(w)
	delete(h.all, w)
	w.err = err
	notify(w.wake)
}

// take returns what was received since the last call, or why there will be no more.
func (h *watchHub) take(w *watcher) ([]WatchBatch, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	batches := w.queue
	w.queue, w.bytes = nil, 0
	if len(batches) > 0 {
		return batches, nil
	}
	if w.behind {
		w.behind = false // run puts it on the stream again
		notify(h.wake)
	}
	return nil, w.err
}

// run keeps a stream open until there is no watch left.
func (h *watchHub) run() {
	ctx := h.core.ctx
	for failures := 0; ; {
		if h.idle() {
			return
		}
		ep, err := h.core.pool.pick(ctx)
		if err != nil {
			h.endAll(ErrClosed)
			return
		}
		start := h.core.clock.now()
		err = h.serve(ctx, ep)
		if ctx.Err() != nil {
			h.endAll(ErrClosed)
			return
		}
		if err == nil {
			continue // no watch is left
		}
		if refusal := h.refused(ep, err); refusal != nil {
			h.endAll(refusal)
			continue
		}
		h.core.log.Debug("stream of watches ended", "endpoint", ep.name, "error", err)
		h.core.pool.leave(ep)
		if lived, _ := h.core.clock.now().since(start); lived >= steadyStream {
			failures = 0
		}
		if !h.core.pause(ctx, failures) {
			h.endAll(ErrClosed)
			return
		}
		failures++
	}
}

// refused returns the error for all watches when the server will have no such stream, here or elsewhere.
func (h *watchHub) refused(ep *endpoint, err error) error {
	e := judge(methodWatch, ep.name, true, err)
	if what, _ := fateOf(e.Code, e.Message); what == refused && e.Kind != ErrOverloaded {
		return e
	}
	return nil
}

// idle says that there is no watch left, in which case the hub is not running any more.
func (h *watchHub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.all) == 0 {
		h.running = false
	}
	return !h.running
}

func (h *watchHub) endAll(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.all {
		h.failLocked(w, err)
	}
}

// serve runs the watches on one stream until it fails, and returns why, or nil when no watch is left.
func (h *watchHub) serve(ctx context.Context, ep *endpoint) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if h.leader {
		ctx = requireLeader(ctx)
	}
	ep.streams.Add(1)
	defer ep.streams.Add(-1)
	giveUp := time.AfterFunc(linkOpenTimeout, cancel)
	stream, err := h.core.transport.stream(ctx, ep, streamWatch, methodWatch.full)
	if !giveUp.Stop() && err == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		return err
	}
	h.detach()
	ended := make(chan error, 1) // takes the one result of receive
	var received sync.WaitGroup
	received.Go(func() { ended <- h.receive(ep, stream) })
	defer received.Wait()
	defer cancel() // before waiting, or receive would not end

	progress := time.NewTicker(progressInterval)
	defer progress.Stop()
	for {
		reqs, any := h.wanted()
		if !any {
			return nil
		}
		for _, req := range reqs {
			if stream.SendMsg(req) != nil {
				return lastWord(ended)
			}
		}
		select {
		case <-h.wake:
		case <-progress.C:
			if h.mute.Add(1) >= mutePeriods {
				return errMute
			}
			h.askProgress()
		case err := <-ended:
			return err
		}
	}
}

// lastWord returns why nothing can be sent on a stream, which the receiver is told, if it is, see errBroken.
func lastWord(ended <-chan error) error {
	patience := time.NewTimer(lastWordTimeout)
	defer patience.Stop()
	select {
	case err := <-ended:
		return err
	case <-patience.C:
		return errBroken
	}
}

// errMute ends a stream on which nothing is received.
var errMute = status.Error(codes.Unavailable, "nothing is received on the stream, though it was asked how far it is")

// detach forgets what was on the previous stream.
func (h *watchHub) detach() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.byID)
	h.asked, h.cancels, h.asking = nil, nil, false
	h.mute.Store(0)
	for w := range h.all {
		w.id, w.confirmed = 0, false
	}
}

// wanted returns what has to be sent; any is false when there is no watch.
func (h *watchHub) wanted() (reqs []*pb.WatchRequest, any bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	latest := Revision(math.MaxInt64) // where a watch may begin
	if h.ask && h.asking {
		latest = h.takeOffBeyondLocked(Revision(h.core.seen.Load()))
	}
	for _, id := range h.cancels {
		req := &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}
		reqs = append(reqs, &pb.WatchRequest{RequestUnion: req})
	}
	h.cancels = nil
	for w := range h.all {
		if w.id != 0 || w.behind {
			continue
		}
		h.lastID++
		w.id = h.lastID
		h.byID[w.id] = w
		h.asked = append(h.asked, w.id)
		w.start = min(w.next, latest)
		req := &pb.WatchRequest_CreateRequest{CreateRequest: w.create()}
		reqs = append(reqs, &pb.WatchRequest{RequestUnion: req})
	}
	if h.ask {
		h.ask, h.asking = false, true
		req := &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}
		reqs = append(reqs, &pb.WatchRequest{RequestUnion: req})
	}
	return reqs, len(h.all) > 0
}

// takeOffBeyondLocked takes the watches off the stream that begin behind the newest revision that is known, and returns
// where they are to begin instead. A server tells no watch of a revision that is before its beginning, so while one of
// them begins behind the present, that is for as long as nobody writes, it does not answer how far the stream is. They
// are moved only when an answer is overdue, since etcd lets a watch that begins in the past wait for its events.
func (h *watchHub) takeOffBeyondLocked(newest Revision) (latest Revision) {
	if newest == 0 {
		return math.MaxInt64
	}
	for _, w := range h.byID {
		if w.start > newest {
			h.takeOffLocked(w)
		}
	}
	return newest
}

// create returns the request that puts the watcher on a stream.
func (w *watcher) create() *pb.WatchCreateRequest {
	keys := w.req.keys.in(w.ns)
	req := &pb.WatchCreateRequest{
		Key: []byte(keys.key), RangeEnd: []byte(keys.end), StartRevision: int64(w.start),
		PrevKv: w.req.prev, ProgressNotify: w.req.progress, WatchId: w.id,
	}
	if w.req.noPut {
		req.Filters = append(req.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if w.req.noDelete {
		req.Filters = append(req.Filters, pb.WatchCreateRequest_NODELETE)
	}
	return req
}

// receive reads from the stream until it fails.
func (h *watchHub) receive(ep *endpoint, stream grpc.ClientStream) error {
	for {
		resp := &pb.WatchResponse{}
		if err := stream.RecvMsg(resp); err != nil {
			return err
		}
		ep.heard(h.core.clock.now())
		h.core.saw(resp)
		raise(&h.core.seen, resp.CompactRevision) // whose answer may tell no other
		h.mute.Store(0)
		if err := h.dispatch(resp); err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
	}
}
