package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/watch"
)

const (
	// DefaultWatchProgressInterval is how often idle watchers that asked for it are told how far they are.
	DefaultWatchProgressInterval = 10 * time.Minute
	// minWatchProgressInterval is the least such interval, as in etcd.
	minWatchProgressInterval = 100 * time.Millisecond
	// watchRequestsMax bounds the requests of a stream that were received and not carried out, and those that are carried
	// out before it is looked what else there is to do. A client that does not take its responses is not listened to.
	watchRequestsMax = 16
)

// WatchBackend is the member as the watch service sees it.
type WatchBackend interface {
	Hub() *watch.Hub
	// FillHeader sets the cluster id, member id and term of a response header.
	FillHeader(h *pb.ResponseHeader)
	// HasLeader reports whether this member knows a leader now.
	HasLeader() bool
	// Leaderless returns a channel that is closed once this member has known no leader for three election timeouts.
	// When there is a leader again, later calls return another channel.
	Leaderless() <-chan struct{}
	// Stopping returns a channel that is closed when the member begins to stop.
	Stopping() <-chan struct{}
}

// WatchConfig configures the watch service. Zero values are usable.
type WatchConfig struct {
	// RequestBytes is the limit on requests; a response is fragmented, where the client allows it, when it is larger
	// than that by half a MiB. Zero means DefaultRequestBytes.
	RequestBytes int
	// ProgressInterval is the time between progress reports to idle watchers; up to a tenth of it is added at random
	// for each stream, so that clients that came together do not hear together. Zero means
	// DefaultWatchProgressInterval; it is at least 100 ms.
	ProgressInterval time.Duration
	// Permit decides whether the caller may watch the range; nil permits everything. It is given the range as the
	// client sent it, but for an absent key, which is the least key, and rangeEnd, which is nil when it is empty. Its
	// error should be one of rpctypes' status errors, whose text is the reason that the client is given.
	Permit func(ctx context.Context, key, rangeEnd []byte) error
	// Guard decides the same after Permit, and ends watchers that a change of users and roles forbids; nil permits
	// everything.
	Guard *Guard
	// Decided, unless nil, is told whether a watch was let pass, or the error that refused it.
	Decided func(ctx context.Context, r *pb.WatchCreateRequest, err error)
	// Logger may be nil.
	Logger *slog.Logger
}

// Watch is etcd's watch service. The server that it is registered with must use Codec.
type Watch struct {
	pb.UnimplementedWatchServer

	backend   WatchBackend
	config    WatchConfig
	receivers sync.WaitGroup
	rooms     *sync.Pool // of *watchRoom
}

// NewWatch returns the watch service.
func NewWatch(b WatchBackend, c WatchConfig) *Watch {
	if c.RequestBytes == 0 {
		c.RequestBytes = DefaultRequestBytes
	}
	if c.ProgressInterval == 0 {
		c.ProgressInterval = DefaultWatchProgressInterval
	}
	c.ProgressInterval = max(c.ProgressInterval, minWatchProgressInterval)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Watch{backend: b, config: c, rooms: newWatchRooms()}
}

// Wait returns when no goroutine of the service runs any more. A stream of a transport that is not front's has one that
// receives, beside the handler that sends; it ends when gRPC ends the stream, so Wait is for after grpc.Server.Stop.
func (w *Watch) Wait() { w.receivers.Wait() }

// Watch implements etcdserverpb.WatchServer.
func (w *Watch) Watch(rpc pb.Watch_WatchServer) error {
	ctx := rpc.Context()
	var leaderless <-chan struct{}
	if requiresLeader(ctx) {
		leaderless = w.backend.Leaderless()
		if !w.backend.HasLeader() {
			return wireError(ErrNoLeader)
		}
	}
	s := &watchStream{
		backend: w.backend,
		config:  &w.config,
		rights:  watchRights{guard: w.config.Guard},
		stream:  w.backend.Hub().NewStream(),
		sink: watchSink{
			rpc: rpc, holder: holderOf(rpc), backend: w.backend, rooms: w.rooms, fragmentBytes: w.config.RequestBytes + watchResponseOverhead,
		},
	}
	defer s.close()
	return s.run(ctx, w.receive(rpc), leaderless)
}

