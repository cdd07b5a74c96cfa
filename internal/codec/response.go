package codec

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// tagHeader is the tag of the header in every answer.
const tagHeader = 1<<3 | bytesType

// tagPutPrevKv is the other tag of PutResponse.
const tagPutPrevKv = 2<<3 | bytesType

func sizePutResponse(m *pb.PutResponse) int {
	if m == nil {
		return 0
	}
	return sizeMessage(m.Header, sizeHeader) + sizeMessage(m.PrevKv, sizeKeyValue) + sizeUnknown(m.ProtoReflect())
}

func writePutResponse(b []byte, m *pb.PutResponse) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeMessage(b, tagPutPrevKv, m.PrevKv, writeKeyValue)
	return writeMessage(b, tagHeader, m.Header, writeHeader)
}

func readPutResponse(m *pb.PutResponse, r reader) bool {
	for {
		switch r.next() {
		case tagHeader:
			m.Header = readMessage(&r, readHeader)
		case tagPutPrevKv:
			m.PrevKv = readMessage(&r, readKeyValue)
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

// Tags of RangeResponse.
const (
	tagKvs   = 2<<3 | bytesType
	tagMore  = 3<<3 | varintType
	tagCount = 4<<3 | varintType
)

func sizeRangeResponse(m *pb.RangeResponse) int {
	if m == nil {
		return 0
	}
	return sizeMessage(m.Header, sizeHeader) + sizeMessages(m.Kvs, sizeKeyValue) + sizeBool(m.More) + sizeInt(m.Count) +
		sizeUnknown(m.ProtoReflect())
}

func writeRangeResponse(b []byte, m *pb.RangeResponse) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeInt(b, tagCount, m.Count)
	b = writeBool(b, tagMore, m.More)
	b = writeMessages(b, tagKvs, m.Kvs, writeKeyValue)
	return writeMessage(b, tagHeader, m.Header, writeHeader)
}

func readRangeResponse(m *pb.RangeResponse, r reader) bool {
	for {
		switch r.next() {
		case tagHeader:
			m.Header = readMessage(&r, readHeader)
		case tagKvs:
			m.Kvs = readList(&r, readKeyValue)
		case tagMore:
			m.More = r.bool()
		case tagCount:
			m.Count = r.int()
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

// Tags of DeleteRangeResponse.
const (
	tagDeleted = 2<<3 | varintType
	tagPrevKvs = 3<<3 | bytesType
)

func sizeDeleteRangeResponse(m *pb.DeleteRangeResponse) int {
	if m == nil {
		return 0
	}
	return sizeMessage(m.Header, sizeHeader) + sizeInt(m.Deleted) + sizeMessages(m.PrevKvs, sizeKeyValue) +
		sizeUnknown(m.ProtoReflect())
}

func writeDeleteRangeResponse(b []byte, m *pb.DeleteRangeResponse) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeMessages(b, tagPrevKvs, m.PrevKvs, writeKeyValue)
	b = writeInt(b, tagDeleted, m.Deleted)
	return writeMessage(b, tagHeader, m.Header, writeHeader)
}

func readDeleteRangeResponse(m *pb.DeleteRangeResponse, r reader) bool {
	for {
		switch r.next() {
		case tagHeader:
			m.Header = readMessage(&r, readHeader)
		case tagDeleted:
			m.Deleted = r.int()
		case tagPrevKvs:
			m.PrevKvs = readList(&r, readKeyValue)
		case 0:
			return r.end()
		default:
			return false
		}
	}
}
