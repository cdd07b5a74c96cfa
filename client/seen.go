package client

import (
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Seen returns the newest revision that any answer to this client has told, of whatever call, renewal or watch; zero
// before the first. It only grows, and it is the view of the whole client, whatever the namespace. What anybody commits
// after this call has a larger revision than what is returned, so it orders events like a logical clock that costs nothing.
func (c *Client) Seen() Revision { return Revision(c.core.seen.Load()) }

// headed is an answer that tells the revision of its server.
type headed interface{ GetHeader() *pb.ResponseHeader }

// saw notes the revision that an answer tells, and returns its header, or nil.
func (co *core) saw(answer proto.Message) *pb.ResponseHeader {
	h, ok := answer.(headed)
	if !ok {
		return nil
	}
	raise(&co.seen, h.GetHeader().GetRevision())
	return h.GetHeader()
}

// raise makes a number at least n.
func raise(number *atomic.Int64, n int64) {
	for old := number.Load(); old < n && !number.CompareAndSwap(old, n); {
		old = number.Load()
	}
}