// received is how the client's requests come: the handler takes them itself where the stream lets it, which spares an
// idle stream a goroutine; else from one that receives.
type received struct {
	taker   front.Taker // nil if there is a receiver
	arrived <-chan struct{}
	waiting bool // there may be more to take, and no signal for it

	requests chan *pb.WatchRequest
	// failed carries the receiver's error; capacity 1. Nothing comes when the client merely has nothing more to say.
	failed chan error
}

// receive starts the stream's receiver, if it needs one. It ends with the stream's context, which gRPC cancels when the
// handler returns.
func (w *Watch) receive(rpc pb.Watch_WatchServer) received {
	if taker, ok := below(rpc).(front.Taker); ok {
		return received{taker: taker, arrived: taker.Arrived(), waiting: true}
	}
	r := received{requests: make(chan *pb.WatchRequest, watchRequestsMax), failed: make(chan error, 1)}
	w.receivers.Go(func() {
		for {
			request, err := rpc.Recv()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					r.failed <- err
				}
				return
			}
			select {
			case r.requests <- request:
			case <-rpc.Context().Done():
				return
			}
		}
	})
	return r
}

// watchStream is one call of the service; owned by the handler's goroutine.
type watchStream struct {
	backend WatchBackend
	config  *WatchConfig
	stream  *watch.Stream
	sink    watchSink
	ticker  *time.Ticker // nil until a watcher asks for progress
	rights  watchRights
}

// run serves the stream until it ends, and returns why.
func (s *watchStream) run(ctx context.Context, in received, leaderless <-chan struct{}) error {
	always, stopping := make(chan struct{}), s.backend.Stopping()
	close(always)
	s.rights.begin()
	for more := false; ; {
		var again <-chan struct{}
		if more || in.waiting {
			again = always
		}
		var err error
		select {
		case request := <-in.requests:
			err = s.handle(ctx, request)
		case <-s.stream.Ready():
			more, err = s.step(ctx)
		case <-in.arrived:
			err = s.take(ctx, &in)
		case <-again:
			if in.waiting {
				err = s.take(ctx, &in)
			}
			if more && err == nil {
				more, err = s.step(ctx)
			}
		case <-s.rights.changed:
			err = s.revise(ctx)
		case <-s.ticks():
			s.stream.Tick()
		case err = <-in.failed:
			err = endOf(ctx, err)
		case <-ctx.Done():
			err = endOf(ctx, nil)
		case <-leaderless:
			err = wireError(ErrNoLeader)
		case <-stopping:
			err = wireError(ErrStopped)
		}
		s.sink.flush()
		if err != nil {
			return err
		}
	}
}

// take carries out some of the requests that have arrived.
func (s *watchStream) take(ctx context.Context, in *received) error {
	for range watchRequestsMax {
		request := new(pb.WatchRequest)
		ok, err := in.taker.TryRecvMsg(request)
		switch {
		case errors.Is(err, io.EOF): // the client has nothing more to say, and may still listen
			in.arrived, in.waiting = nil, false
			return nil
		case err != nil:
			return endOf(ctx, err)
		case !ok:
			in.waiting = false
			return nil
		}
		if err := s.handle(ctx, request); err != nil {
			return err
		}
	}
	in.waiting = true
	return nil
}

// endOf returns the status of a stream whose client left or whose receiver failed.
func endOf(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		err = ended
	}
	if errors.Is(err, context.Canceled) {
		return rpctypes.ErrGRPCWatchCanceled
	}
	return wireError(err)
}

func (s *watchStream) ticks() <-chan time.Time {
	if s.ticker == nil {
		return nil
	}
	return s.ticker.C
}

func (s *watchStream) close() {
	s.stream.Close()
	if s.ticker != nil {
		s.ticker.Stop()
	}
}

// step sends events. An error that is not the transport's is the archive's: the member is about to stop for it, and
// clients should go on elsewhere.
func (s *watchStream) step(ctx context.Context) (more bool, err error) {
	select {
	case <-s.rights.changed: // before any event that came after
		if err := s.revise(ctx); err != nil {
			return false, err
		}
	default:
	}
	more, err = s.stream.Step(&s.sink)
	if err == nil || s.sink.err != nil {
		return more, err
	}
	s.config.Logger.Error("watch stream ended", "err", err)
	return false, status.Error(codes.Unavailable, "etcdserver: "+err.Error())
}

