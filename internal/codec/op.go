package codec

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// Tags of RequestOp and of ResponseOp: one of them, or none.
const (
	tagOpRange  = 1<<3 | bytesType
	tagOpPut    = 2<<3 | bytesType
	tagOpDelete = 3<<3 | bytesType
	tagOpTxn    = 4<<3 | bytesType
)

func sizeRequestOp(m *pb.RequestOp) int {
	if m == nil {
		return 0
	}
	n := sizeUnknown(m.ProtoReflect())
	switch u := m.Request.(type) {
	case *pb.RequestOp_RequestRange:
		if u != nil {
			n += sizeLength(sizeRangeRequest(u.RequestRange))
		}
	case *pb.RequestOp_RequestPut:
		if u != nil {
			n += sizeLength(sizePutRequest(u.RequestPut))
		}
	case *pb.RequestOp_RequestDeleteRange:
		if u != nil {
			n += sizeLength(sizeDeleteRangeRequest(u.RequestDeleteRange))
		}
	case *pb.RequestOp_RequestTxn:
		if u != nil {
			n += sizeLength(sizeTxnRequest(u.RequestTxn))
		}
	}
	return n
}

func writeRequestOp(b []byte, m *pb.RequestOp) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	switch u := m.Request.(type) {
	case *pb.RequestOp_RequestRange:
		if u != nil {
			return writeNested(b, tagOpRange, u.RequestRange, writeRangeRequest)
		}
	case *pb.RequestOp_RequestPut:
		if u != nil {
			return writeNested(b, tagOpPut, u.RequestPut, writePutRequest)
		}
	case *pb.RequestOp_RequestDeleteRange:
		if u != nil {
			return writeNested(b, tagOpDelete, u.RequestDeleteRange, writeDeleteRangeRequest)
		}
	case *pb.RequestOp_RequestTxn:
		if u != nil {
			return writeNested(b, tagOpTxn, u.RequestTxn, writeTxnRequest)
		}
	}
	return b
}

// readRequestOp allocates an operation with all that belongs to it.
func readRequestOp(r reader) (*pb.RequestOp, bool) {
	switch r.next() {
	case tagOpRange:
		o := new(struct {
			op   pb.RequestOp
			kind pb.RequestOp_RequestRange
			body pb.RangeRequest
		})
		o.op.Request, o.kind.RequestRange = &o.kind, &o.body
		r.expect(readRangeRequest(&o.body, r.nested()))
		return &o.op, r.end()
	case tagOpPut:
		o := new(struct {
			op   pb.RequestOp
			kind pb.RequestOp_RequestPut
			body pb.PutRequest
		})
		o.op.Request, o.kind.RequestPut = &o.kind, &o.body
		r.expect(readPutRequest(&o.body, r.nested()))
		return &o.op, r.end()
	case tagOpDelete:
		o := new(struct {
			op   pb.RequestOp
			kind pb.RequestOp_RequestDeleteRange
			body pb.DeleteRangeRequest
		})
		o.op.Request, o.kind.RequestDeleteRange = &o.kind, &o.body
		r.expect(readDeleteRangeRequest(&o.body, r.nested()))
		return &o.op, r.end()
	case tagOpTxn:
		o := new(struct {
			op   pb.RequestOp
			kind pb.RequestOp_RequestTxn
			body pb.TxnRequest
		})
		o.op.Request, o.kind.RequestTxn = &o.kind, &o.body
		r.expect(readTxnRequest(&o.body, r.nested()))
		return &o.op, r.end()
	case 0:
		return new(pb.RequestOp), r.end()
	default:
		return nil, false
	}
}

func sizeResponseOp(m *pb.ResponseOp) int {
	if m == nil {
		return 0
	}
	n := sizeUnknown(m.ProtoReflect())
	switch u := m.Response.(type) {
	case *pb.ResponseOp_ResponseRange:
		if u != nil {
			n += sizeLength(sizeRangeResponse(u.ResponseRange))
		}
	case *pb.ResponseOp_ResponsePut:
		if u != nil {
			n += sizeLength(sizePutResponse(u.ResponsePut))
		}
	case *pb.ResponseOp_ResponseDeleteRange:
		if u != nil {
			n += sizeLength(sizeDeleteRangeResponse(u.ResponseDeleteRange))
		}
	case *pb.ResponseOp_ResponseTxn:
		if u != nil {
			n += sizeLength(sizeTxnResponse(u.ResponseTxn))
		}
	}
	return n
}

func writeResponseOp(b []byte, m *pb.ResponseOp) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	switch u := m.Response.(type) {
	case *pb.ResponseOp_ResponseRange:
		if u != nil {
			return writeNested(b, tagOpRange, u.ResponseRange, writeRangeResponse)
		}
	case *pb.ResponseOp_ResponsePut:
		if u != nil {
			return writeNested(b, tagOpPut, u.ResponsePut, writePutResponse)
		}
	case *pb.ResponseOp_ResponseDeleteRange:
		if u != nil {
			return writeNested(b, tagOpDelete, u.ResponseDeleteRange, writeDeleteRangeResponse)
		}
	case *pb.ResponseOp_ResponseTxn:
		if u != nil {
			return writeNested(b, tagOpTxn, u.ResponseTxn, writeTxnResponse)
		}
	}
	return b
}

// readResponseOp allocates an answer with all that belongs to it.
func readResponseOp(r reader) (*pb.ResponseOp, bool) {
	switch r.next() {
	case tagOpRange:
		o := new(struct {
			op   pb.ResponseOp
			kind pb.ResponseOp_ResponseRange
			body pb.RangeResponse
		})
		o.op.Response, o.kind.ResponseRange = &o.kind, &o.body
		r.expect(readRangeResponse(&o.body, r.nested()))
		return &o.op, r.end()
	case tagOpPut:
		o := new(struct {
			op   pb.ResponseOp
			kind pb.ResponseOp_ResponsePut
			body pb.PutResponse
		})
		o.op.Response, o.kind.ResponsePut = &o.kind, &o.body
		r.expect(readPutResponse(&o.body, r.nested()))
		return &o.op, r.end()
	case tagOpDelete:
		o := new(struct {
			op   pb.ResponseOp
			kind pb.ResponseOp_ResponseDeleteRange
			body pb.DeleteRangeResponse
		})
		o.op.Response, o.kind.ResponseDeleteRange = &o.kind, &o.body
		r.expect(readDeleteRangeResponse(&o.body, r.nested()))
		return &o.op, r.end()
	case tagOpTxn:
		o := new(struct {
			op   pb.ResponseOp
			kind pb.ResponseOp_ResponseTxn
			body pb.TxnResponse
		})
		o.op.Response, o.kind.ResponseTxn = &o.kind, &o.body
		r.expect(readTxnResponse(&o.body, r.nested()))
		return &o.op, r.end()
	case 0:
		return new(pb.ResponseOp), r.end()
	default:
		return nil, false
	}
}
