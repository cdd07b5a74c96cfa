package interop_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// A reason is why two answers that differ are right both. There is no other
// than these: a long run fails if one of them was not needed.
type reason string

const (
	ownIDs          reason = "ids of cluster and member"
	ownToken        reason = "the token of a login"
	ownAddresses    reason = "a member's name and addresses"
	ownFile         reason = "sizes of files, positions in the log, the hash of the whole file"
	chosenLease     reason = "a lease's id that the server chose"
	remainingTime   reason = "a lease's remaining time, asked a moment later"
	leaseKeyOrder   reason = "the order of a lease's keys"
	leaseOrder      reason = "the order of leases that end about together"
	tieOrder        reason = "the order of keys that are equal in what they are sorted by"
	tieCut          reason = "which of such keys a limit cuts off"
	keysOnlyLease   reason = "the lease of a key in an answer of keys only"
	compactedPrev   reason = "a previous value that was compacted"
	cancelledLast   reason = "how far a watcher is when it is cancelled, and the last previous values"
	emptyRange      reason = "the right to read a range that ends before it begins"
	rightsTaken     reason = "a watcher that its owner may not have any more"
	overrunCancel   reason = "cancelling a watcher that a compaction has ended"
	overrunProgress reason = "the progress of a stream with a watcher that a compaction has ended"
	compactionHash  reason = "the hash at a revision at which history was compacted"
)

// reasons says it for each.
var reasons = map[reason]string{
	ownIDs:          "made at random by each cluster; that they are there is compared",
	ownToken:        "made at random; each is used on its side, and has etcd's form",
	ownAddresses:    "the servers listen side by side",
	ownFile:         "neither is part of the API's meaning",
	chosenLease:     "made at random; the lease is revoked at once, by its id",
	remainingTime:   fmt.Sprintf("at most %d s", ttlTolerance),
	leaseKeyOrder:   "etcd keeps them in a map",
	leaseOrder:      "etcd sorts by the remaining time, of which each server has its own",
	tieOrder:        "etcd's sort is not stable, so neither order is right",
	tieCut:          "the same: the fields that they are sorted by are compared",
	keysOnlyLease:   "etcd 3.7 takes keys without values from its index, which does not know leases",
	compactedPrev:   "what was before an event at or below the compaction may be given, but need not",
	cancelledLast:   "how much was read is a matter of time, and etcd forgets at once that it wanted the values; the rest is compared",
	emptyRange:      "etcd's search goes astray by the shape of a tree, and denies; nothing is in the range",
	rightsTaken:     "etcd lets it go on; ours ends it, with what etcd answers to a new watch of that range",
	overrunCancel:   "etcd says a second time that it is cancelled; ours knows it no more",
	overrunProgress: "etcd counts it with those that are behind, and never answers again; ours answers",
	compactionHash:  "etcd gives the hash that it made before it compacted, even if nothing of that is readable; for 0 too",
}

// masks counts the differences that were forgiven, by their reason.
type masks map[reason]int

func (m masks) count(r reason, differs bool) {
	if differs {
		m[r]++
	}
}

// requireAll fails a long run in which a reason was not needed. That of a moment is
// not, where two servers are asked within the same one.
func (m masks) requireAll(t *testing.T) {
	t.Helper()
	for r := range reasons {
		t.Logf("forgiven: %6d %s", m[r], r)
	}
	for r := range m {
		require.Contains(t, reasons, r)
	}
	for r := range reasons {
		if r != remainingTime {
			require.Positive(t, m[r], "never seen: %s", r)
		}
	}
}

// same compares two servers' answers to req and returns how they differ; empty
// when they do not, or with a reason.
func (m masks) same(req proto.Message, reference, subject answer) string {
	want, got := reference, subject
	if want.message != nil && got.message != nil {
		want.message, got.message = proto.Clone(want.message), proto.Clone(got.message)
		for kind, a := range map[string]answer{"reference": want, "subject": got} {
			if err := a.checkHeader(); err != nil {
				return fmt.Sprintf("the %s gives %v", kind, err)
			}
		}
		m.maskOwn(want.message, got.message)
		m.maskLeases(want.message, got.message)
		m.maskTies(req, want.message, got.message)
		if proto.Equal(want.message, got.message) {
			return ""
		}
	} else if want.message == nil && got.message == nil && want.code == got.code && want.text == got.text {
		return ""
	}
	if r, ok := req.(*pb.RangeRequest); ok && inverted(r.Key, r.RangeEnd) && want.text == "etcdserver: permission denied" {
		if got, ok := got.message.(*pb.RangeResponse); ok && got.Count == 0 && len(got.Kvs) == 0 {
			m[emptyRange]++
			return ""
		}
	}
	return fmt.Sprintf("request:\n%s\nreference:\n%v\nsubject:\n%v", indent(prototext.Format(req)), want, got)
}

