package contention

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/watch"
)

// follower watches keys on behalf of one call, on its goroutine.
type follower struct {
	config Config
	start  int64        // the first revision of interest
	noPut  bool         // only deletions are
	renew  func() error // called every renewInterval, if set
}

// follow hands the events of the ranges to handle, in order and with the revision that they reach, until it is done or
// fails. It returns nil as well when events were compacted away: whoever called it has to look again.
func (f follower) follow(ctx context.Context, ranges []watch.Range, handle func([]*mvccpb.Event, int64) (bool, error)) error {
	stream := f.config.Member.Hub().NewStream()
	defer stream.Close()
	for _, r := range ranges {
		if _, _, err := stream.Create(watch.Request{Range: r, Start: f.start, NoPut: f.noPut}); err != nil {
			return refusal(err)
		}
	}
	var leaderless <-chan struct{}
	if requiresLeader(ctx) {
		leaderless = f.config.Member.Leaderless()
	}
	var renewals <-chan time.Time
	if f.renew != nil {
		ticker := time.NewTicker(renewInterval)
		defer ticker.Stop()
		renewals = ticker.C
	}
	sink := &sink{handle: handle}
	for {
		var err error
		select {
		case <-stream.Ready():
			err = sink.drain(ctx, stream)
		case <-renewals:
			err = f.renew()
		case <-leaderless:
			err = rpctypes.ErrGRPCNoLeader
		case <-f.config.Member.Stopping():
			err = rpctypes.ErrGRPCStopped
		case <-ctx.Done():
			err = contextError(ctx)
		}
		if errors.Is(err, errDone) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// errDone ends a step of a stream: its reader has seen enough.
var errDone = errors.New("done")

// sink hands on what a stream writes.
type sink struct {
	handle func([]*mvccpb.Event, int64) (bool, error)
}

// drain takes what the stream has.
func (s *sink) drain(ctx context.Context, stream *watch.Stream) error {
	for more := true; more; {
		var err error
		if more, err = stream.Step(s); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return contextError(ctx)
		}
	}
	return nil
}

// Events implements watch.Sink.
func (s *sink) Events(b *watch.Batch) error {
	// Each element is a field "events" as it stands in an encoded WatchResponse, and fields may be joined.
	var all pb.WatchResponse
	for _, field := range b.Events {
		if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(field, &all); err != nil {
			return status.Errorf(codes.Internal, "decode event: %v", err)
		}
	}
	done, err := s.handle(all.Events, b.Revision)
	if err == nil && done {
		err = errDone
	}
	return err
}

// Progress implements watch.Sink. Nobody asks for it.
func (s *sink) Progress(int64, int64) error { return nil }

// Compacted implements watch.Sink.
func (s *sink) Compacted(int64, int64) error { return errDone }

func requiresLeader(ctx context.Context) bool {
	v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)
	return len(v) > 0 && v[0] == rpctypes.MetadataHasLeader
}

// contextError is the status of a call whose context is done.
func contextError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return rpctypes.ErrGRPCDeadlineExceeded
	}
	return rpctypes.ErrGRPCCanceled
}

// refusal is the status for a watch that the hub does not take.
func refusal(err error) error {
	if errors.Is(err, watch.ErrTooManyWatchers) {
		return rpctypes.ErrGRPCRequestTooManyRequests
	}
	return status.Error(codes.Internal, err.Error())
}
