package codec

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Tags of KeyValue.
const (
	tagPairKey     = 1<<3 | bytesType
	tagPairCreate  = 2<<3 | varintType
	tagPairMod     = 3<<3 | varintType
	tagPairVersion = 4<<3 | varintType
	tagPairValue   = 5<<3 | bytesType
	tagPairLease   = 6<<3 | varintType
)

func sizeKeyValue(m *mvccpb.KeyValue) int {
	if m == nil {
		return 0
	}
	return sizeBytes(m.Key) + sizeInt(m.CreateRevision) + sizeInt(m.ModRevision) + sizeInt(m.Version) + sizeBytes(m.Value) +
		sizeInt(m.Lease) + sizeUnknown(m.ProtoReflect())
}

func writeKeyValue(b []byte, m *mvccpb.KeyValue) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeInt(b, tagPairLease, m.Lease)
	b = writeBytes(b, tagPairValue, m.Value)
	b = writeInt(b, tagPairVersion, m.Version)
	b = writeInt(b, tagPairMod, m.ModRevision)
	b = writeInt(b, tagPairCreate, m.CreateRevision)
	return writeBytes(b, tagPairKey, m.Key)
}

func readKeyValue(m *mvccpb.KeyValue, r reader) bool {
	for {
		switch r.next() {
		case tagPairKey:
			m.Key = r.bytes()
		case tagPairCreate:
			m.CreateRevision = r.int()
		case tagPairMod:
			m.ModRevision = r.int()
		case tagPairVersion:
			m.Version = r.int()
		case tagPairValue:
			m.Value = r.bytes()
		case tagPairLease:
			m.Lease = r.int()
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

// Tags of Event.
const (
	tagEventType = 1<<3 | varintType
	tagEventKv   = 2<<3 | bytesType
	tagEventPrev = 3<<3 | bytesType
)

func sizeEvent(m *mvccpb.Event) int {
	if m == nil {
		return 0
	}
	return sizeInt(m.Type) + sizeMessage(m.Kv, sizeKeyValue) + sizeMessage(m.PrevKv, sizeKeyValue) + sizeUnknown(m.ProtoReflect())
}

func writeEvent(b []byte, m *mvccpb.Event) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeMessage(b, tagEventPrev, m.PrevKv, writeKeyValue)
	b = writeMessage(b, tagEventKv, m.Kv, writeKeyValue)
	return writeInt(b, tagEventType, m.Type)
}

// readEvent reads an event, whose pair is there for it.
func readEvent(m *mvccpb.Event, pair *mvccpb.KeyValue, r reader) bool {
	for {
		switch r.next() {
		case tagEventType:
			m.Type = mvccpb.Event_EventType(r.enum())
		case tagEventKv:
			m.Kv = pair
			r.expect(readKeyValue(pair, r.nested()))
		case tagEventPrev:
			m.PrevKv = readMessage(&r, readKeyValue)
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

// Tags of ResponseHeader.
const (
	tagHeaderCluster  = 1<<3 | varintType
	tagHeaderMember   = 2<<3 | varintType
	tagHeaderRevision = 3<<3 | varintType
	tagHeaderTerm     = 4<<3 | varintType
)

func sizeHeader(m *pb.ResponseHeader) int {
	if m == nil {
		return 0
	}
	return sizeInt(m.ClusterId) + sizeInt(m.MemberId) + sizeInt(m.Revision) + sizeInt(m.RaftTerm) + sizeUnknown(m.ProtoReflect())
}

func writeHeader(b []byte, m *pb.ResponseHeader) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeInt(b, tagHeaderTerm, m.RaftTerm)
	b = writeInt(b, tagHeaderRevision, m.Revision)
	b = writeInt(b, tagHeaderMember, m.MemberId)
	return writeInt(b, tagHeaderCluster, m.ClusterId)
}

func readHeader(m *pb.ResponseHeader, r reader) bool {
	for {
		switch r.next() {
		case tagHeaderCluster:
			m.ClusterId = uint64(r.int())
		case tagHeaderMember:
			m.MemberId = uint64(r.int())
		case tagHeaderRevision:
			m.Revision = r.int()
		case tagHeaderTerm:
			m.RaftTerm = uint64(r.int())
		case 0:
			return r.end()
		default:
			return false
		}
	}
}
