package rpc

import (
	"context"
	"errors"
	"iter"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/internal/codec"
	"github.com/latchkey-go/latchkey/server/internal/auth"
	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// direct answers the small and frequent calls without a goroutine for each:
// writes, which only wait for the log, and ranges of one key.
type direct struct {
	async Async
	kv    *KV
	lease *Lease
	guard *Guard
}

// Direct has s answer what it can without a goroutine a call. The services are
// registered with s already, and serve what is not taken here.
func Direct(s *front.Server, async Async, kv *KV, lease *Lease, guard *Guard) {
	d := &direct{async, kv, lease, guard}
	s.Direct(pb.KV_Range_FullMethodName, d.readRange)
	s.Direct(pb.KV_Txn_FullMethodName, d.txn)
	writeOf(s, d, pb.KV_Put_FullMethodName, state.KindPut, checkPut)
	writeOf(s, d, pb.KV_DeleteRange_FullMethodName, state.KindDeleteRange, checkDeleteRange)
	s.Direct(pb.Lease_LeaseGrant_FullMethodName, d.grant)
	writeOf(s, d, pb.Lease_LeaseRevoke_FullMethodName, state.KindLeaseRevoke,
		func(*pb.LeaseRevokeRequest) error { return nil })
}

// request judges a request that is decoded, or is none: it answers so, or that
// there is no leader.
func (d *direct) request(c front.Call, r proto.Message, err error, b *front.Batch) bool {
	if err != nil {
		c.Reply(nil, status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err), b)
		return false
	}
	if d.lease.node.Learner() && !servedByLearner(r) {
		c.Reply(nil, wireError(ErrNotForLearner), b)
		return false
	}
	if c.Header(rpctypes.MetadataRequireLeaderKey) == rpctypes.MetadataHasLeader && !d.lease.node.HasLeader() {
		c.Reply(nil, wireError(ErrNoLeader), b)
		return false
	}
	return true
}

// writeOf has s serve a method that is a kind of write. What enters the log is
// the request as it came.
func writeOf[R any, P interface {
	*R
	proto.Message
}](s *front.Server, d *direct, method string, kind state.Kind, check func(P) error) {
	s.Direct(method, func(c front.Call, body []byte, b *front.Batch) bool {
		r := P(new(R))
		command, err := state.NewCommand(kind, r, body)
		if !d.request(c, r, err, b) {
			return true
		}
		return d.write(c, method, command, r, check(r), b)
	})
}

// grant completes the request, so it is encoded anew.
func (d *direct) grant(c front.Call, body []byte, b *front.Batch) bool {
	r := new(pb.LeaseGrantRequest)
	if !d.request(c, r, codec.Unmarshal(body, r), b) {
		return true
	}
	command := state.Command{Kind: state.KindLeaseGrant, Request: r}
	return d.write(c, pb.Lease_LeaseGrant_FullMethodName, command, r, d.lease.complete(r), b)
}

// write proposes a command, unless the request is malformed. It returns false
// for one that is to be served, or refused, by one that may wait.
func (d *direct) write(c front.Call, method string, command state.Command, r proto.Message, err error, b *front.Batch) bool {
	p := &pendingWrite{call: c, d: d}
	if err == nil && d.guard.enabled() {
		who, ok := d.guard.direct(c, method, r)
		if !ok {
			return false
		}
		p.again = &again{command, who}
		command.Caller = callerOf(who.id, who.at)
	}
	if err == nil {
		err = d.async.ProposeTo(command, p)
	}
	if err != nil {
		c.Reply(nil, wireError(err), b)
	}
	return true
}

// again is what it takes to propose a command once more.
type again struct {
	command state.Command
	caller  caller
}

func (d *direct) txn(c front.Call, body []byte, b *front.Batch) bool {
	r := new(pb.TxnRequest)
	command, err := state.NewCommand(state.KindTxn, r, body)
	if !d.request(c, r, err, b) {
		return true
	}
	err = checkTxn(r, d.kv.limits.TxnOps)
	if err == nil && state.IsReadOnly(r) {
		return d.readTxn(c, r, b)
	}
	return d.write(c, pb.KV_Txn_FullMethodName, command, r, err, b)
}

// pendingWrite is a call that waits for the log.
type pendingWrite struct {
	call  front.Call
	d     *direct
	again *again // nil while users are not needed
}

func (p *pendingWrite) Gone() bool { return p.call.Gone() }

func (p *pendingWrite) Done(response proto.Message, err error, b *front.Batch) {
	if p.again != nil && errors.Is(err, state.ErrAuthOldRevision) {
		p.call.Go(p.repeat)
		return
	}
	if err != nil {
		p.call.Reply(nil, wireError(err), b)
		return
	}
	if r, ok := response.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		p.d.kv.store.FillHeader(r.GetHeader())
	}
	p.call.Reply(response, nil, b)
}

