package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const chunkBytes = 256 << 10 // of a checkpoint in one frame

// lingerTimeout is how long a refused sender may take to notice, before it is cut off and the reason is lost.
const lingerTimeout = time.Second

var (
	errNoSnapshotter  = errors.New("no snapshotter is configured")
	errBusy           = errors.New("a snapshot is being received already")
	errStalled        = errors.New("snapshot makes no progress")
	errNotReadToEnd   = errors.New("handler returned before the snapshot's end")
	errSnapshotDigest = errors.New("snapshot's size or SHA-256 differs from what was sent")
)

// startSnapshot sends the checkpoint of a MsgSnap on a goroutine of its own. One a member: raft asks for a second one
// only after it was told that the first failed, or as a new leader.
func (t *Transport) startSnapshot(r *remote, m *raftpb.Message) {
	if !t.enter() {
		return
	}
	if r == nil || r.err != nil || !r.sending.CompareAndSwap(false, true) {
		defer t.wg.Done()
		t.counters.dropped.Add(1)
		t.handler.SnapshotSent(m.GetTo(), false)
		return
	}
	m = proto.CloneOf(m) // the snapshotter may rewrite it, and raft's own is read-only (R23)
	t.wg.Go(func() {
		defer t.wg.Done()
		began := time.Now()
		size, err := r.sendSnapshot(m)
		r.sending.Store(false) // before the report: raft may send the next one at once
		if err != nil {
			t.log.Warn("could not send a snapshot", "peer", formatID(r.id), "reason", err.Error())
		} else {
			t.log.Info("sent a snapshot", "peer", formatID(r.id), "bytes", size, "index", m.GetSnapshot().GetMetadata().GetIndex(), "took", time.Since(began))
		}
		t.handler.SnapshotSent(r.id, err == nil)
	})
}

