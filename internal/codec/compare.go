package codec

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// Tags of Compare. That of field 64 has a second byte, and stands in front of what is compared with: protobuf for Go
// writes the fields of which there is one at most behind the others.
const (
	tagCompareResult  = 1<<3 | varintType
	tagCompareTarget  = 2<<3 | varintType
	tagCompareKey     = 3<<3 | bytesType
	tagCompareVersion = 4<<3 | varintType
	tagCompareCreate  = 5<<3 | varintType
	tagCompareMod     = 6<<3 | varintType
	tagCompareValue   = 7<<3 | bytesType
	tagCompareLease   = 8<<3 | varintType
	tagCompareEnd     = 64<<3&0x7f | bytesType | 0x80
	tagCompareEnd2    = 64 << 3 >> 7
)

func sizeCompare(m *pb.Compare) int {
	if m == nil {
		return 0
	}
	n := sizeInt(m.Result) + sizeInt(m.Target) + sizeBytes(m.Key) + sizeOperand(m) + sizeBytes(m.RangeEnd) +
		sizeUnknown(m.ProtoReflect())
	if len(m.RangeEnd) > 0 {
		n++ // the second byte of the tag
	}
	return n
}

// sizeOperand is the size of what a key is compared with, which is not left out when it is zero.
func sizeOperand(m *pb.Compare) int {
	if v, ok := m.TargetUnion.(*pb.Compare_Value); ok {
		if v == nil {
			return 0
		}
		return sizeLength(len(v.Value))
	}
	if tag, v := operand(m); tag != 0 {
		return 1 + sizeVarint(uint64(v))
	}
	return 0
}

// operand returns the number with which a key is compared, and its tag, which is 0 if there is none.
func operand(m *pb.Compare) (tag byte, v int64) {
	switch u := m.TargetUnion.(type) {
	case *pb.Compare_Version:
		if u != nil {
			return tagCompareVersion, u.Version
		}
	case *pb.Compare_CreateRevision:
		if u != nil {
			return tagCompareCreate, u.CreateRevision
		}
	case *pb.Compare_ModRevision:
		if u != nil {
			return tagCompareMod, u.ModRevision
		}
	case *pb.Compare_Lease:
		if u != nil {
			return tagCompareLease, u.Lease
		}
	}
	return 0, 0
}

func writeCompare(b []byte, m *pb.Compare) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	if v, ok := m.TargetUnion.(*pb.Compare_Value); ok && v != nil {
		b = writeAll(b, tagCompareValue, v.Value)
	} else if tag, v := operand(m); tag != 0 {
		b = writeTag(writeVarint(b, uint64(v)), tag)
	}
	if len(m.RangeEnd) > 0 {
		b = writeTag(writeAll(b, tagCompareEnd2, m.RangeEnd), tagCompareEnd)
	}
	b = writeBytes(b, tagCompareKey, m.Key)
	b = writeInt(b, tagCompareTarget, m.Target)
	return writeInt(b, tagCompareResult, m.Result)
}

func readCompare(m *pb.Compare, r reader) bool {
	for {
		tag := r.next()
		switch tag {
		case tagCompareResult:
			m.Result = pb.Compare_CompareResult(r.enum())
		case tagCompareTarget:
			m.Target = pb.Compare_CompareTarget(r.enum())
		case tagCompareKey:
			m.Key = r.bytes()
		case tagCompareVersion, tagCompareCreate, tagCompareMod, tagCompareValue, tagCompareLease:
			r.expect(m.TargetUnion == nil) // of several, protobuf takes the last
			readOperand(m, tag, &r)
		case tagCompareEnd:
			r.expect(r.varint() == tagCompareEnd2 && m.RangeEnd == nil && m.TargetUnion == nil)
			m.RangeEnd = r.bytes()
			r.last = tagCompareKey // what is compared with may follow
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

func readOperand(m *pb.Compare, tag byte, r *reader) {
	switch tag {
	case tagCompareVersion:
		m.TargetUnion = &pb.Compare_Version{Version: int64(r.varint())}
	case tagCompareCreate:
		m.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: int64(r.varint())}
	case tagCompareMod:
		m.TargetUnion = &pb.Compare_ModRevision{ModRevision: int64(r.varint())}
	case tagCompareValue:
		m.TargetUnion = &pb.Compare_Value{Value: r.anyBytes()}
	case tagCompareLease:
		m.TargetUnion = &pb.Compare_Lease{Lease: int64(r.varint())}
	}
}