// handle carries out one request. What is no request is ignored, as etcd does.
func (s *watchStream) handle(ctx context.Context, request *pb.WatchRequest) error {
	switch r := request.GetRequestUnion().(type) {
	case *pb.WatchRequest_CreateRequest:
		if r.CreateRequest != nil {
			return s.create(ctx, r.CreateRequest)
		}
	case *pb.WatchRequest_CancelRequest:
		if r.CancelRequest != nil && s.stream.Cancel(r.CancelRequest.GetWatchId()) {
			return s.sink.control(s.backend.Hub().Revision(), &pb.WatchResponse{
				WatchId: r.CancelRequest.GetWatchId(), Canceled: true,
			})
		}
	case *pb.WatchRequest_ProgressRequest:
		if r.ProgressRequest != nil {
			s.stream.RequestProgress()
		}
	}
	return nil
}

// create adds a watcher. A refusal is a response like any other, since clients match the responses to creations by
// their order.
func (s *watchStream) create(ctx context.Context, r *pb.WatchCreateRequest) error {
	key, end := r.GetKey(), r.GetRangeEnd()
	if len(key) == 0 {
		key = []byte{0}
	}
	if len(end) == 0 {
		end = nil // absent and empty are the same, also for Permit (GHSA-xg4h-6gfc-h4m8)
	}
	if r.GetStartRevision() < 0 {
		return s.refuse(rpctypes.ErrCompacted.Error())
	}
	if s.config.Permit != nil {
		if err := s.config.Permit(ctx, key, end); err != nil {
			return s.refuse(s.refusal(err))
		}
	}
	err := wireError(s.rights.permit(ctx, r))
	if s.config.Decided != nil {
		s.config.Decided(ctx, r, err)
	}
	if err != nil {
		return s.refuse(s.refusal(err))
	}
	request := watch.Request{
		ID:       r.GetWatchId(),
		Range:    watch.Range{Start: string(key), End: string(end)},
		Start:    r.GetStartRevision(),
		PrevKV:   r.GetPrevKv(),
		Fragment: r.GetFragment(),
		Progress: r.GetProgressNotify(),
	}
	for _, f := range r.GetFilters() {
		request.NoPut = request.NoPut || f == pb.WatchCreateRequest_NOPUT
		request.NoDelete = request.NoDelete || f == pb.WatchCreateRequest_NODELETE
	}
	id, revision, err := s.stream.Create(request)
	if err != nil {
		return s.refuse(createRefusal(err))
	}
	if s.ticker == nil && s.stream.Ticking() {
		interval := s.config.ProgressInterval
		s.ticker = time.NewTicker(interval + rand.N(interval/10))
	}
	return s.sink.control(revision, &pb.WatchResponse{WatchId: id, Created: true})
}

// refuse answers a creation that is not carried out.
func (s *watchStream) refuse(reason string) error {
	return s.sink.control(s.backend.Hub().Revision(), &pb.WatchResponse{
		WatchId: watch.AllWatchers, Created: true, Canceled: true, CancelReason: reason,
	})
}

// refusal is the text for an error of Permit. Clients compare it.
func (s *watchStream) refusal(err error) string {
	for _, known := range [...]error{
		rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCAuthOldRevision, rpctypes.ErrGRPCUserEmpty,
		rpctypes.ErrGRPCPermissionDenied,
	} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	s.config.Logger.Error("watch permission unknown, denied", "err", err)
	return rpctypes.ErrGRPCPermissionDenied.Error()
}

// createRefusal is etcd's text for an error of Stream.Create.
func createRefusal(err error) string {
	switch {
	case errors.Is(err, watch.ErrEmptyRange):
		return "mvcc: watcher range is empty"
	case errors.Is(err, watch.ErrDuplicateID):
		return "mvcc: duplicate watch ID provided on the WatchStream"
	default:
		return rpctypes.ErrTooManyRequests.Error()
	}
}
