package codec

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// Tags of the requests about leases. Those with one field have its tag: tagLeaseID.
const (
	tagLeaseID    = 1<<3 | varintType
	tagGrantTTL   = 1<<3 | varintType
	tagGrantID    = 2<<3 | varintType
	tagAnswerID   = 2<<3 | varintType
	tagAnswerTTL  = 3<<3 | varintType
	tagGrantError = 4<<3 | bytesType
)

func sizeLeaseGrantRequest(m *pb.LeaseGrantRequest) int {
	if m == nil {
		return 0
	}
	return sizeInt(m.TTL) + sizeInt(m.ID) + sizeUnknown(m.ProtoReflect())
}

func writeLeaseGrantRequest(b []byte, m *pb.LeaseGrantRequest) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	return writeInt(writeInt(b, tagGrantID, m.ID), tagGrantTTL, m.TTL)
}

func readLeaseGrantRequest(m *pb.LeaseGrantRequest, r reader) bool {
	for {
		switch r.next() {
		case tagGrantTTL:
			m.TTL = r.int()
		case tagGrantID:
			m.ID = r.int()
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

func sizeLeaseGrantResponse(m *pb.LeaseGrantResponse) int {
	if m == nil {
		return 0
	}
	return sizeMessage(m.Header, sizeHeader) + sizeInt(m.ID) + sizeInt(m.TTL) + sizeBytes(m.Error) + sizeUnknown(m.ProtoReflect())
}

func writeLeaseGrantResponse(b []byte, m *pb.LeaseGrantResponse) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeBytes(b, tagGrantError, m.Error)
	b = writeInt(writeInt(b, tagAnswerTTL, m.TTL), tagAnswerID, m.ID)
	return writeMessage(b, tagHeader, m.Header, writeHeader)
}

func readLeaseGrantResponse(m *pb.LeaseGrantResponse, r reader) bool {
	for {
		switch r.next() {
		case tagHeader:
			m.Header = readMessage(&r, readHeader)
		case tagAnswerID:
			m.ID = r.int()
		case tagAnswerTTL:
			m.TTL = r.int()
		case tagGrantError:
			m.Error = r.text()
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

func sizeLeaseRevokeRequest(m *pb.LeaseRevokeRequest) int {
	if m == nil {
		return 0
	}
	return sizeInt(m.ID) + sizeUnknown(m.ProtoReflect())
}

func writeLeaseRevokeRequest(b []byte, m *pb.LeaseRevokeRequest) []byte {
	if m == nil {
		return b
	}
	return writeInt(writeUnknown(b, m.ProtoReflect()), tagLeaseID, m.ID)
}

func readLeaseRevokeRequest(m *pb.LeaseRevokeRequest, r reader) bool {
	return r.readID(&m.ID)
}

// readID reads a message with an id for its only field.
func (r *reader) readID(id *int64) bool {
	if tag := r.next(); tag == tagLeaseID {
		*id = r.int()
	} else {
		r.expect(tag == 0)
	}
	return r.end()
}

func sizeLeaseRevokeResponse(m *pb.LeaseRevokeResponse) int {
	if m == nil {
		return 0
	}
	return sizeMessage(m.Header, sizeHeader) + sizeUnknown(m.ProtoReflect())
}

func writeLeaseRevokeResponse(b []byte, m *pb.LeaseRevokeResponse) []byte {
	if m == nil {
		return b
	}
	return writeMessage(writeUnknown(b, m.ProtoReflect()), tagHeader, m.Header, writeHeader)
}

func readLeaseRevokeResponse(m *pb.LeaseRevokeResponse, r reader) bool {
	if tag := r.next(); tag == tagHeader {
		m.Header = readMessage(&r, readHeader)
	} else {
		r.expect(tag == 0)
	}
	return r.end()
}

func sizeLeaseKeepAliveRequest(m *pb.LeaseKeepAliveRequest) int {
	if m == nil {
		return 0
	}
	return sizeInt(m.ID) + sizeUnknown(m.ProtoReflect())
}

func writeLeaseKeepAliveRequest(b []byte, m *pb.LeaseKeepAliveRequest) []byte {
	if m == nil {
		return b
	}
	return writeInt(writeUnknown(b, m.ProtoReflect()), tagLeaseID, m.ID)
}

func readLeaseKeepAliveRequest(m *pb.LeaseKeepAliveRequest, r reader) bool {
	return r.readID(&m.ID)
}

func sizeLeaseKeepAliveResponse(m *pb.LeaseKeepAliveResponse) int {
	if m == nil {
		return 0
	}
	return sizeMessage(m.Header, sizeHeader) + sizeInt(m.ID) + sizeInt(m.TTL) + sizeUnknown(m.ProtoReflect())
}

func writeLeaseKeepAliveResponse(b []byte, m *pb.LeaseKeepAliveResponse) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeInt(writeInt(b, tagAnswerTTL, m.TTL), tagAnswerID, m.ID)
	return writeMessage(b, tagHeader, m.Header, writeHeader)
}

func readLeaseKeepAliveResponse(m *pb.LeaseKeepAliveResponse, r reader) bool {
	for {
		switch r.next() {
		case tagHeader:
			m.Header = readMessage(&r, readHeader)
		case tagAnswerID:
			m.ID = r.int()
		case tagAnswerTTL:
			m.TTL = r.int()
		case 0:
			return r.end()
		default:
			return false
		}
	}
}
