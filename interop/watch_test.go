package interop_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// maxWatchers bounds the live watchers of the differential test.
const maxWatchers = 8

// receive yields what a stream has until its end; any error but io.EOF is left
// in err.
func receive[M any](recv func() (M, error), err *error) iter.Seq[M] {
	return func(yield func(M) bool) {
		for {
			var m M
			if m, *err = recv(); *err != nil {
				if errors.Is(*err, io.EOF) {
					*err = nil
				}
				return
			}
			if !yield(m) {
				return
			}
		}
	}
}

// watchStream is one Watch RPC whose answers are sorted by watcher.
type watchStream struct {
	stream pb.Watch_WatchClient
	stop   context.CancelFunc
	wake   chan struct{} // has an element when something arrived; one goroutine waits

	mu       sync.Mutex
	control  []*pb.WatchResponse         // mu protects; created, and canceled on request
	progress []*pb.WatchResponse         // mu protects; for the whole stream
	ended    map[int64]*pb.WatchResponse // mu protects; cancelled by the server, which says why
	layout   map[int64][]int             // mu protects; events in each response since the last take, negative where fragments follow
	gone     map[int64]bool              // mu protects; said to be cancelled
	events   map[int64][]*mvccpb.Event   // mu protects; since the last take
	overrun  map[int64]*pb.WatchResponse // mu protects; cancelled by compaction
	broken   error                       // mu protects; the stream ended, or it broke a promise
	lastSeen map[int64]int64             // mu protects; last revision of each watcher
}

func openWatchStream(t *testing.T, ctx context.Context, client pb.WatchClient) *watchStream {
	ctx, stop := context.WithCancel(ctx)
	stream, err := client.Watch(ctx)
	require.NoError(t, err)
	w := &watchStream{
		stream:   stream,
		stop:     stop,
		ended:    make(map[int64]*pb.WatchResponse),
		layout:   make(map[int64][]int),
		gone:     make(map[int64]bool),
		wake:     make(chan struct{}, 1),
		events:   make(map[int64][]*mvccpb.Event),
		overrun:  make(map[int64]*pb.WatchResponse),
		lastSeen: make(map[int64]int64),
	}
	go w.read()
	return w
}

func (w *watchStream) read() {
	var err error
	for resp := range receive(w.stream.Recv, &err) {
		w.mu.Lock()
		w.take(resp)
		w.mu.Unlock()
		w.signal()
	}
	if err == nil {
		err = io.EOF
	}
	w.mu.Lock()
	w.broken = errors.Join(w.broken, err)
	w.mu.Unlock()
	w.signal()
}

func (w *watchStream) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watchStream) take(resp *pb.WatchResponse) {
	id := resp.WatchId
	switch {
	case resp.CompactRevision != 0 && !resp.Created:
		w.overrun[id] = resp
		w.gone[id] = true
	case resp.Created:
		delete(w.lastSeen, id)
		delete(w.gone, id)
		w.control = append(w.control, resp)
	case resp.Canceled && resp.CancelReason != "":
		w.ended[id] = resp
		w.gone[id] = true
	case resp.Canceled:
		w.control = append(w.control, resp)
		w.gone[id] = true
	case id == -1:
		w.progress = append(w.progress, resp)
		for id, seen := range w.lastSeen { // nothing at or below it may follow
			w.lastSeen[id] = max(seen, resp.Header.Revision)
		}
	default:
		for _, ev := range resp.Events {
			w.check(resp, ev)
			w.events[id] = append(w.events[id], ev)
		}
		n := len(resp.Events)
		if n > 0 && !resp.Fragment {
			w.lastSeen[id] = resp.Events[n-1].Kv.ModRevision
		}
		if resp.Fragment {
			n = -n
		}
		w.layout[id] = append(w.layout[id], n)
	}
}

