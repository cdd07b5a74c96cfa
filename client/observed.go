package client

import (
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// observed is the latest revision that a server has told. Every answer has one, so it is a clock for free: what happens
// after it was read has a larger revision.
type observed struct{ rev atomic.Int64 }

func (o *observed) see(h *pb.ResponseHeader) {
	rev := h.GetRevision()
	for old := o.rev.Load(); rev > old; old = o.rev.Load() {
		if o.rev.CompareAndSwap(old, rev) {
			return
		}
	}
}

// Observed returns the latest revision that any answer of the cluster has told this client; zero before the first. It is
// a local call. Every transaction that is sent after it, and changes something, has a larger revision.
func (c *Client) Observed() Revision { return Revision(c.core.observed.rev.Load()) }
