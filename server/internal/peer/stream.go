package peer

import (
	"fmt"
	"sync"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// directBytesMax bounds what Send writes itself, at once. Encoding and copying that much costs the caller some tens of
// microseconds, about as much as waking another goroutine for it; beyond that the sender is the better place.
const directBytesMax = 64 << 10

// stream is the outgoing half of a peer's connection, with what waits for it. Who has something to send writes it at
// once, unless something is before it. What the kernel does not take, and all that comes after it, is left to the
// stream's sender, a goroutine that writes until nothing waits.
type stream struct {
	ready chan struct{} // wakes the sender; capacity 1, so that no wake-up is lost; never closed

	mu    sync.Mutex  // protects all below, and is held while the caller of send writes
	conn  *connection // nil while no session is up
	busy  bool        // the sender has work, and only it writes
	err   error       // of a write of send, for the sender to report
	queue queue
	buf   []byte // of send, used again
	sizes []int
}

func newStream() *stream { return &stream{ready: make(chan struct{}, 1)} }

// send writes or queues ms, and returns how many messages were dropped.
func (s *stream) send(c *counters, ms []*raftpb.Message) (dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && !s.busy && small(ms) {
		frame, sizes, err := encodeMessages(s.buf, ms, s.sizes)
		s.sizes = sizes
		if err != nil {
			return len(ms)
		}
		s.buf = frame
		c.sent(len(ms), len(frame))
		s.write(frame)
		return 0
	}
	for _, m := range ms {
		if !s.queue.put(item{m: m}, s.conn != nil) {
			dropped++
		}
	}
	s.wake()
	return dropped
}

// sendFrame writes or queues a frame, which must not change afterwards, and returns false when it was dropped. While no
// session is up it drops it.
func (s *stream) sendFrame(frame []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.conn == nil:
		return false
	case !s.busy && len(frame) <= directBytesMax:
		s.write(frame)
		return true
	case !s.queue.put(item{frame: frame}, true):
		return false
	}
	s.wake()
	return true
}

// write requires that the sender is not busy: then it does not block.
func (s *stream) write(frame []byte) {
	if _, s.err = s.conn.top.Write(frame); s.err != nil || s.conn.pending() {
		s.wake()
	}
}

func (s *stream) wake() {
	if s.conn == nil {
		return
	}
	s.busy = true
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// open begins a session. What waits stays, and is sent first.
func (s *stream) open(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.busy, s.err = c, false, nil
	_ = c.setDirect(true) // nothing remains of the handshake
	if s.queue.len() > 0 {
		s.wake()
	}
}

// reset ends a session, drops what waits, and returns how many messages and frames it was.
func (s *stream) reset() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.busy = nil, false
	return s.queue.reset()
}

// begin tells the sender whether it has work, which makes it the only one who writes.
func (s *stream) begin() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy, s.err
}

// take gives the sender the next that waits. When there is nothing, others may write again.
func (s *stream) take(batch []*raftpb.Message) ([]*raftpb.Message, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch, frame := s.queue.take(batch, frameSoftBytes)
	if len(batch) == 0 && frame == nil {
		_ = s.conn.setDirect(true) // which can not fail
		s.busy = false
	}
	return batch, frame
}

// sender writes what send left, until the connection breaks or closed is. Writes block, and end when the link is closed.
func (r *remote) sender(s *stream, c *connection, closed <-chan struct{}) error {
	var buf []byte
	var batch []*raftpb.Message
	var sizes []int
	for {
		select {
		case <-s.ready:
		case <-closed:
			return nil
		}
		if busy, err := s.begin(); err != nil || !busy {
			if err != nil {
				return fmt.Errorf("write: %w", err)
			}
			continue
		}
		if err := c.setDirect(false); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		for {
			var frame []byte
			if batch, frame = s.take(batch[:0]); len(batch) == 0 && frame == nil {
				break
			}
			if batch = r.dropLarge(batch); len(batch) > 0 {
				var err error
				if frame, sizes, err = encodeMessages(buf, batch, sizes); err != nil {
					return err
				}
				buf = frame
				if cap(buf) > 2*frameSoftBytes {
					buf = nil // of the rare message that is alone in its frame
				}
				r.t.counters.sent(len(batch), len(frame))
			}
			if frame == nil {
				continue
			}
			if _, err := c.top.Write(frame); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			clear(batch)
		}
	}
}

// dropLarge removes a message that the other side would refuse. Only the first of a batch can be one: take adds others
// only below frameSoftBytes, and its estimate is not wrong by the factor between the two limits.
func (r *remote) dropLarge(batch []*raftpb.Message) []*raftpb.Message {
	if len(batch) == 0 || queueBytes(batch[0]) < frameSoftBytes {
		return batch
	}
	m := batch[0]
	size := proto.Size(m)
	if size <= MaxMessageBytes {
		return batch
	}
	r.t.log.Error("dropped a message that is too large", "peer", formatID(r.id), "type", m.GetType().String(), "bytes", size)
	r.t.counters.dropped.Add(1)
	r.t.handler.Unreachable(r.id)
	return batch[1:]
}

// small tells whether Send may write ms itself.
func small(ms []*raftpb.Message) bool {
	n := 0
	for _, m := range ms {
		if n += queueBytes(m); n > directBytesMax {
			return false
		}
	}
	return true
}

func (c *counters) sent(messages, bytes int) {
	c.framesSent.Add(1)
	c.messagesSent.Add(uint64(messages))
	c.bytesSent.Add(uint64(bytes))
}
