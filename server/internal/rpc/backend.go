package rpc

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// Store is the replicated store as the services see it.
type Store interface {
	// Propose sends one command through the log and returns its response once
	// it is applied here. An error of package state or of this package is
	// definite: the command had no effect. ErrTimeout and a context's error
	// leave its fate unknown.
	Propose(ctx context.Context, c state.Command) (proto.Message, error)
	// Read returns a view that contains every write completed anywhere in the
	// cluster before Read was called.
	Read(ctx context.Context) (*state.View, error)
	// View returns what this member has applied, which may be behind.
	View() *state.View
	// WaitCompacted returns when the versions that a compaction at revision
	// removed are gone from memory and from the checkpoint.
	WaitCompacted(ctx context.Context, revision int64) error
	// FillHeader sets the cluster id, member id, term and, if it is zero, the
	// revision of a response header.
	FillHeader(h *pb.ResponseHeader)
}

// Async is Store for calls that nobody waits for on a goroutine of their own.
type Async interface {
	// ProposeTo is Store.Propose for a caller that does not wait: to is told the
	// outcome, after the front has called its Turn, unless ProposeTo itself
	// fails.
	ProposeTo(c state.Command, to Completion) error
	// ReadTo tells to when Store.View has every write that completed anywhere
	// in the cluster before the call, under the same conditions.
	ReadTo(to Completion) error
}

// Completion is told an outcome, once.
type Completion interface {
	// Done is called on the goroutine that has the outcome, which may serve
	// others next: it must not block. What it writes to b is sent afterwards.
	Done(response proto.Message, err error, b *front.Batch)
	// Gone reports whether nobody wants the outcome any more.
	Gone() bool
}

// Lessor answers for leases; what only the leader knows is asked of the leader.
type Lessor interface {
	// Renew gives the lease its full TTL again and returns it, in seconds.
	// It succeeds only when the leader was confirmed to lead after the call
	// began. state.ErrLeaseNotFound: the lease ended or its end is in the log.
	Renew(ctx context.Context, id int64) (ttl int64, err error)
	// TimeToLive returns the lease's remaining and granted TTL in seconds, and
	// its keys in order when they are asked for.
	TimeToLive(ctx context.Context, id int64, keys bool) (LeaseStatus, error)
	// Leases lists the ids of all leases known to this member.
	Leases() []int64
	// MinTTL is the least TTL in seconds that a grant through this API gets.
	MinTTL() int64
	// Full reports whether there are as many leases as this member lets there be.
	Full() bool
}

// LeaseStatus is one lease as the leader sees it.
type LeaseStatus struct {
	Remaining, Granted int64 // seconds
	Keys               []string
}

// Node tells about the member and its cluster.
type Node interface {
	Members() []state.Member
	Status() Status
	// HasLeader reports whether this member knows a leader now.
	HasLeader() bool
	// Leaderless is as in [WatchBackend].
	Leaderless() <-chan struct{}
	// Learner reports whether this member only learns and does not vote.
	Learner() bool
}

// Status is what Maintenance.Status reports of this member.
type Status struct {
	Leader                   uint64
	Commit, Applied, Term    uint64
	FileBytes, LiveBytes     int64 // of the checkpoint file; of keys and values
	QuotaBytes               int64
	Learner                  bool
	Alarms                   []state.Alarm
	Downgrade                string // announced; empty for none
	EtcdVersion, DataVersion string
}

// Limits bounds what one request may ask. The zero value of a field means the
// default of etcd 3.7.
type Limits struct {
	RequestBytes int // of one request; 1.5 MiB
	TxnOps       int // of each list of a transaction, nested lists included; 128
}

// Defaults of etcd 3.7's flags max-request-bytes and max-txn-ops.
const (
	DefaultRequestBytes = 1536 << 10
	DefaultTxnOps       = 128
)

// WithDefaults fills the fields that are zero.
func (l Limits) WithDefaults() Limits {
	if l.RequestBytes == 0 {
		l.RequestBytes = DefaultRequestBytes
	}
	if l.TxnOps == 0 {
		l.TxnOps = DefaultTxnOps
	}
	return l
}
