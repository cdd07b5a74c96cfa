package rpc

import (
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/watch"
)

const (
	// watchResponseOverhead is what a response may have beyond the limit on requests before it is fragmented.
	watchResponseOverhead = 512 << 10
	// copyBytesMax is the size up to which bytes are copied rather than referred to: a reference costs a buffer of
	// its own in every response, which is worth it for larger ones only.
	copyBytesMax = 1 << 10
)

// Field numbers of etcd's messages WatchResponse and ResponseHeader.
const (
	fieldWatchHeader   = 1
	fieldWatchID       = 2
	fieldWatchFragment = 7

	fieldHeaderCluster  = 1
	fieldHeaderMember   = 2
	fieldHeaderRevision = 3
	fieldHeaderTerm     = 4

	// watchFragmentBytes is the size of the field fragment when it is set.
	watchFragmentBytes = 2
)

// watchRoom is working space for responses with events. A stream has it while it sends, so an idle one holds none.
type watchRoom struct {
	message pb.ResponseHeader
	body    []byte // of the field header
	header  []byte
	bytes   []byte // of a response, as far as it is its own
	part    mem.SliceBuffer
	buffers mem.BufferSlice
}

func newWatchRooms() *sync.Pool { return &sync.Pool{New: func() any { return new(watchRoom) }} }

// watchSink sends the responses of one stream. It implements watch.Sink.
type watchSink struct {
	rpc           grpc.ServerStream
	holder        front.Holder // the same, if it can hold messages back; else nil
	backend       WatchBackend
	fragmentBytes int
	rooms         *sync.Pool   // of *watchRoom
	room          *watchRoom   // while events are sent
	message       watchMessage // the one being sent
	err           error        // of the transport
}

// watchMessage is a response in its wire format.
type watchMessage struct{ buffers mem.BufferSlice }

func (m *watchMessage) encoded() mem.BufferSlice { return m.buffers }

// control sends a response without events.
func (s *watchSink) control(revision int64, r *pb.WatchResponse) error {
	r.Header = new(pb.ResponseHeader)
	s.backend.FillHeader(r.Header)
	r.Header.Revision = revision
	s.err = s.hold(r)
	return s.err
}

// hold sends m; flush makes sure that it leaves.
func (s *watchSink) hold(m any) error {
	if s.holder == nil {
		return s.rpc.SendMsg(m)
	}
	return s.holder.HoldMsg(m)
}

// holderOf returns what can hold messages back, nil if nothing can.
func holderOf(rpc pb.Watch_WatchServer) front.Holder {
	holder, _ := below(rpc).(front.Holder)
	return holder
}

// below looks below the typed stream of the generated code.
func below(rpc pb.Watch_WatchServer) grpc.ServerStream {
	if typed, ok := rpc.(*grpc.GenericServerStream[pb.WatchRequest, pb.WatchResponse]); ok {
		return typed.ServerStream
	}
	return rpc
}

func (s *watchSink) flush() {
	if s.holder != nil {
		s.holder.Flush()
	}
}

// Progress implements watch.Sink.
func (s *watchSink) Progress(id, revision int64) error {
	return s.control(revision, &pb.WatchResponse{WatchId: id})
}

// Compacted implements watch.Sink. The header has no revision and there is no reason, as in etcd.
func (s *watchSink) Compacted(id, compactRevision int64) error {
	return s.control(0, &pb.WatchResponse{WatchId: id, Canceled: true, CompactRevision: compactRevision})
}

// Events implements watch.Sink.
func (s *watchSink) Events(b *watch.Batch) error {
	s.room = s.rooms.Get().(*watchRoom)
	defer func() {
		clear(s.room.buffers)
		s.rooms.Put(s.room)
		s.room = nil
	}()
	header := s.header(b.Revision)
	if !b.Fragment {
		return s.sendAll(header, b.IDs, b.Events, false)
	}
	for events := b.Events; len(events) > 0; {
		n := s.fragment(len(header)+idBytes(b.IDs), events, len(events) == len(b.Events))
		if err := s.sendAll(header, b.IDs, events[:n], n < len(events)); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

// header returns the field header of a response.
func (s *watchSink) header(revision int64) []byte {
	h := &s.room.message
	h.Reset()
	s.backend.FillHeader(h)
	body := s.room.body[:0]
	body = appendUint(body, fieldHeaderCluster, h.GetClusterId())
	body = appendUint(body, fieldHeaderMember, h.GetMemberId())
	body = appendUint(body, fieldHeaderRevision, uint64(revision))
	body = appendUint(body, fieldHeaderTerm, h.GetRaftTerm())
	s.room.body = body
	b := protowire.AppendTag(s.room.header[:0], fieldWatchHeader, protowire.BytesType)
	s.room.header = protowire.AppendBytes(b, body)
	return s.room.header
}

func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// idBytes is the size of the longest field watch_id.
func idBytes(ids []int64) int {
	n := 0
	for _, id := range ids {
		if id != 0 {
			n = max(n, 1+protowire.SizeVarint(uint64(id)))
		}
	}
	return n
}

// fragment returns how many of the events the next fragment takes: as etcd does, all if the response is below the limit
// or has one event only, else as many as stay below it, and at least one.
func (s *watchSink) fragment(prefixBytes int, events [][]byte, first bool) int {
	size := prefixBytes
	if first {
		for _, e := range events {
			size += len(e)
		}
		if size < s.fragmentBytes {
			return len(events)
		}
		size = prefixBytes
	}
	size += watchFragmentBytes
	for n, e := range events {
		size += len(e)
		if n > 0 && size >= s.fragmentBytes {
			return n
		}
	}
	return len(events)
}

// sendAll sends a response with the events to each of the watchers. Only the bytes with the watcher's id are made for
// each; what is large is shared, and what is small is copied.
func (s *watchSink) sendAll(header []byte, ids []int64, events [][]byte, fragment bool) error {
	var small []byte
	var body mem.BufferSlice
	if len(events) == 1 && len(events[0]) <= copyBytesMax {
		small = events[0]
	} else {
		body = joinEvents(events)
	}
	defer func() { s.message.buffers = nil }()
	for _, id := range ids {
		r := s.room
		if s.holder == nil {
			r = new(watchRoom) // the transport may keep the message; a Holder has copied it when it returns
		}
		r.bytes = append(r.bytes[:0], header...)
		r.bytes = appendUint(r.bytes, fieldWatchID, uint64(id))
		if fragment {
			r.bytes = appendUint(r.bytes, fieldWatchFragment, 1)
		}
		r.bytes = append(r.bytes, small...)
		r.part = mem.SliceBuffer(r.bytes)
		r.buffers = append(append(r.buffers[:0], &r.part), body...)
		s.message.buffers = r.buffers
		if s.err = s.hold(&s.message); s.err != nil {
			return s.err
		}
	}
	return nil
}

// joinEvents returns the events as few buffers: runs of small ones are copied together, large ones are referred to.
func joinEvents(events [][]byte) mem.BufferSlice {
	var body mem.BufferSlice
	for i := 0; i < len(events); {
		run, bytes := i, 0
		for run < len(events) && len(events[run]) <= copyBytesMax {
			bytes += len(events[run])
			run++
		}
		if run == i {
			body = append(body, mem.SliceBuffer(events[i]))
			i++
			continue
		}
		joined := make([]byte, 0, bytes)
		for ; i < run; i++ {
			joined = append(joined, events[i]...)
		}
		body = append(body, mem.SliceBuffer(joined))
	}
	return body
}