// sendSnapshot returns nil when the member has said that it has the checkpoint durably.
func (r *remote) sendSnapshot(m *raftpb.Message) (size int64, err error) {
	if r.t.openSnapshot == nil {
		return 0, errNoSnapshotter
	}
	snapshot, err := r.t.openSnapshot(m)
	if err != nil {
		return 0, fmt.Errorf("open snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	c, err := r.open(r.ctx, kindSnapshot)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(r.ctx, func() { _ = c.Close() })()
	verdict := make(chan error, 1) // has one sender
	r.t.wg.Go(func() {
		err := c.verdict()
		if err != nil {
			_ = c.Close() // there is no use in sending the rest
		}
		verdict <- err
	})
	w := &snapshotWriter{conn: c, stall: r.t.timing.stall, hash: sha256.New()}
	err = w.copy(m, snapshot)
	switch {
	case err == nil:
		if err = c.SetReadDeadline(time.Now().Add(w.stall)); err == nil {
			err = <-verdict
		}
	case w.over: // the connection broke; the other side may have said why
		_ = c.Close()
		err = errors.Join(err, <-verdict)
	default:
		_ = c.Close()
		<-verdict
	}
	if err != nil {
		err = errors.Join(context.Cause(r.ctx), err)
	}
	return w.size, err
}

// verdict waits for what the receiver says in the end: nil when it has all of it.
func (c *connection) verdict() error {
	kind, body, err := c.in.next()
	switch {
	case err != nil:
		return err
	case kind == frameRefusal:
		return fmt.Errorf("%w: %s", errRefused, body)
	case kind != frameDone:
		return errFraming
	}
	return nil
}

// snapshotWriter cuts a checkpoint into frames.
type snapshotWriter struct {
	conn  *connection
	stall time.Duration // for one frame
	hash  hash.Hash
	size  int64
	chunk []byte // being filled, from its header on; as good as empty when it is no longer than that
	over  bool   // the connection broke while sending
}

// copy sends head, data and end.
func (w *snapshotWriter) copy(m *raftpb.Message, s Snapshot) error {
	m = proto.CloneOf(m)
	m.GetSnapshot().Data = nil
	encoded, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode snapshot message: %w", err)
	}
	size := binary.LittleEndian.AppendUint64(nil, uint64(s.Size()))
	if err := w.send(sealed(frameHead, size, encoded)); err != nil {
		return err
	}
	w.chunk = begin(make([]byte, 0, headerBytes+chunkBytes))
	if _, err := s.WriteTo(w); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if err := w.flush(); err != nil {
		return err
	}
	if w.size != s.Size() {
		return fmt.Errorf("snapshot has %d bytes, not the %d that it told", w.size, s.Size())
	}
	return w.send(sealed(frameEnd, size, w.hash.Sum(nil)))
}

// Write takes bytes of the checkpoint.
func (w *snapshotWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		k := min(len(p), headerBytes+chunkBytes-len(w.chunk))
		w.chunk = append(w.chunk, p[:k]...)
		n, p = n+k, p[k:]
		if len(w.chunk) == headerBytes+chunkBytes {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (w *snapshotWriter) flush() error {
	data := w.chunk[headerBytes:]
	if len(data) == 0 {
		return nil
	}
	w.hash.Write(data)
	w.size += int64(len(data))
	err := w.send(seal(w.chunk, frameData))
	w.chunk = begin(w.chunk)
	return err
}

func (w *snapshotWriter) send(frame []byte) error {
	err := w.conn.SetWriteDeadline(time.Now().Add(w.stall))
	if err == nil {
		_, err = w.conn.top.Write(frame)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errStalled
	}
	w.over = err != nil
	return err
}

// serveSnapshot receives one checkpoint and tells the sender what became of it. Close ends it by closing the connection.
func (t *Transport) serveSnapshot(in *inbound) {
	err := errBusy
	if t.incoming.TryLock() { // installs are serialised (R37)
		err = t.receiveSnapshot(in)
		t.incoming.Unlock()
	}
	if err == nil {
		in.say(sealed(frameDone))
		return
	}
	t.log.Warn("could not receive a snapshot", "peer", formatID(in.from), "reason", err.Error())
	in.say(refusal(err))
	// To close now, with bytes unread, would take the reason back.
	if in.Conn.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
		_, _ = io.Copy(io.Discard, in.Conn)
	}
}

func (t *Transport) receiveSnapshot(in *inbound) error {
	in.in.silence = t.timing.stall
	kind, body, err := in.in.next()
	if err != nil {
		return fmt.Errorf("read snapshot's head: %w", err)
	}
	if kind != frameHead || len(body) < sizeBytes {
		return errFraming
	}
	size := binary.LittleEndian.Uint64(body)
	m := &raftpb.Message{}
	if err := proto.Unmarshal(body[sizeBytes:], m); err != nil {
		return fmt.Errorf("decode snapshot message: %w", err)
	}
	if m.GetType() != raftpb.MsgSnap || m.GetTo() != t.id || m.GetFrom() != in.from || m.GetSnapshot().GetMetadata() == nil {
		t.counters.rejected.Add(1)
		return fmt.Errorf("%v from %x to %x is no snapshot for this member", m.GetType(), m.GetFrom(), m.GetTo())
	}
	r := &snapshotReader{in: &in.in, hash: sha256.New(), left: size, total: size}
	if err := t.handler.Snapshot(in.from, m, r); err != nil {
		return fmt.Errorf("take snapshot: %w", err)
	}
	if r.err != io.EOF {
		return errNotReadToEnd
	}
	return nil
}

// snapshotReader joins the frames of a checkpoint. err is sticky, and io.EOF only after everything was verified.
type snapshotReader struct {
	in    *reader
	hash  hash.Hash
	left  uint64 // bytes that are still to come
	total uint64
	data  []byte // the unread part of a frame
	err   error
}

func (r *snapshotReader) Read(p []byte) (int, error) {
	for len(r.data) == 0 && r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return 0, r.err
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// next takes the next frame. A connection that ends without the end frame was cut.
func (r *snapshotReader) next() error {
	kind, body, err := r.in.next()
	switch {
	case err == io.EOF:
		return fmt.Errorf("read snapshot: %w", io.ErrUnexpectedEOF)
	case errors.Is(err, errSilent):
		return errStalled
	case err != nil:
		return fmt.Errorf("read snapshot: %w", err)
	case kind == frameData && len(body) > 0:
		if uint64(len(body)) > r.left {
			return errSnapshotDigest
		}
		r.left -= uint64(len(body))
		r.hash.Write(body)
		r.data = body
		return nil
	case kind == frameEnd && len(body) == sizeBytes+sha256.Size:
		if r.left != 0 || binary.LittleEndian.Uint64(body) != r.total || !bytes.Equal(body[sizeBytes:], r.hash.Sum(nil)) {
			return errSnapshotDigest
		}
		return io.EOF
	}
	return errFraming
}
