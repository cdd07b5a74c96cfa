package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// The RPCs of this file.
var (
	methodAlarm      = method{full: pb.Maintenance_Alarm_FullMethodName, name: "alarm"}
	methodAlarmList  = method{full: pb.Maintenance_Alarm_FullMethodName, name: "list alarms", read: true}
	methodDefragment = method{full: pb.Maintenance_Defragment_FullMethodName, name: "defragment", read: true, local: true}
	methodHashKV     = method{full: pb.Maintenance_HashKV_FullMethodName, name: "hash", read: true, local: true}
	methodSnapshot   = method{full: pb.Maintenance_Snapshot_FullMethodName, name: "snapshot", read: true, local: true}
	streamSnapshot   = &pb.Maintenance_ServiceDesc.Streams[0]
)

// AlarmType says what an alarm is about.
type AlarmType int32

const (
	// AlarmNoSpace: a member's data is over its quota. Only reads and what deletes is accepted.
	AlarmNoSpace = AlarmType(pb.AlarmType_NOSPACE)
	// AlarmCorrupt: members hold different data.
	AlarmCorrupt = AlarmType(pb.AlarmType_CORRUPT)
)

// String returns etcd's name of the type.
func (t AlarmType) String() string { return pb.AlarmType(t).String() }

// Alarm is an alarm that is on.
type Alarm struct {
	Member uint64 // that it is about; 0 for all of them
	Type   AlarmType
}

// KVHash is a hash of the versions of all keys up to a revision, made by one member.
type KVHash struct {
	Endpoint string
	MemberID uint64
	Hash     uint32
	Revision Revision // up to which versions are hashed
	Compact  Revision // hashes of members can be compared if they are of the same; -1 when never compacted
}

// Alarms lists the alarms that are on. The answer is linearizable.
func (c *Client) Alarms(ctx context.Context) ([]Alarm, error) {
	var resp pb.AlarmResponse
	if err := c.core.call(ctx, methodAlarmList, &pb.AlarmRequest{Action: pb.AlarmRequest_GET}, &resp); err != nil {
		return nil, err
	}
	var out []Alarm
	for _, a := range resp.Alarms {
		out = append(out, Alarm{Member: a.MemberID, Type: AlarmType(a.Alarm)})
	}
	return out, nil
}

// Disarm ends an alarm, whoever raised it. It comes back if its reason is still there. Ending one that is not on does no
// harm, so an uncertain outcome is resolved by asking again.
func (c *Client) Disarm(ctx context.Context, a Alarm) error {
	req := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.Member, Alarm: pb.AlarmType(a.Type)}
	var resp pb.AlarmResponse
	return c.core.callRepeatable(ctx, methodAlarm, req, &resp, nil)
}

// Defragment asks one member, named as for [Client.Status], to tidy its file. A Latchkey member answers once its
// checkpoint holds all that it has applied, and serves meanwhile; a member of etcd serves nobody until it is done.
func (c *Client) Defragment(ctx context.Context, endpoint string) error {
	var resp pb.DefragmentResponse
	_, err := c.core.ask(ctx, endpoint, methodDefragment, &pb.DefragmentRequest{}, &resp)
	return err
}

// HashKV asks one member, named as for [Client.Status], for the hash of all versions up to rev, or up to its current
// revision for 0. Errors: [ErrCompacted], [ErrFutureRevision], and those of Status.
func (c *Client) HashKV(ctx context.Context, endpoint string, rev Revision) (KVHash, error) {
	var resp pb.HashKVResponse
	name, err := c.core.ask(ctx, endpoint, methodHashKV, &pb.HashKVRequest{Revision: int64(rev)}, &resp)
	if err != nil {
		return KVHash{}, err
	}
	return KVHash{
		Endpoint: name, MemberID: resp.Header.GetMemberId(), Hash: resp.Hash,
		Revision: Revision(resp.HashRevision), Compact: Revision(resp.CompactRevision),
	}, nil
}

// ask sends a request to one endpoint only, and returns its name.
func (co *core) ask(ctx context.Context, endpoint string, m method, req, resp proto.Message) (string, error) {
	if co.ctx.Err() != nil {
		return "", &Error{Op: m.name, Kind: ErrClosed}
	}
	ep := co.pool.named(endpoint)
	if ep == nil {
		return "", &Error{Op: m.name, Endpoint: endpoint, Kind: ErrInvalid, Message: "not an endpoint of this client"}
	}
	ctx, cancel := co.bounded(ctx)
	defer cancel()
	if _, err := co.attempt(ctx, ep, m, request{method: m.full, body: req}, resp); err != nil {
		e := judge(m, ep.name, true, err)
		if ctx.Err() != nil {
			e.endedBy(ctx)
		}
		return "", e
	}
	return ep.name, nil
}

// errSnapshotDamaged: what arrived is not what was sent.
var errSnapshotDamaged = errors.New("snapshot is cut short, or differs from its checksum")

// Snapshot writes a copy of a member's data to w: a file that `latchkey snapshot` and etcdutl restore, which ends with
// the SHA-256 of what is before it. It holds all that this member had applied when it was asked. It returns the number of
// bytes written, and an error unless all arrived as it was sent; what w has then is of no use. ctx bounds all of it, and
// RequestTimeout does not.
func (c *Client) Snapshot(ctx context.Context, w io.Writer) (int64, error) {
	co := c.core
	if co.ctx.Err() != nil {
		return 0, &Error{Op: methodSnapshot.name, Kind: ErrClosed}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ep, err := co.pool.pick(ctx)
	if err != nil {
		return 0, unavailable(methodSnapshot, err, nil)
	}
	ep.streams.Add(1)
	defer ep.streams.Add(-1)
	n, err := co.receiveSnapshot(ctx, ep, w)
	var writing *writeError
	switch {
	case err == nil:
		return n, nil
	case errors.As(err, &writing):
		return n, writing.err
	case errors.Is(err, errSnapshotDamaged):
		return n, &Error{Op: methodSnapshot.name, Endpoint: ep.name, Message: errSnapshotDamaged.Error()}
	}
	e := judge(methodSnapshot, ep.name, true, err)
	if ctx.Err() != nil {
		e.endedBy(ctx)
	}
	return n, e
}

// writeError tells what the caller's writer said from what the member said.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }

func (co *core) receiveSnapshot(ctx context.Context, ep *endpoint, w io.Writer) (n int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := co.transport.stream(ctx, ep, streamSnapshot, methodSnapshot.full)
	if err != nil {
		return 0, err
	}
	if err := stream.SendMsg(&pb.SnapshotRequest{}); err != nil {
		return 0, streamError(stream, cancel, err)
	}
	if err := stream.CloseSend(); err != nil {
		return 0, err
	}
	sum := sha256.New()
	var held []byte // the last part, which may be the checksum
	for {
		var resp pb.SnapshotResponse
		err := stream.RecvMsg(&resp)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, err
		}
		sum.Write(held) // a hash never fails
		held = resp.Blob
		k, err := w.Write(held)
		n += int64(k)
		if err != nil {
			return n, &writeError{err}
		}
	}
	if len(held) != sha256.Size || string(sum.Sum(nil)) != string(held) {
		return n, errSnapshotDamaged
	}
	return n, nil
}
