package interop_test

import (
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// answer is what a server said to one request, in a form that can be compared:
// what two clusters may rightly differ in is taken out.
type answer struct {
	message proto.Message // nil for an error
	code    string
	text    string
}

func newAnswer(m proto.Message, err error) answer {
	if err != nil {
		st := status.Convert(err)
		return answer{code: st.Code().String(), text: st.Message()}
	}
	return answer{message: m}
}

func (a answer) String() string {
	if a.message == nil {
		return fmt.Sprintf("error %s: %q", a.code, a.text)
	}
	return prototext.MarshalOptions{Multiline: true}.Format(a.message)
}

// headed is any answer with a header.
type headed interface {
	proto.Message
	GetHeader() *pb.ResponseHeader
}

// normalise checks and then removes what belongs to one cluster alone: its ids
// and its raft term. Everything else must be the same, the revision above all.
func (a answer) normalise() (answer, error) {
	if a.message == nil {
		return a, nil
	}
	m := proto.Clone(a.message)
	if h, ok := m.(headed); ok {
		header := h.GetHeader()
		if header.GetClusterId() == 0 || header.GetMemberId() == 0 || header.GetRaftTerm() == 0 {
			return a, fmt.Errorf("a header without cluster, member or term: %v", header)
		}
		header.ClusterId, header.MemberId, header.RaftTerm = 0, 0, 0
	}
	switch m := m.(type) {
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(m.Keys, slices.Compare) // etcd keeps them in a map
	case *pb.LeaseLeasesResponse:
		// By remaining time, which is equal for leases granted together.
		slices.SortFunc(m.Leases, func(a, b *pb.LeaseStatus) int { return int(a.ID - b.ID) })
	}
	return answer{message: m}, nil
}

// ttlTolerance is how far two servers' remaining times may be apart, in
// seconds: they are asked one after the other.
const ttlTolerance = 3

// forgiveClock makes remaining times equal that differ by less than the
// tolerance.
func forgiveClock(a, b proto.Message) {
	left, ok1 := a.(*pb.LeaseTimeToLiveResponse)
	right, ok2 := b.(*pb.LeaseTimeToLiveResponse)
	if ok1 && ok2 && left.TTL > 0 && right.TTL > 0 && max(left.TTL-right.TTL, right.TTL-left.TTL) <= ttlTolerance {
		right.TTL = left.TTL
	}
}

// sameAnswer compares two servers' answers to req and returns how they differ;
// empty when they do not.
func sameAnswer(req proto.Message, reference, subject answer) string {
	want, err := reference.normalise()
	if err != nil {
		return "the reference gives " + err.Error()
	}
	got, err := subject.normalise()
	if err != nil {
		return "the subject gives " + err.Error()
	}
	if want.message != nil && got.message != nil {
		forgiveClock(want.message, got.message)
		forgiveTies(req, want.message, got.message)
		if proto.Equal(want.message, got.message) {
			return ""
		}
	} else if want.message == nil && got.message == nil && want.code == got.code && want.text == got.text {
		return ""
	}
	return fmt.Sprintf("request:\n%s\nreference:\n%v\nsubject:\n%v", indent(prototext.Format(req)), want, got)
}

func indent(s string) string { return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ") }

// forgiveTies makes the order of keys that are equal in what they are sorted by
// the same on both sides: etcd's sort is not stable, so neither order is right.
// Of a sorted answer that a limit cuts, even which of the equal keys are in it
// is open: there the sort fields alone count.
func forgiveTies(req, a, b proto.Message) {
	switch req := req.(type) {
	case streamRange:
		forgiveTies(req.RangeRequest, a, b)
	case *pb.RangeRequest:
		left, ok1 := a.(*pb.RangeResponse)
		right, ok2 := b.(*pb.RangeResponse)
		if ok1 && ok2 {
			sortTies(req, left)
			sortTies(req, right)
		}
	case *pb.TxnRequest:
		left, ok1 := a.(*pb.TxnResponse)
		right, ok2 := b.(*pb.TxnResponse)
		if ok1 && ok2 {
			tiesOfTxn(req, left)
			tiesOfTxn(req, right)
		}
	}
}

func tiesOfTxn(req *pb.TxnRequest, resp *pb.TxnResponse) {
	ops := req.Failure
	if resp.Succeeded {
		ops = req.Success
	}
	for i, op := range ops {
		if i >= len(resp.Responses) {
			return
		}
		if r := resp.Responses[i].GetResponseRange(); r != nil && op.GetRequestRange() != nil {
			sortTies(op.GetRequestRange(), r)
		}
		if r := resp.Responses[i].GetResponseTxn(); r != nil && op.GetRequestTxn() != nil {
			tiesOfTxn(op.GetRequestTxn(), r)
		}
	}
}

func sortTies(req *pb.RangeRequest, resp *pb.RangeResponse) {
	if req.KeysOnly {
		// etcd 3.7 takes keys without values from its index, which does not
		// know their leases; before, it answered with them.
		for _, k := range resp.Kvs {
			k.Lease = 0
		}
	}
	if req.SortTarget == pb.RangeRequest_KEY {
		return
	}
	cut := req.Limit > 0 && resp.More
	for start := 0; start < len(resp.Kvs); {
		end := start + 1
		for end < len(resp.Kvs) && compareField(req.SortTarget, resp.Kvs[start], resp.Kvs[end]) == 0 {
			end++
		}
		slices.SortFunc(resp.Kvs[start:end], func(a, b *kv) int { return slices.Compare(a.Key, b.Key) })
		start = end
	}
	if cut {
		for i, k := range resp.Kvs {
			resp.Kvs[i] = sortFieldOnly(req.SortTarget, k)
		}
	}
}
