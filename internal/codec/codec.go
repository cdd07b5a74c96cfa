package codec

import (
	"fmt"
	"slices"
	"unicode/utf8"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// cold is the size of a message that has to be left to protobuf.
const cold = -1

// Size returns the length of m's encoding.
func Size(m proto.Message) int {
	if n := size(m); n != cold {
		return n
	}
	return proto.Size(m)
}

// Append appends the encoding of m to b. It fails, as protobuf does, when a string of m is not UTF-8; b is then returned
// as it was.
func Append(b []byte, m proto.Message) ([]byte, error) { return AppendSized(b, m, Size(m)) }

// AppendSized is Append for a caller that has asked for the size of m already, and has not changed m since.
func AppendSized(b []byte, m proto.Message, bytes int) ([]byte, error) {
	start := len(b)
	b = slices.Grow(b, bytes)
	rest, hot := write(b[start:start+bytes], m)
	if !hot {
		out, err := proto.MarshalOptions{}.MarshalAppend(b, m)
		if err != nil {
			return b, err
		}
		return out, nil
	}
	if len(rest) > 0 {
		panic(fmt.Sprintf("codec: %T was changed while it was encoded: %d of %d bytes are left", m, len(rest), bytes))
	}
	return b[:start+bytes], nil
}

// Unmarshal decodes b into m, whatever m held before. Nothing of b is kept.
func Unmarshal(b []byte, m proto.Message) error {
	if read(m, reader{b: b}) {
		return nil
	}
	return proto.Unmarshal(b, m)
}

// UnmarshalOwned is Unmarshal for bytes that the caller gives away: as long as m or a field of it is used, nobody may
// write to b. exact says that b is the encoding that Append gives for m; if it is false, it may still be.
func UnmarshalOwned(b []byte, m proto.Message) (exact bool, err error) {
	if read(m, reader{b: b, owned: true}) {
		return true, nil
	}
	return false, proto.Unmarshal(b, m)
}

// size returns the size of a hot message, or cold.
func size(m proto.Message) int {
	switch m := m.(type) {
	case *pb.PutRequest:
		return sizePutRequest(m)
	case *pb.RangeRequest:
		return sizeRangeRequest(m)
	case *pb.DeleteRangeRequest:
		return sizeDeleteRangeRequest(m)
	case *pb.TxnRequest:
		return sizeTxnRequest(m)
	case *pb.LeaseGrantRequest:
		return sizeLeaseGrantRequest(m)
	case *pb.LeaseRevokeRequest:
		return sizeLeaseRevokeRequest(m)
	case *pb.LeaseKeepAliveRequest:
		return sizeLeaseKeepAliveRequest(m)
	case *pb.WatchRequest:
		return sizeWatchRequest(m)
	default:
		return sizeAnswer(m)
	}
}

// sizeAnswer is size for what servers send.
func sizeAnswer(m proto.Message) int {
	switch m := m.(type) {
	case *pb.PutResponse:
		return sizePutResponse(m)
	case *pb.RangeResponse:
		return sizeRangeResponse(m)
	case *pb.DeleteRangeResponse:
		return sizeDeleteRangeResponse(m)
	case *pb.TxnResponse:
		return sizeTxnResponse(m)
	case *pb.LeaseGrantResponse:
		return sizeLeaseGrantResponse(m)
	case *pb.LeaseRevokeResponse:
		return sizeLeaseRevokeResponse(m)
	case *pb.LeaseKeepAliveResponse:
		return sizeLeaseKeepAliveResponse(m)
	case *pb.WatchResponse:
		return sizeWatchResponse(m)
	case *pb.ResponseHeader:
		return sizeHeader(m)
	case *mvccpb.KeyValue:
		return sizeKeyValue(m)
	case *mvccpb.Event:
		return sizeEvent(m)
	default:
		return cold
	}
}

// write writes a hot message at the end of b and returns b without it.
func write(b []byte, m proto.Message) (rest []byte, hot bool) {
	switch m := m.(type) {
	case *pb.PutRequest:
		return writePutRequest(b, m), true
	case *pb.RangeRequest:
		return writeRangeRequest(b, m), true
	case *pb.DeleteRangeRequest:
		return writeDeleteRangeRequest(b, m), true
	case *pb.TxnRequest:
		return writeTxnRequest(b, m), true
	case *pb.LeaseGrantRequest:
		return writeLeaseGrantRequest(b, m), true
	case *pb.LeaseRevokeRequest:
		return writeLeaseRevokeRequest(b, m), true
	case *pb.LeaseKeepAliveRequest:
		return writeLeaseKeepAliveRequest(b, m), true
	case *pb.WatchRequest:
		return writeWatchRequest(b, m), true
	default:
		return writeAnswer(b, m)
	}
}

// writeAnswer is write for what servers send.
func writeAnswer(b []byte, m proto.Message) (rest []byte, hot bool) {
	switch m := m.(type) {
	case *pb.PutResponse:
		return writePutResponse(b, m), true
	case *pb.RangeResponse:
		return writeRangeResponse(b, m), true
	case *pb.DeleteRangeResponse:
		return writeDeleteRangeResponse(b, m), true
	case *pb.TxnResponse:
		return writeTxnResponse(b, m), true
	case *pb.LeaseGrantResponse:
		if !utf8.ValidString(m.GetError()) {
			return b, false // which protobuf refuses
		}
		return writeLeaseGrantResponse(b, m), true
	case *pb.LeaseRevokeResponse:
		return writeLeaseRevokeResponse(b, m), true
	case *pb.LeaseKeepAliveResponse:
		return writeLeaseKeepAliveResponse(b, m), true
	case *pb.WatchResponse:
		if !utf8.ValidString(m.GetCancelReason()) {
			return b, false
		}
		return writeWatchResponse(b, m), true
	case *pb.ResponseHeader:
		return writeHeader(b, m), true
	case *mvccpb.KeyValue:
		return writeKeyValue(b, m), true
	case *mvccpb.Event:
		return writeEvent(b, m), true
	default:
		return b, false
	}
}

// read decodes a hot message. It returns false for one that is not, and for an encoding that is not protobuf's own: m may
// then hold a part of it.
func read(m proto.Message, r reader) bool {
	proto.Reset(m)
	switch m := m.(type) {
	case *pb.PutRequest:
		return readPutRequest(m, r)
	case *pb.RangeRequest:
		return readRangeRequest(m, r)
	case *pb.DeleteRangeRequest:
		return readDeleteRangeRequest(m, r)
	case *pb.TxnRequest:
		return readTxnRequest(m, r)
	case *pb.LeaseGrantRequest:
		return readLeaseGrantRequest(m, r)
	case *pb.LeaseRevokeRequest:
		return readLeaseRevokeRequest(m, r)
	case *pb.LeaseKeepAliveRequest:
		return readLeaseKeepAliveRequest(m, r)
	case *pb.WatchRequest:
		return readWatchRequest(m, r)
	default:
		return readAnswer(m, r)
	}
}

// readAnswer is read for what servers send.
func readAnswer(m proto.Message, r reader) bool {
	r.owned = false // whoever keeps a part of an answer shall not keep the whole
	switch m := m.(type) {
	case *pb.PutResponse:
		return readPutResponse(m, r)
	case *pb.RangeResponse:
		return readRangeResponse(m, r)
	case *pb.DeleteRangeResponse:
		return readDeleteRangeResponse(m, r)
	case *pb.TxnResponse:
		return readTxnResponse(m, r)
	case *pb.LeaseGrantResponse:
		return readLeaseGrantResponse(m, r)
	case *pb.LeaseRevokeResponse:
		return readLeaseRevokeResponse(m, r)
	case *pb.LeaseKeepAliveResponse:
		return readLeaseKeepAliveResponse(m, r)
	case *pb.WatchResponse:
		return readWatchResponse(m, r)
	case *pb.ResponseHeader:
		return readHeader(m, r)
	case *mvccpb.KeyValue:
		return readKeyValue(m, r)
	case *mvccpb.Event:
		return readEvent(m, new(mvccpb.KeyValue), r)
	default:
		return false
	}
}