// repeat proposes the command as Guard.Propose does.
func (p *pendingWrite) repeat(b *front.Batch) {
	ctx := context.WithValue(p.call.Context(), callerKey{}, p.again.caller)
	response, err := p.d.kv.store.Propose(ctx, p.again.command)
	p.again = nil
	p.Done(response, err, b)
}

// shortRead is how many keys a read may visit for the goroutine that has the
// answers of others to give as well: some ten microseconds.
const shortRead = 64

// readRange takes ranges of the present. Those of the past may need the disk.
func (d *direct) readRange(c front.Call, body []byte, b *front.Batch) bool {
	r := new(pb.RangeRequest)
	if !d.request(c, r, codec.Unmarshal(body, r), b) {
		return true
	}
	if r.Revision > 0 {
		return false
	}
	return d.read(c, pb.KV_Range_FullMethodName, r, r.Serializable, checkRange(r), b)
}

// readTxn takes transactions that only read, and only what is present.
func (d *direct) readTxn(c front.Call, r *pb.TxnRequest, b *front.Batch) bool {
	for op := range rangesOf(r) {
		if op == nil || op.Revision > 0 {
			return false
		}
	}
	return d.read(c, pb.KV_Txn_FullMethodName, r, isSerializable(r), nil, b)
}

// rangesOf yields the ranges of a transaction that only reads, and nil for a
// nested transaction.
func rangesOf(r *pb.TxnRequest) iter.Seq[*pb.RangeRequest] {
	return func(yield func(*pb.RangeRequest) bool) {
		for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
			for _, op := range branch {
				if !yield(op.GetRequestRange()) {
					return
				}
			}
		}
	}
}

// read answers a read when it may be answered, unless it is malformed. It
// returns false for one that is to be refused by one that may wait.
func (d *direct) read(c front.Call, method string, r proto.Message, serializable bool, err error, b *front.Batch) bool {
	p := &pendingRead{call: c, d: d, request: r}
	if err == nil && d.guard.enabled() {
		who, ok := d.guard.direct(c, method, r)
		if !ok {
			return false
		}
		p.caller = &who
	}
	switch {
	case err != nil:
		c.Reply(nil, err, b)
	case serializable:
		p.Done(nil, nil, b)
	default:
		if err := d.async.ReadTo(p); err != nil {
			c.Reply(nil, wireError(err), b)
		}
	}
	return true
}

// pendingRead is a range, or a transaction that only reads, which waits until
// this member is known to have what was written before it.
type pendingRead struct {
	call    front.Call
	d       *direct
	request proto.Message
	caller  *caller // nil if users were not needed when it came
}

func (p *pendingRead) Gone() bool { return p.call.Gone() }

func (p *pendingRead) Done(_ proto.Message, err error, b *front.Batch) {
	if err != nil {
		p.call.Reply(nil, wireError(err), b)
		return
	}
	view := p.d.kv.store.View()
	if a := view.Auth(); a.Enabled() {
		if err := p.permit(a); err != nil {
			p.call.Reply(nil, wireError(err), b)
			return
		}
	}
	if p.short(view) {
		p.answer(view, b)
	} else {
		p.call.Go(func(b *front.Batch) { p.answer(view, b) })
	}
}

// permit tells whether the caller may read in a view with these users.
func (p *pendingRead) permit(a *state.Auth) error {
	who := p.caller
	if who == nil {
		c := caller{anew: func() (auth.Identity, error) { return p.d.guard.identifyCall(p.call) }}
		who = &c
	}
	return p.d.guard.Read(context.WithValue(p.call.Context(), callerKey{}, *who), a, p.request)
}

// short reports whether the read visits few keys.
func (p *pendingRead) short(view *state.View) bool {
	r, ok := p.request.(*pb.TxnRequest)
	if !ok {
		r := p.request.(*pb.RangeRequest)
		return view.AtMost(shortRead, r.Key, r.RangeEnd)
	}
	parts := len(r.Compare) + len(r.Success) + len(r.Failure)
	most := shortRead / max(parts, 1) // of each: most of them have one key
	for _, c := range r.Compare {
		if !view.AtMost(most, c.Key, c.RangeEnd) {
			return false
		}
	}
	for op := range rangesOf(r) {
		if !view.AtMost(most, op.Key, op.RangeEnd) {
			return false
		}
	}
	return true
}

func (p *pendingRead) answer(view *state.View, b *front.Batch) {
	response, header, err := p.execute(view)
	if err != nil {
		p.call.Reply(nil, wireError(err), b)
		return
	}
	p.d.kv.store.FillHeader(header)
	p.call.Reply(response, nil, b)
}

func (p *pendingRead) execute(view *state.View) (proto.Message, *pb.ResponseHeader, error) {
	if r, ok := p.request.(*pb.TxnRequest); ok {
		response, err := view.Txn(r)
		return response, response.GetHeader(), err
	}
	response, err := view.Range(p.request.(*pb.RangeRequest))
	return response, response.GetHeader(), err
}
