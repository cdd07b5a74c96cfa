package rpc

import (
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
	// slabWatchersMax bounds the watchers whose responses share allocations.
	slabWatchersMax = 64
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
	// watchPrefixBytesMax bounds a header with its tag and length, a watch id and the field fragment.
	watchPrefixBytesMax = 2 + 4*11 + 11 + watchFragmentBytes
)

// watchSink sends the responses of one stream. It implements watch.Sink.
type watchSink struct {
	rpc           grpc.ServerStream
	holder        front.Holder // the same, if it can hold messages back; else nil
	backend       WatchBackend
	fragmentBytes int
	message       watchMessage // the one being sent; SendMsg does not keep it
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

// holderOf looks below the typed stream of the generated code.
func holderOf(rpc pb.Watch_WatchServer) front.Holder {
	if typed, ok := rpc.(*grpc.GenericServerStream[pb.WatchRequest, pb.WatchResponse]); ok {
		holder, _ := typed.ServerStream.(front.Holder)
		return holder
	}
	return nil
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
	var h pb.ResponseHeader
	s.backend.FillHeader(&h)
	body := make([]byte, 0, watchPrefixBytesMax)
	body = appendUint(body, fieldHeaderCluster, h.GetClusterId())
	body = appendUint(body, fieldHeaderMember, h.GetMemberId())
	body = appendUint(body, fieldHeaderRevision, uint64(revision))
	body = appendUint(body, fieldHeaderTerm, h.GetRaftTerm())
	b := make([]byte, 0, watchPrefixBytesMax)
	b = protowire.AppendTag(b, fieldWatchHeader, protowire.BytesType)
	return protowire.AppendBytes(b, body)
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
// each; what is large is shared, and what is small is copied into few allocations.
func (s *watchSink) sendAll(header []byte, ids []int64, events [][]byte, fragment bool) error {
	body := joinEvents(events)
	shared := len(body) > 1 || body[0].Len() > copyBytesMax
	own := watchPrefixBytesMax
	if !shared {
		own += body[0].Len()
	}
	for len(ids) > 0 {
		n := min(len(ids), slabWatchersMax)
		bytes := make([]byte, 0, n*own)
		parts := make([]mem.SliceBuffer, n)
		buffers := make([]mem.Buffer, 0, n*(1+len(body)))
		for i, id := range ids[:n] {
			start := len(bytes)
			bytes = append(bytes, header...)
			bytes = appendUint(bytes, fieldWatchID, uint64(id))
			if fragment {
				bytes = appendUint(bytes, fieldWatchFragment, 1)
			}
			first := len(buffers)
			if !shared {
				bytes = append(bytes, body[0].ReadOnlyData()...)
			}
			parts[i] = mem.SliceBuffer(bytes[start:len(bytes):len(bytes)])
			buffers = append(buffers, &parts[i])
			if shared {
				buffers = append(buffers, body...)
			}
			s.message.buffers = mem.BufferSlice(buffers[first:len(buffers):len(buffers)])
			if s.err = s.hold(&s.message); s.err != nil {
				return s.err
			}
		}
		ids = ids[n:]
	}
	s.message.buffers = nil
	return nil
}

// joinEvents returns the events as few buffers: runs of small ones are copied together, large ones are referred to.
func joinEvents(events [][]byte) mem.BufferSlice {
	if len(events) == 1 {
		return mem.BufferSlice{mem.SliceBuffer(events[0])}
	}
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
