package codec

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// Tags of TxnRequest.
const (
	tagTxnCompare = 1<<3 | bytesType
	tagTxnSuccess = 2<<3 | bytesType
	tagTxnFailure = 3<<3 | bytesType
)

func sizeTxnRequest(m *pb.TxnRequest) int {
	if m == nil {
		return 0
	}
	return sizeMessages(m.Compare, sizeCompare) + sizeMessages(m.Success, sizeRequestOp) + sizeMessages(m.Failure, sizeRequestOp) +
		sizeUnknown(m.ProtoReflect())
}

func writeTxnRequest(b []byte, m *pb.TxnRequest) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeMessages(b, tagTxnFailure, m.Failure, writeRequestOp)
	b = writeMessages(b, tagTxnSuccess, m.Success, writeRequestOp)
	return writeMessages(b, tagTxnCompare, m.Compare, writeCompare)
}

func readTxnRequest(m *pb.TxnRequest, r reader) bool {
	if r.depth++; r.depth > depthMax {
		return false
	}
	for {
		switch r.next() {
		case tagTxnCompare:
			m.Compare = readList(&r, readCompare)
		case tagTxnSuccess:
			m.Success = readOps(&r, readRequestOp)
		case tagTxnFailure:
			m.Failure = readOps(&r, readRequestOp)
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

// Tags of TxnResponse.
const (
	tagSucceeded = 2<<3 | varintType
	tagResponses = 3<<3 | bytesType
)

func sizeTxnResponse(m *pb.TxnResponse) int {
	if m == nil {
		return 0
	}
	return sizeMessage(m.Header, sizeHeader) + sizeBool(m.Succeeded) + sizeMessages(m.Responses, sizeResponseOp) +
		sizeUnknown(m.ProtoReflect())
}

func writeTxnResponse(b []byte, m *pb.TxnResponse) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeMessages(b, tagResponses, m.Responses, writeResponseOp)
	b = writeBool(b, tagSucceeded, m.Succeeded)
	return writeMessage(b, tagHeader, m.Header, writeHeader)
}

func readTxnResponse(m *pb.TxnResponse, r reader) bool {
	if r.depth++; r.depth > depthMax {
		return false
	}
	for {
		switch r.next() {
		case tagHeader:
			m.Header = readMessage(&r, readHeader)
		case tagSucceeded:
			m.Succeeded = r.bool()
		case tagResponses:
			m.Responses = readOps(&r, readResponseOp)
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

// readOps is readList for operations, whose kinds are of different sizes.
func readOps[T any](r *reader, read func(reader) (*T, bool)) []*T {
	r.share()
	list := make([]*T, r.count())
	for i := range list {
		if i > 0 && len(r.b) > 0 {
			r.b = r.b[1:] // the tag, as count has seen
		}
		op, ok := read(r.nested())
		if !ok {
			r.spoil()
			break
		}
		list[i] = op
	}
	return list
}
