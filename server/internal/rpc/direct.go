package rpc

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// direct answers the small and frequent calls without a goroutine for each:
// writes, which only wait for the log, and ranges of one key.
type direct struct {
	async Async
	kv    *KV
	lease *Lease
}

// Direct has s answer what it can without a goroutine a call. The services are
// registered with s already, and serve what is not taken here.
func Direct(s *front.Server, async Async, kv *KV, lease *Lease) {
	d := &direct{async, kv, lease}
	s.Direct(pb.KV_Range_FullMethodName, d.readRange)
	s.Direct(pb.KV_Txn_FullMethodName, d.txn)
	s.Direct(pb.KV_Put_FullMethodName, writeOf(d, state.KindPut, checkPut))
	s.Direct(pb.KV_DeleteRange_FullMethodName, writeOf(d, state.KindDeleteRange, checkDeleteRange))
	s.Direct(pb.Lease_LeaseGrant_FullMethodName, writeOf(d, state.KindLeaseGrant, lease.complete))
	s.Direct(pb.Lease_LeaseRevoke_FullMethodName, writeOf(d, state.KindLeaseRevoke,
		func(*pb.LeaseRevokeRequest) error { return nil }))
}

// request decodes a request, or answers that it is none or that there is no
// leader.
func (d *direct) request(c *front.Call, body []byte, r proto.Message, b *front.Batch) bool {
	if err := proto.Unmarshal(body, r); err != nil {
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

// writeOf serves a kind of write. check may complete the request.
func writeOf[R any, P interface {
	*R
	proto.Message
}](d *direct, kind state.Kind, check func(P) error) front.Direct {
	return func(c *front.Call, body []byte, b *front.Batch) bool {
		r := P(new(R))
		if d.request(c, body, r, b) {
			d.write(c, state.Command{Kind: kind, Request: r}, check(r), b)
		}
		return true
	}
}

func (d *direct) write(c *front.Call, command state.Command, err error, b *front.Batch) {
	if err == nil {
		err = d.async.ProposeTo(command, &pendingWrite{c, d})
	}
	if err != nil {
		c.Reply(nil, wireError(err), b)
	}
}

func (d *direct) txn(c *front.Call, body []byte, b *front.Batch) bool {
	r := new(pb.TxnRequest)
	if !d.request(c, body, r, b) {
		return true
	}
	err := checkTxn(r, d.kv.limits.TxnOps)
	if err == nil && state.IsReadOnly(r) {
		return false
	}
	d.write(c, state.Command{Kind: state.KindTxn, Request: r}, err, b)
	return true
}

// pendingWrite is a call that waits for the log.
type pendingWrite struct {
	call *front.Call
	d    *direct
}

func (p *pendingWrite) Gone() bool { return p.call.Gone() }

func (p *pendingWrite) Done(response proto.Message, err error, b *front.Batch) {
	if err != nil {
		p.call.Reply(nil, wireError(err), b)
		return
	}
	if r, ok := response.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		p.d.kv.store.FillHeader(r.GetHeader())
	}
	p.call.Reply(response, nil, b)
}

// shortRange is how many keys a range may have for the goroutine that has the
// answers of others to give as well: some ten microseconds.
const shortRange = 64

// readRange takes ranges of the present. Those of the past may need the disk.
func (d *direct) readRange(c *front.Call, body []byte, b *front.Batch) bool {
	r := new(pb.RangeRequest)
	if !d.request(c, body, r, b) {
		return true
	}
	if r.Revision > 0 {
		return false
	}
	err := checkRange(r)
	p := &pendingRange{c, d, r}
	switch {
	case err != nil:
		c.Reply(nil, err, b)
	case r.Serializable:
		p.Done(nil, nil, b)
	default:
		if err := d.async.ReadTo(p); err != nil {
			c.Reply(nil, wireError(err), b)
		}
	}
	return true
}

// pendingRange is a range that waits until this member is known to have what
// was written before it.
type pendingRange struct {
	call    *front.Call
	d       *direct
	request *pb.RangeRequest
}

func (p *pendingRange) Gone() bool { return p.call.Gone() }

func (p *pendingRange) Done(_ proto.Message, err error, b *front.Batch) {
	if err != nil {
		p.call.Reply(nil, wireError(err), b)
		return
	}
	view := p.d.kv.store.View()
	if view.AtMost(shortRange, p.request.Key, p.request.RangeEnd) {
		p.answer(view, b)
	} else {
		p.call.Go(func(b *front.Batch) { p.answer(view, b) })
	}
}

func (p *pendingRange) answer(view *state.View, b *front.Batch) {
	response, err := view.Range(p.request)
	if err != nil {
		p.call.Reply(nil, wireError(err), b)
		return
	}
	p.d.kv.store.FillHeader(response.Header)
	p.call.Reply(response, nil, b)
}