// maskOwn takes out what is a server's own.
func (m masks) maskOwn(a, b proto.Message) {
	if left, ok := a.(headed); ok {
		h, g := left.GetHeader(), b.(headed).GetHeader()
		m.count(ownIDs, h.GetClusterId() != g.GetClusterId() || h.GetMemberId() != g.GetMemberId())
		for _, h := range []*pb.ResponseHeader{h, g} {
			if h != nil {
				h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
			}
		}
	}
	switch a := a.(type) {
	case *pb.StatusResponse:
		b := b.(*pb.StatusResponse)
		m.count(ownFile, a.DbSize != b.DbSize || a.RaftIndex != b.RaftIndex)
		for _, r := range []*pb.StatusResponse{a, b} { // ours counts a term more or less
			r.DbSize, r.DbSizeInUse, r.RaftIndex, r.RaftAppliedIndex, r.RaftTerm, r.Leader = 0, 0, 0, 0, 0, 0
		}
	case *pb.HashResponse:
		b := b.(*pb.HashResponse)
		m.count(ownFile, a.Hash != b.Hash)
		a.Hash = b.Hash
	case *pb.MemberListResponse:
		b := b.(*pb.MemberListResponse)
		m.count(ownAddresses, true)
		for _, r := range slices.Concat(a.Members, b.Members) {
			r.ID, r.Name, r.PeerURLs, r.ClientURLs = 0, "", r.PeerURLs[:0], r.ClientURLs[:0]
		}
	}
}

// ttlTolerance is how far two servers' remaining times may be apart, in
// seconds: they are asked one after the other.
const ttlTolerance = 3

// maskLeases makes remaining times equal that differ by less than the
// tolerance, and sorts what has no order.
func (m masks) maskLeases(a, b proto.Message) {
	switch a := a.(type) {
	case *pb.LeaseGrantResponse:
		b := b.(*pb.LeaseGrantResponse)
		if a.ID >= 1<<32 && b.ID >= 1<<32 {
			m.count(chosenLease, a.ID != b.ID)
			a.ID = b.ID
		}
	case *pb.LeaseTimeToLiveResponse:
		b := b.(*pb.LeaseTimeToLiveResponse)
		if a.TTL > 0 && b.TTL > 0 && max(a.TTL-b.TTL, b.TTL-a.TTL) <= ttlTolerance {
			m.count(remainingTime, a.TTL != b.TTL)
			b.TTL = a.TTL
		}
		m.count(leaseKeyOrder, !slices.EqualFunc(a.Keys, b.Keys, slices.Equal))
		slices.SortFunc(a.Keys, slices.Compare)
		slices.SortFunc(b.Keys, slices.Compare)
	case *pb.LeaseLeasesResponse:
		b := b.(*pb.LeaseLeasesResponse)
		m.count(leaseOrder, !proto.Equal(a, b))
		for _, r := range []*pb.LeaseLeasesResponse{a, b} {
			slices.SortFunc(r.Leases, func(a, b *pb.LeaseStatus) int { return int(a.ID - b.ID) })
		}
	}
}

// maskTies makes the order of keys that are equal in what they are sorted by
// the same on both sides. Of a sorted answer that a limit cuts, even which of
// the equal keys are in it is open: there the sort fields alone count.
func (m masks) maskTies(req, a, b proto.Message) {
	switch req := req.(type) {
	case streamRange:
		m.maskTies(req.RangeRequest, a, b)
	case *pb.RangeRequest:
		left, ok1 := a.(*pb.RangeResponse)
		right, ok2 := b.(*pb.RangeResponse)
		if ok1 && ok2 {
			m.sortTies(req, left, right)
		}
	case *pb.TxnRequest:
		left, ok1 := a.(*pb.TxnResponse)
		right, ok2 := b.(*pb.TxnResponse)
		if ok1 && ok2 && left.Succeeded == right.Succeeded {
			m.tiesOfTxn(req, left, right)
		}
	}
}

func (m masks) tiesOfTxn(req *pb.TxnRequest, a, b *pb.TxnResponse) {
	ops := req.Failure
	if a.Succeeded {
		ops = req.Success
	}
	for i, op := range ops {
		if i >= len(a.Responses) || i >= len(b.Responses) {
			return
		}
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			m.maskTies(r.RequestRange, a.Responses[i].GetResponseRange(), b.Responses[i].GetResponseRange())
		case *pb.RequestOp_RequestTxn:
			m.maskTies(r.RequestTxn, a.Responses[i].GetResponseTxn(), b.Responses[i].GetResponseTxn())
		}
	}
}

func (m masks) sortTies(req *pb.RangeRequest, a, b *pb.RangeResponse) {
	both := []*pb.RangeResponse{a, b}
	if req.KeysOnly && len(a.GetKvs()) == len(b.GetKvs()) {
		for i := range a.GetKvs() {
			m.count(keysOnlyLease, a.Kvs[i].Lease != b.Kvs[i].Lease)
			a.Kvs[i].Lease, b.Kvs[i].Lease = 0, 0
		}
	}
	if req.SortTarget == pb.RangeRequest_KEY || proto.Equal(a, b) {
		return
	}
	for _, resp := range both {
		for start := 0; start < len(resp.Kvs); {
			end := start + 1
			for end < len(resp.Kvs) && compareField(req.SortTarget, resp.Kvs[start], resp.Kvs[end]) == 0 {
				end++
			}
			slices.SortFunc(resp.Kvs[start:end], func(a, b *kv) int { return slices.Compare(a.Key, b.Key) })
			start = end
		}
	}
	if proto.Equal(a, b) {
		m[tieOrder]++
		return
	}
	for _, resp := range both {
		if req.Limit > 0 && resp.More {
			m[tieCut]++
			for i, k := range resp.Kvs {
				resp.Kvs[i] = sortFieldOnly(req.SortTarget, k)
			}
		}
	}
}
