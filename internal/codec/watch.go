package codec

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// Tags of WatchRequest: one of them, or none.
const (
	tagCreateRequest   = 1<<3 | bytesType
	tagCancelRequest   = 2<<3 | bytesType
	tagProgressRequest = 3<<3 | bytesType
)

func sizeWatchRequest(m *pb.WatchRequest) int {
	if m == nil {
		return 0
	}
	n := sizeUnknown(m.ProtoReflect())
	switch u := m.RequestUnion.(type) {
	case *pb.WatchRequest_CreateRequest:
		if u != nil {
			n += sizeLength(sizeWatchCreate(u.CreateRequest))
		}
	case *pb.WatchRequest_CancelRequest:
		if u != nil {
			n += sizeLength(sizeWatchCancel(u.CancelRequest))
		}
	case *pb.WatchRequest_ProgressRequest:
		if u != nil {
			n += sizeLength(sizeWatchProgress(u.ProgressRequest))
		}
	}
	return n
}

func writeWatchRequest(b []byte, m *pb.WatchRequest) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	switch u := m.RequestUnion.(type) {
	case *pb.WatchRequest_CreateRequest:
		if u != nil {
			return writeNested(b, tagCreateRequest, u.CreateRequest, writeWatchCreate)
		}
	case *pb.WatchRequest_CancelRequest:
		if u != nil {
			return writeNested(b, tagCancelRequest, u.CancelRequest, writeWatchCancel)
		}
	case *pb.WatchRequest_ProgressRequest:
		if u != nil {
			return writeNested(b, tagProgressRequest, u.ProgressRequest, writeWatchProgress)
		}
	}
	return b
}

func readWatchRequest(m *pb.WatchRequest, r reader) bool {
	switch r.next() {
	case tagCreateRequest:
		m.RequestUnion = &pb.WatchRequest_CreateRequest{CreateRequest: readMessage(&r, readWatchCreate)}
	case tagCancelRequest:
		m.RequestUnion = &pb.WatchRequest_CancelRequest{CancelRequest: readMessage(&r, readWatchCancel)}
	case tagProgressRequest:
		m.RequestUnion = &pb.WatchRequest_ProgressRequest{ProgressRequest: readMessage(&r, readWatchProgress)}
	case 0:
	default:
		return false
	}
	return r.end()
}

// Tags of WatchCreateRequest.
const (
	tagCreateKey      = 1<<3 | bytesType
	tagCreateEnd      = 2<<3 | bytesType
	tagCreateStart    = 3<<3 | varintType
	tagCreateProgress = 4<<3 | varintType
	tagCreateFilters  = 5<<3 | bytesType // all in one field
	tagCreatePrev     = 6<<3 | varintType
	tagCreateID       = 7<<3 | varintType
	tagCreateFragment = 8<<3 | varintType
)

func sizeWatchCreate(m *pb.WatchCreateRequest) int {
	if m == nil {
		return 0
	}
	n := sizeBytes(m.Key) + sizeBytes(m.RangeEnd) + sizeInt(m.StartRevision) + sizeBool(m.ProgressNotify) + sizeBool(m.PrevKv) +
		sizeInt(m.WatchId) + sizeBool(m.Fragment) + sizeUnknown(m.ProtoReflect())
	if len(m.Filters) > 0 {
		n += sizeLength(sizeFilters(m.Filters))
	}
	return n
}

func sizeFilters(list []pb.WatchCreateRequest_FilterType) int {
	n := 0
	for _, f := range list {
		n += sizeVarint(uint64(f))
	}
	return n
}

func writeWatchCreate(b []byte, m *pb.WatchCreateRequest) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeBool(b, tagCreateFragment, m.Fragment)
	b = writeInt(b, tagCreateID, m.WatchId)
	b = writeBool(b, tagCreatePrev, m.PrevKv)
	b = writeFilters(b, m.Filters)
	b = writeBool(b, tagCreateProgress, m.ProgressNotify)
	b = writeInt(b, tagCreateStart, m.StartRevision)
	b = writeBytes(b, tagCreateEnd, m.RangeEnd)
	return writeBytes(b, tagCreateKey, m.Key)
}

func writeFilters(b []byte, list []pb.WatchCreateRequest_FilterType) []byte {
	if len(list) == 0 {
		return b
	}
	end := len(b)
	for i := len(list) - 1; i >= 0; i-- {
		b = writeVarint(b, uint64(list[i]))
	}
	return writeTag(writeVarint(b, uint64(end-len(b))), tagCreateFilters)
}

func readWatchCreate(m *pb.WatchCreateRequest, r reader) bool {
	for {
		switch r.next() {
		case tagCreateKey:
			m.Key = r.bytes()
		case tagCreateEnd:
			m.RangeEnd = r.bytes()
		case tagCreateStart:
			m.StartRevision = r.int()
		case tagCreateProgress:
			m.ProgressNotify = r.bool()
		case tagCreateFilters:
			m.Filters = readFilters(&r)
		case tagCreatePrev:
			m.PrevKv = r.bool()
		case tagCreateID:
			m.WatchId = r.int()
		case tagCreateFragment:
			m.Fragment = r.bool()
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

func readFilters(r *reader) []pb.WatchCreateRequest_FilterType {
	packed := r.nested()
	r.expect(len(packed.b) > 0)
	var list []pb.WatchCreateRequest_FilterType
	for len(packed.b) > 0 {
		v := int64(packed.varint())
		r.expect(int64(int32(v)) == v && !packed.odd)
		list = append(list, pb.WatchCreateRequest_FilterType(v))
	}
	return list
}

func sizeWatchCancel(m *pb.WatchCancelRequest) int {
	if m == nil {
		return 0
	}
	return sizeInt(m.WatchId) + sizeUnknown(m.ProtoReflect())
}

func writeWatchCancel(b []byte, m *pb.WatchCancelRequest) []byte {
	if m == nil {
		return b
	}
	return writeInt(writeUnknown(b, m.ProtoReflect()), tagLeaseID, m.WatchId)
}

func readWatchCancel(m *pb.WatchCancelRequest, r reader) bool {
	return r.readID(&m.WatchId)
}

func sizeWatchProgress(m *pb.WatchProgressRequest) int { return sizeUnknown(m.ProtoReflect()) }

func writeWatchProgress(b []byte, m *pb.WatchProgressRequest) []byte {
	return writeUnknown(b, m.ProtoReflect())
}

func readWatchProgress(_ *pb.WatchProgressRequest, r reader) bool { return len(r.b) == 0 }