// check holds every server to the promises that need no comparison: order, no
// repetition, and the events of a revision together in one response.
func (w *watchStream) check(resp *pb.WatchResponse, ev *mvccpb.Event) {
	last, rev := w.lastSeen[resp.WatchId], ev.Kv.ModRevision
	if rev <= last {
		w.broken = errors.Join(w.broken, fmt.Errorf("watcher %d: revision %d after %d", resp.WatchId, rev, last))
	}
	if w.gone[resp.WatchId] {
		w.broken = errors.Join(w.broken, fmt.Errorf("watcher %d: revision %d after its end", resp.WatchId, rev))
	}
	if resp.Header.Revision < rev {
		w.broken = errors.Join(w.broken, fmt.Errorf("watcher %d: an event of %d under a header of %d", resp.WatchId, rev, resp.Header.Revision))
	}
}

// await waits until done, which is called under the lock, returns true.
func (w *watchStream) await(ctx context.Context, what string, done func() bool) error {
	for {
		w.mu.Lock()
		ok, broken := done(), w.broken
		w.mu.Unlock()
		switch {
		case broken != nil:
			return broken
		case ok:
			return nil
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
}

func (w *watchStream) send(m proto.Message) error {
	req := &pb.WatchRequest{}
	switch m := m.(type) {
	case *pb.WatchCreateRequest:
		req.RequestUnion = &pb.WatchRequest_CreateRequest{CreateRequest: m}
	case *pb.WatchCancelRequest:
		req.RequestUnion = &pb.WatchRequest_CancelRequest{CancelRequest: m}
	case *pb.WatchProgressRequest:
		req.RequestUnion = &pb.WatchRequest_ProgressRequest{ProgressRequest: m}
	}
	return w.stream.Send(req)
}

// create is answered by the next control response.
func (w *watchStream) create(ctx context.Context, r *pb.WatchCreateRequest) (proto.Message, error) {
	if err := w.send(r); err != nil {
		return nil, err
	}
	var resp *pb.WatchResponse
	err := w.await(ctx, "the watcher's creation", func() bool {
		if len(w.control) == 0 {
			return false
		}
		resp, w.control = w.control[0], w.control[1:]
		return true
	})
	return resp, err
}

// cancel is answered by what the server said before it heard of it, if it had
// ended the watcher itself.
func (w *watchStream) cancel(ctx context.Context, r *pb.WatchCancelRequest) (proto.Message, error) {
	if err := w.send(r); err != nil {
		return nil, err
	}
	var resp *pb.WatchResponse
	err := w.await(ctx, "the watcher's cancellation", func() bool {
		if resp = w.ended[r.WatchId]; resp == nil && len(w.control) > 0 {
			resp, w.control = w.control[0], w.control[1:]
		}
		return resp != nil
	})
	return resp, err
}

// askProgress asks how far the whole stream is, and waits for the answer.
func (w *watchStream) askProgress(ctx context.Context) (proto.Message, error) {
	if err := w.send(&pb.WatchProgressRequest{}); err != nil {
		return nil, err
	}
	var resp *pb.WatchResponse
	err := w.await(ctx, "the stream's progress", func() bool {
		if len(w.progress) == 0 {
			return false
		}
		resp, w.progress = w.progress[0], w.progress[1:]
		return true
	})
	return resp, err
}

// reached waits until the watcher has seen the revision; why is set if the
// server ended it before.
func (w *watchStream) reached(ctx context.Context, id, revision int64) (why *pb.WatchResponse, err error) {
	err = w.await(ctx, fmt.Sprintf("revision %d on watcher %d", revision, id), func() bool {
		why = w.ended[id]
		return why != nil || w.lastSeen[id] >= revision
	})
	return why, err
}

// takeLayout tells how many events each response had, and forgets it.
func (w *watchStream) takeLayout(id int64) []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.layout[id]
	delete(w.layout, id)
	return out
}

// takeEvents empties what has arrived for one watcher.
func (w *watchStream) takeEvents(id int64) []*mvccpb.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.events[id]
	delete(w.events, id)
	delete(w.ended, id)
	return out
}

// takeOverrun waits until the watcher was cancelled by a compaction and
// returns the response that said so.
func (w *watchStream) takeOverrun(ctx context.Context, id int64) (*pb.WatchResponse, error) {
	var resp *pb.WatchResponse
	err := w.await(ctx, fmt.Sprintf("the compaction's end of watcher %d", id), func() bool {
		resp = w.overrun[id]
		delete(w.overrun, id)
		return resp != nil
	})
	return resp, err
}
