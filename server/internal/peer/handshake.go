package peer

import (
	"fmt"
	"strconv"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/metadata"
)

const (
	protocolVersion = "1"

	keyProtocol = "latchkey-protocol"
	keyCluster  = "latchkey-cluster"
	keyFrom     = "latchkey-from"
	keyTo       = "latchkey-to"
)

// hello is what both sides of a stream say first.
type hello struct{ cluster, from, to uint64 }

func (h hello) metadata() metadata.MD {
	return metadata.Pairs(
		keyProtocol, protocolVersion,
		keyCluster, formatID(h.cluster),
		keyFrom, formatID(h.from),
		keyTo, formatID(h.to),
	)
}

// parseHello refuses another protocol before it looks at anything else: only the protocol line may never change.
func parseHello(md metadata.MD) (hello, error) {
	first := func(key string) string {
		if v := md.Get(key); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	if v := first(keyProtocol); v != protocolVersion {
		return hello{}, fmt.Errorf("peer protocol mismatch: the other side speaks %q, this member %q", v, protocolVersion)
	}
	var h hello
	for _, field := range []struct {
		key string
		id  *uint64
	}{{keyCluster, &h.cluster}, {keyFrom, &h.from}, {keyTo, &h.to}} {
		id, err := strconv.ParseUint(first(field.key), 16, 64)
		if err != nil {
			return hello{}, fmt.Errorf("peer handshake: bad %s %q", field.key, first(field.key))
		}
		*field.id = id
	}
	return h, nil
}

// check compares what the other side said with who this member is. want is the sender that was dialled, 0 for any.
func (h hello) check(cluster, self, want uint64) error {
	switch {
	case h.cluster != cluster:
		return fmt.Errorf("cluster id mismatch: the other side is of cluster %x, this member of %x", h.cluster, cluster)
	case h.to != self:
		return fmt.Errorf("member id mismatch: the other side looks for member %x, this is %x", h.to, self)
	case want != 0 && h.from != want:
		return fmt.Errorf("member id mismatch: member %x answers where %x was expected", h.from, want)
	}
	return nil
}

func formatID(id uint64) string { return strconv.FormatUint(id, 16) }

// wireTypes are the raft messages that members send each other on streams. Every other type is a member's talk with
// itself, or a snapshot, which has its own stream. True: may be forwarded, so that its From need not be the sender.
var wireTypes = map[raftpb.MessageType]bool{
	raftpb.MsgProp:           true,
	raftpb.MsgReadIndex:      true,
	raftpb.MsgTransferLeader: true,
	raftpb.MsgApp:            false,
	raftpb.MsgAppResp:        false,
	raftpb.MsgVote:           false,
	raftpb.MsgVoteResp:       false,
	raftpb.MsgPreVote:        false,
	raftpb.MsgPreVoteResp:    false,
	raftpb.MsgHeartbeat:      false,
	raftpb.MsgHeartbeatResp:  false,
	raftpb.MsgTimeoutNow:     false,
	raftpb.MsgReadIndexResp:  false,
}

// isBulk tells which stream carries a type: bulk for what carries entries.
func isBulk(t raftpb.MessageType) bool { return t == raftpb.MsgApp || t == raftpb.MsgProp }

// checkMessage tells why a message received from member `from` must not reach raft; nil when it may.
func (t *Transport) checkMessage(from uint64, m *raftpb.Message) error {
	forwarded, ok := wireTypes[m.GetType()]
	switch {
	case !ok:
		return fmt.Errorf("%v does not belong on a stream", m.GetType())
	case m.GetTo() != t.id:
		return fmt.Errorf("%v is addressed to member %x, this is %x", m.GetType(), m.GetTo(), t.id)
	case m.GetFrom() != from && !forwarded:
		return fmt.Errorf("%v claims to be from member %x on the stream of %x", m.GetType(), m.GetFrom(), from)
	case m.GetFrom() != t.id && !t.known(m.GetFrom()):
		return fmt.Errorf("%v is from the unknown member %x", m.GetType(), m.GetFrom())
	}
	return nil
}
