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
	wake   chan struct{} // has an element when something arrived; one goroutine waits

	mu       sync.Mutex
	control  []*pb.WatchResponse         // mu protects; created, and canceled on request
	events   map[int64][]*mvccpb.Event   // mu protects; since the last take
	overrun  map[int64]*pb.WatchResponse // mu protects; cancelled by compaction
	broken   error                       // mu protects; the stream ended, or it broke a promise
	lastSeen map[int64]int64             // mu protects; last revision of each watcher
}

func openWatchStream(t *testing.T, ctx context.Context, client pb.WatchClient) *watchStream {
	stream, err := client.Watch(ctx)
	require.NoError(t, err)
	w := &watchStream{
		stream:   stream,
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
	switch {
	case resp.CompactRevision != 0 && !resp.Created:
		w.overrun[resp.WatchId] = resp
	case resp.Created || resp.Canceled:
		if resp.Created {
			delete(w.lastSeen, resp.WatchId)
		}
		w.control = append(w.control, resp)
	default:
		for _, ev := range resp.Events {
			w.check(resp, ev)
			w.events[resp.WatchId] = append(w.events[resp.WatchId], ev)
		}
		if n := len(resp.Events); n > 0 {
			w.lastSeen[resp.WatchId] = resp.Events[n-1].Kv.ModRevision
		}
	}
}

// check holds every server to the promises that need no comparison: order, no
// repetition, and the events of a revision together in one response.
func (w *watchStream) check(resp *pb.WatchResponse, ev *mvccpb.Event) {
	last, rev := w.lastSeen[resp.WatchId], ev.Kv.ModRevision
	if rev <= last {
		w.broken = errors.Join(w.broken, fmt.Errorf("watcher %d: revision %d after %d", resp.WatchId, rev, last))
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

// ask sends a request whose answer is the next control response.
func (w *watchStream) ask(ctx context.Context, what string, req *pb.WatchRequest) (*pb.WatchResponse, error) {
	if err := w.stream.Send(req); err != nil {
		return nil, err
	}
	var resp *pb.WatchResponse
	err := w.await(ctx, what, func() bool {
		if len(w.control) == 0 {
			return false
		}
		resp, w.control = w.control[0], w.control[1:]
		return true
	})
	return resp, err
}

func (w *watchStream) create(ctx context.Context, r *pb.WatchCreateRequest) (proto.Message, error) {
	return w.ask(ctx, "the watcher's creation", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

func (w *watchStream) cancel(ctx context.Context, r *pb.WatchCancelRequest) (proto.Message, error) {
	return w.ask(ctx, "the watcher's cancellation", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: r}})
}

// reached waits until the watcher has seen the revision.
func (w *watchStream) reached(ctx context.Context, id, revision int64) error {
	return w.await(ctx, fmt.Sprintf("revision %d on watcher %d", revision, id), func() bool {
		return w.lastSeen[id] >= revision
	})
}

// takeEvents empties what has arrived for one watcher.
func (w *watchStream) takeEvents(id int64) []*mvccpb.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.events[id]
	delete(w.events, id)
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
