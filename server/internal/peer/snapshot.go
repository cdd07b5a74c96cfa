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
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	chunkBytes = 256 << 10 // of a checkpoint in one frame

	kindHead = 'h'
	kindData = 'd'
	kindEnd  = 'e'

	sizeBytes = 8
)

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
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	stall := time.AfterFunc(r.t.timing.open, func() { cancel(errStalled) })
	defer stall.Stop()
	stream, err := r.open(ctx, r.conns[0], methodSnapshot, snapshotDesc)
	if err != nil {
		return 0, errors.Join(context.Cause(ctx), err)
	}
	w := &snapshotWriter{stream: stream, hash: sha256.New(), progress: func() { stall.Reset(r.t.timing.stall) }}
	w.progress()
	if err := w.copy(m, snapshot); err != nil {
		if w.over { // sending only says that the stream is over; receiving tells why
			err = errors.Join(context.Cause(ctx), stream.RecvMsg(&frame{}))
		}
		return w.size, err
	}
	if err := stream.RecvMsg(&frame{}); err != io.EOF {
		if err == nil {
			err = errFraming
		}
		return w.size, err
	}
	return w.size, nil
}

// snapshotWriter cuts a checkpoint into frames.
type snapshotWriter struct {
	stream   grpc.ClientStream
	hash     hash.Hash
	size     int64
	chunk    *[]byte // being filled; nil when nothing waits
	over     bool    // the stream ended while sending
	progress func()
}

// copy sends head, data and end.
func (w *snapshotWriter) copy(m *raftpb.Message, s Snapshot) error {
	m = proto.CloneOf(m)
	m.GetSnapshot().Data = nil
	encoded, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode snapshot message: %w", err)
	}
	var size [sizeBytes]byte
	binary.LittleEndian.PutUint64(size[:], uint64(s.Size()))
	if err := w.send(sealBytes([]byte{kindHead}, size[:], encoded)); err != nil {
		return err
	}
	if _, err := s.WriteTo(w); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if err := w.flush(); err != nil {
		return err
	}
	if w.size != s.Size() {
		return fmt.Errorf("snapshot has %d bytes, not the %d that it told", w.size, s.Size())
	}
	if err := w.send(sealBytes([]byte{kindEnd}, size[:], w.hash.Sum(nil))); err != nil {
		return err
	}
	return w.stream.CloseSend()
}

// Write takes bytes of the checkpoint.
func (w *snapshotWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if w.chunk == nil {
			w.chunk = allocate(1 + chunkBytes)
			*w.chunk = append(*w.chunk, kindData)
		}
		k := min(len(p), checksumBytes+1+chunkBytes-len(*w.chunk))
		*w.chunk = append(*w.chunk, p[:k]...)
		n, p = n+k, p[k:]
		if len(*w.chunk) == checksumBytes+1+chunkBytes {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (w *snapshotWriter) flush() error {
	if w.chunk == nil {
		return nil
	}
	data := (*w.chunk)[checksumBytes+1:]
	w.hash.Write(data)
	w.size += int64(len(data))
	f := seal(w.chunk)
	w.chunk = nil
	return w.send(f)
}

func (w *snapshotWriter) send(f *frame) error {
	if err := w.stream.SendMsg(f); err != nil {
		w.over = true
		return err
	}
	w.progress()
	return nil
}

// serveSnapshot receives one checkpoint. The handler runs on a goroutine of its own so that Close can end the stream.
func (t *Transport) serveSnapshot(stream grpc.ServerStream) error {
	from, err := t.admit(stream.Context())
	if err != nil {
		return err
	}
	defer t.wg.Done()
	if err := t.greet(stream, from); err != nil {
		return err
	}
	if !t.incoming.TryLock() { // installs are serialised (R37)
		return status.Error(codes.ResourceExhausted, errBusy.Error())
	}
	end := make(chan error, 1) // has one sender, which must not wait for us
	t.wg.Go(func() {
		defer t.incoming.Unlock()
		end <- t.receiveSnapshot(from, stream)
	})
	select {
	case err := <-end:
		if err != nil {
			t.log.Warn("could not receive a snapshot", "peer", formatID(from), "reason", err.Error())
			return status.Error(codes.Aborted, err.Error())
		}
		return nil
	case <-t.ctx.Done():
		return status.Error(codes.Unavailable, ErrClosed.Error())
	}
}

func (t *Transport) receiveSnapshot(from uint64, stream grpc.ServerStream) error {
	var f frame
	if err := stream.RecvMsg(&f); err != nil {
		return fmt.Errorf("read snapshot's head: %w", err)
	}
	defer f.free()
	body := f.body()
	if len(body) < 1+sizeBytes || body[0] != kindHead {
		return errFraming
	}
	size := binary.LittleEndian.Uint64(body[1:])
	m := &raftpb.Message{}
	if err := proto.Unmarshal(body[1+sizeBytes:], m); err != nil {
		return fmt.Errorf("decode snapshot message: %w", err)
	}
	f.free()
	if m.GetType() != raftpb.MsgSnap || m.GetTo() != t.id || m.GetFrom() != from || m.GetSnapshot().GetMetadata() == nil {
		t.counters.rejected.Add(1)
		return fmt.Errorf("%v from %x to %x is no snapshot for this member", m.GetType(), m.GetFrom(), m.GetTo())
	}
	r := &snapshotReader{stream: stream, hash: sha256.New(), left: size, total: size}
	defer r.frame.free()
	if err := t.handler.Snapshot(from, m, r); err != nil {
		return fmt.Errorf("take snapshot: %w", err)
	}
	if r.err != io.EOF {
		return errNotReadToEnd
	}
	return nil
}

// snapshotReader joins the frames of a checkpoint. err is sticky, and io.EOF only after everything was verified.
type snapshotReader struct {
	stream grpc.ServerStream
	hash   hash.Hash
	left   uint64 // bytes that are still to come
	total  uint64
	frame  frame
	data   []byte // the unread part of frame
	err    error
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

// next takes the next frame. A stream that ends without the end frame was cut.
func (r *snapshotReader) next() error {
	r.frame.free()
	if err := r.stream.RecvMsg(&r.frame); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read snapshot: %w", err)
	}
	body := r.frame.body()
	switch {
	case len(body) > 1 && body[0] == kindData:
		data := body[1:]
		if uint64(len(data)) > r.left {
			return errSnapshotDigest
		}
		r.left -= uint64(len(data))
		r.hash.Write(data)
		r.data = data
		return nil
	case len(body) == 1+sizeBytes+sha256.Size && body[0] == kindEnd:
		if r.left != 0 || binary.LittleEndian.Uint64(body[1:]) != r.total || !bytes.Equal(body[1+sizeBytes:], r.hash.Sum(nil)) {
			return errSnapshotDigest
		}
		return io.EOF
	}
	return errFraming
}
