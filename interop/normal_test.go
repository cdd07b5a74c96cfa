package interop_test

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// answer is what a server said to one request, in a form that can be compared.
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

// checkHeader finds a header in which what is a cluster's own is missing; that
// is taken out before answers are compared.
func (a answer) checkHeader() error {
	if h, ok := a.message.(headed); ok {
		header := h.GetHeader()
		if header.GetClusterId() == 0 || header.GetMemberId() == 0 || header.GetRaftTerm() == 0 {
			return fmt.Errorf("a header without cluster, member or term: %v", header)
		}
	}
	return nil
}

// sameAnswer compares two servers' answers to req and returns how they differ;
// empty when they do not.
func sameAnswer(req proto.Message, reference, subject answer) string {
	return masks{}.same(req, reference, subject)
}

func indent(s string) string { return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ") }
