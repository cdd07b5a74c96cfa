package codec

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Tags of WatchResponse.
const (
	tagWatchID       = 2<<3 | varintType
	tagWatchCreated  = 3<<3 | varintType
	tagWatchCanceled = 4<<3 | varintType
	tagWatchCompact  = 5<<3 | varintType
	tagWatchReason   = 6<<3 | bytesType
	tagWatchFragment = 7<<3 | varintType
	tagWatchEvents   = 11<<3 | bytesType
)

func sizeWatchResponse(m *pb.WatchResponse) int {
	if m == nil {
		return 0
	}
	return sizeMessage(m.Header, sizeHeader) + sizeInt(m.WatchId) + sizeBool(m.Created) + sizeBool(m.Canceled) +
		sizeInt(m.CompactRevision) + sizeBytes(m.CancelReason) + sizeBool(m.Fragment) + sizeMessages(m.Events, sizeEvent) +
		sizeUnknown(m.ProtoReflect())
}

func writeWatchResponse(b []byte, m *pb.WatchResponse) []byte {
	if m == nil {
		return b
	}
	b = writeUnknown(b, m.ProtoReflect())
	b = writeMessages(b, tagWatchEvents, m.Events, writeEvent)
	b = writeBool(b, tagWatchFragment, m.Fragment)
	b = writeBytes(b, tagWatchReason, m.CancelReason)
	b = writeInt(b, tagWatchCompact, m.CompactRevision)
	b = writeBool(b, tagWatchCanceled, m.Canceled)
	b = writeBool(b, tagWatchCreated, m.Created)
	b = writeInt(b, tagWatchID, m.WatchId)
	return writeMessage(b, tagHeader, m.Header, writeHeader)
}

func readWatchResponse(m *pb.WatchResponse, r reader) bool {
	for {
		switch r.next() {
		case tagHeader:
			m.Header = readMessage(&r, readHeader)
		case tagWatchID:
			m.WatchId = r.int()
		case tagWatchCreated:
			m.Created = r.bool()
		case tagWatchCanceled:
			m.Canceled = r.bool()
		case tagWatchCompact:
			m.CompactRevision = r.int()
		case tagWatchReason:
			m.CancelReason = r.text()
		case tagWatchFragment:
			m.Fragment = r.bool()
		case tagWatchEvents:
			m.Events = readEvents(&r)
		case 0:
			return r.end()
		default:
			return false
		}
	}
}

// event is an event and its pair in one allocation.
type event struct {
	event mvccpb.Event
	pair  mvccpb.KeyValue
}

// readEvents is readList for events, which are allocated with their pairs.
func readEvents(r *reader) []*mvccpb.Event {
	r.share()
	n := r.count()
	list, events := make([]*mvccpb.Event, n), make([]event, n)
	for i := range events {
		if i > 0 && len(r.b) > 0 {
			r.b = r.b[1:] // the tag, as count has seen
		}
		e := &events[i]
		list[i] = &e.event
		if !readEvent(&e.event, &e.pair, r.nested()) {
			r.spoil()
			break
		}
	}
	return list
}
