package rpc

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server/internal/auth"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/watch"
)

// watchRights is who a stream's watchers belong to, and when to look at their rights again.
type watchRights struct {
	guard   *Guard          // nil permits everything
	changed <-chan struct{} // closed when users or roles have changed since the rights were looked at
	id      auth.Identity   // the zero value while it is unknown
}

func (r *watchRights) begin() {
	if r.guard != nil {
		r.changed = r.guard.backend.AuthChanged()
	}
}

// permit tells whether the watcher may be created. The caller's token must be valid now; later changes ask only who it
// belonged to.
func (r *watchRights) permit(ctx context.Context, c *pb.WatchCreateRequest) error {
	if r.guard == nil || !r.guard.enabled() {
		return nil
	}
	row, ok := auth.RowOf(pb.Watch_Watch_FullMethodName)
	if !ok {
		return state.ErrPermissionDenied
	}
	who, err := r.guard.admit(ctx, row, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}})
	if err == nil {
		r.id = who.id
	}
	return err
}

// still tells whether the owner of the stream may watch the range with the users and roles of a.
func (r *watchRights) still(a *state.Auth, rng watch.Range) error {
	id := auth.Identity{User: r.id.User} // whatever the revision of his token
	need := state.Need{Right: state.RightRead, Key: []byte(rng.Start), End: []byte(rng.End)}
	return a.Check(callerOf(id, a.Revision()), need, r.guard.backend)
}

// revise ends the watchers that users and roles forbid as they are now.
func (s *watchStream) revise(ctx context.Context) error {
	r := &s.rights
	r.begin() // before looking, so that no change goes unseen
	a := r.guard.backend.Auth()
	if !a.Enabled() {
		return nil
	}
	if r.id.User == "" { // the stream is older than the need of users
		if id, err := r.guard.identifyMetadata(ctx); err == nil {
			r.id = id
		}
	}
	ended := make(map[int64]error)
	s.stream.Watchers(func(id int64, rng watch.Range) {
		if err := r.still(a, rng); err != nil {
			ended[id] = err
		}
	})
	for id, err := range ended {
		s.stream.Cancel(id)
		err := s.sink.control(s.backend.Hub().Revision(), &pb.WatchResponse{
			WatchId: id, Canceled: true, CancelReason: s.refusal(wireError(err)),
		})
		if err != nil {
			return err
		}
	}
	return nil
}
