package server

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// Server is what the rpc services stand on.
var (
	_ rpc.Store        = backend{}
	_ rpc.Async        = backend{}
	_ rpc.Lessor       = backend{}
	_ rpc.Node         = backend{}
	_ rpc.WatchBackend = backend{}
	_ rpc.Membership   = backend{}
	_ rpc.Mover        = backend{}
	_ rpc.Custodian    = backend{}
)

// backend is the Server as the rpc services see it; it keeps their methods out
// of the embeddable server's own.
type backend struct{ *Server }

// Propose sends c through the log, as the caller of ctx, and waits until it is
// applied here.
func (b backend) Propose(ctx context.Context, c state.Command) (proto.Message, error) {
	return b.front.guard.Propose(ctx, c, func(c state.Command) (proto.Message, error) {
		return b.proposeAndWait(ctx, c)
	})
}

func (b backend) proposeAndWait(ctx context.Context, c state.Command) (proto.Message, error) {
	v, err := b.admit(&c)
	if err != nil {
		return nil, err
	}
	if v == full {
		c = b.fullAlarm()
	}
	w, err := b.propose(c, nil)
	if err != nil {
		return nil, err
	}
	err = w.await(ctx)
	if v == full {
		return nil, rpc.ErrNoSpace
	}
	if err != nil {
		w.gone.Store(true)
		return nil, err
	}
	return w.response, nil
}

// ProposeTo implements rpc.Store.
func (b backend) ProposeTo(c state.Command, to rpc.Completion) error {
	v, err := b.admit(&c)
	if err != nil {
		return err
	}
	if v == full {
		c, to = b.fullAlarm(), refusal{to}
	}
	_, err = b.propose(c, to)
	return err
}

func (b backend) propose(c state.Command, to rpc.Completion) (*waiter, error) {
	s := b.Server
	data, err := c.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	if len(data) > s.cfg.MaxRequestBytes {
		return nil, rpc.ErrRequestTooLarge
	}
	w := newWaiter(c, data, to)
	w.proposal.Change = confChange(c)
	return w, s.loop.propose(w)
}

// ReadTo implements rpc.Store.
func (b backend) ReadTo(to rpc.Completion) error {
	r := newOutcome(to)
	return b.loop.read(&r)
}

// Read returns a view with every write that completed before the call.
func (b backend) Read(ctx context.Context) (*state.View, error) {
	if err := b.confirm(ctx); err != nil {
		return nil, err
	}
	b.meters.reads.Add(1)
	return b.store.view(), nil
}

// View returns what is applied here.
func (b backend) View() *state.View {
	b.meters.reads.Add(1)
	return b.store.view()
}

// FillHeader completes a response header.
func (b backend) FillHeader(h *pb.ResponseHeader) {
	h.ClusterId, h.MemberId = b.identity.ClusterID, b.identity.MemberID
	h.RaftTerm = b.term.Load()
	if h.Revision == 0 {
		h.Revision = b.revision.Load()
	}
}

// WaitCompacted waits for the sweep up to revision and for the checkpoint that
// has dropped the same versions.
func (b backend) WaitCompacted(ctx context.Context, revision int64) error {
	done, err := b.applier.swept(revision)
	if err != nil {
		return err
	}
	select {
	case <-done:
		return b.keeper.saveNow(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// confirm returns once this member has applied all that was committed before
// the call, and, on the leader, once a quorum has said that it still leads.
func (s *Server) confirm(ctx context.Context) error {
	r := newOutcome(nil)
	if err := s.loop.read(&r); err != nil {
		return err
	}
	return r.await(ctx)
}
