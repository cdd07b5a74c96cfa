package rpc

import (
	"crypto/sha256"
	"hash"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

const (
	// snapshotBlobBytes is the size of a snapshot's parts, etcd's.
	snapshotBlobBytes = 32 << 10
	// snapshotsMax bounds the snapshots that are sent at one time: while one is,
	// the file grows by what is saved.
	snapshotsMax = 4
)

// Snapshot sends the checkpoint file, and after it the SHA-256 of what was
// sent, as a part of its own.
func (s *Maintenance) Snapshot(_ *pb.SnapshotRequest, stream grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	select {
	case s.copies <- struct{}{}:
		defer func() { <-s.copies }()
	default:
		return wireError(ErrTooManyRequests)
	}
	snap, err := s.custodian.Snapshot(stream.Context())
	if err != nil {
		return wireError(err)
	}
	defer snap.Close()
	w := &blobs{stream: stream, version: s.node.Status().DataVersion, left: snap.Size(), sum: sha256.New()}
	if _, err := snap.WriteTo(w); err != nil {
		return wireError(err)
	}
	if err := w.flush(); err != nil {
		return wireError(err)
	}
	return stream.Send(&pb.SnapshotResponse{Blob: w.sum.Sum(nil), Version: w.version})
}

// blobs sends what is written to it in parts of one size.
type blobs struct {
	stream  grpc.ServerStreamingServer[pb.SnapshotResponse]
	version string
	left    int64 // bytes that are not sent yet
	sum     hash.Hash
	buffer  []byte
}

func (w *blobs) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if w.buffer == nil {
			w.buffer = make([]byte, 0, snapshotBlobBytes) // one a part: what is sent may be read later
		}
		part := min(len(p)-n, cap(w.buffer)-len(w.buffer))
		w.buffer = append(w.buffer, p[n:n+part]...)
		n += part
		if len(w.buffer) == cap(w.buffer) {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (w *blobs) flush() error {
	if len(w.buffer) == 0 {
		return nil
	}
	w.sum.Write(w.buffer) // a hash never fails
	w.left -= int64(len(w.buffer))
	err := w.stream.Send(&pb.SnapshotResponse{
		Blob: w.buffer, RemainingBytes: uint64(max(w.left, 0)), Version: w.version,
	})
	w.buffer = nil
	return err
}
