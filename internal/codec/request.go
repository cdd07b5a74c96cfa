package codec

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// Tags of PutRequest.
const (
	tagPutKey         = 1<<3 | bytesType
	tagPutValue       = 2<<3 | bytesType
	tagPutLease       = 3<<3 | varintType
	tagPutPrev        = 4<<3 | varintType
	tagPutIgnoreValue = 5<<3 | varintType
	tagPutIgnoreLease = 6<<3 | varintType
)

func sizePutRequest(m *pb.PutRequest) int {
	if m == nil {
		return 0
	}
	return sizeBytes(m.Key) + sizeBytes(m.Value) + sizeInt(m.Lease) + sizeBool(m.PrevKv) + sizeBool(m.IgnoreValue) +
		sizeBool(m.IgnoreLease) + sizeUnknown(m.ProtoReflect())
}

func writePutRequest(b []byte, m *pb.PutRequest) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeBool(b, tagPutIgnoreLease, m.IgnoreLease)
	b = writeBool(b, tagPutIgnoreValue, m.IgnoreValue)
	b = writeBool(b, tagPutPrev, m.PrevKv)
	b = writeInt(b, tagPutLease, m.Lease)
	b = writeBytes(b, tagPutValue, m.Value)
	return writeBytes(b, tagPutKey, m.Key)
}

func readPutRequest(m *pb.PutRequest, r reader) bool {
	r.apart = true
	for {
		switch r.next() {
		case tagPutKey:
			m.Key = r.bytes()
		case tagPutValue:
			m.Value = r.bytes()
		case tagPutLease:
			m.Lease = r.int()
		case tagPutPrev:
			m.PrevKv = r.bool()
		case tagPutIgnoreValue:
			m.IgnoreValue = r.bool()
		case tagPutIgnoreLease:
			m.IgnoreLease = r.bool()
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

// Tags of RangeRequest.
const (
	tagRangeKey          = 1<<3 | bytesType
	tagRangeEnd          = 2<<3 | bytesType
	tagRangeLimit        = 3<<3 | varintType
	tagRangeRevision     = 4<<3 | varintType
	tagRangeOrder        = 5<<3 | varintType
	tagRangeTarget       = 6<<3 | varintType
	tagRangeSerializable = 7<<3 | varintType
	tagRangeKeysOnly     = 8<<3 | varintType
	tagRangeCountOnly    = 9<<3 | varintType
	tagRangeMinMod       = 10<<3 | varintType
	tagRangeMaxMod       = 11<<3 | varintType
	tagRangeMinCreate    = 12<<3 | varintType
	tagRangeMaxCreate    = 13<<3 | varintType
)

func sizeRangeRequest(m *pb.RangeRequest) int {
	if m == nil {
		return 0
	}
	return sizeBytes(m.Key) + sizeBytes(m.RangeEnd) + sizeInt(m.Limit) + sizeInt(m.Revision) + sizeInt(m.SortOrder) +
		sizeInt(m.SortTarget) + sizeBool(m.Serializable) + sizeBool(m.KeysOnly) + sizeBool(m.CountOnly) +
		sizeInt(m.MinModRevision) + sizeInt(m.MaxModRevision) + sizeInt(m.MinCreateRevision) + sizeInt(m.MaxCreateRevision) +
		sizeUnknown(m.ProtoReflect())
}

func writeRangeRequest(b []byte, m *pb.RangeRequest) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeInt(b, tagRangeMaxCreate, m.MaxCreateRevision)
	b = writeInt(b, tagRangeMinCreate, m.MinCreateRevision)
	b = writeInt(b, tagRangeMaxMod, m.MaxModRevision)
	b = writeInt(b, tagRangeMinMod, m.MinModRevision)
	b = writeBool(b, tagRangeCountOnly, m.CountOnly)
	b = writeBool(b, tagRangeKeysOnly, m.KeysOnly)
	b = writeBool(b, tagRangeSerializable, m.Serializable)
	b = writeInt(b, tagRangeTarget, m.SortTarget)
	b = writeInt(b, tagRangeOrder, m.SortOrder)
	b = writeInt(b, tagRangeRevision, m.Revision)
	b = writeInt(b, tagRangeLimit, m.Limit)
	b = writeBytes(b, tagRangeEnd, m.RangeEnd)
	return writeBytes(b, tagRangeKey, m.Key)
}

func readRangeRequest(m *pb.RangeRequest, r reader) bool {
	for {
		switch r.next() {
		case tagRangeKey:
			m.Key = r.bytes()
		case tagRangeEnd:
			m.RangeEnd = r.bytes()
		case tagRangeLimit:
			m.Limit = r.int()
		case tagRangeRevision:
			m.Revision = r.int()
		case tagRangeOrder:
			m.SortOrder = pb.RangeRequest_SortOrder(r.enum())
		case tagRangeTarget:
			m.SortTarget = pb.RangeRequest_SortTarget(r.enum())
		case tagRangeSerializable:
			m.Serializable = r.bool()
		case tagRangeKeysOnly:
			m.KeysOnly = r.bool()
		case tagRangeCountOnly:
			m.CountOnly = r.bool()
		case tagRangeMinMod:
			m.MinModRevision = r.int()
		case tagRangeMaxMod:
			m.MaxModRevision = r.int()
		case tagRangeMinCreate:
			m.MinCreateRevision = r.int()
		case tagRangeMaxCreate:
			m.MaxCreateRevision = r.int()
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

// Tags of DeleteRangeRequest.
const (
	tagDeleteKey  = 1<<3 | bytesType
	tagDeleteEnd  = 2<<3 | bytesType
	tagDeletePrev = 3<<3 | varintType
)

func sizeDeleteRangeRequest(m *pb.DeleteRangeRequest) int {
	if m == nil {
		return 0
	}
	return sizeBytes(m.Key) + sizeBytes(m.RangeEnd) + sizeBool(m.PrevKv) + sizeUnknown(m.ProtoReflect())
}

func writeDeleteRangeRequest(b []byte, m *pb.DeleteRangeRequest) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeBool(b, tagDeletePrev, m.PrevKv)
	b = writeBytes(b, tagDeleteEnd, m.RangeEnd)
	return writeBytes(b, tagDeleteKey, m.Key)
}

func readDeleteRangeRequest(m *pb.DeleteRangeRequest, r reader) bool {
	for {
		switch r.next() {
		case tagDeleteKey:
			m.Key = r.bytes()
		case tagDeleteEnd:
			m.RangeEnd = r.bytes()
		case tagDeletePrev:
			m.PrevKv = r.bool()
		case 0:
			return r.end()
		default:
			return false
		}
	}
}
