package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

const (
	protocol        = "latchkey-peer/"
	protocolVersion = "2"
	greeting        = protocol + protocolVersion
	greetingMax     = 32 // with the newline
)

var (
	errStranger = errors.New("the other side does not speak the peer protocol")
	errRefused  = errors.New("refused by the other side")
)

// connectionKind tells what a connection is for.
type connectionKind byte

const (
	kindBulk connectionKind = 1 + iota
	kindControl
	kindSnapshot
	kindInquiry
)

// connection is a connection between members: TCP, perhaps with TLS over it.
type connection struct {
	*link          // the TCP connection; closing it ends all above it
	top   net.Conn // what frames go through: the link, or TLS over it
	in    reader
}

func (c *connection) use(top net.Conn) {
	c.top = top
	c.in = reader{conn: top, limit: reasonMaxBytes}
}

func newConnection(raw net.Conn) *connection {
	c := &connection{link: newLink(raw)}
	c.use(c.link)
	return c
}

// hello is what both sides of a connection say first.
type hello struct {
	cluster, from, to uint64
	kind              connectionKind
}

// encode returns the first line and the first frame.
func (h hello) encode() []byte {
	body := make([]byte, 0, helloBytes)
	for _, id := range []uint64{h.cluster, h.from, h.to} {
		body = binary.LittleEndian.AppendUint64(body, id)
	}
	return append([]byte(greeting+"\n"), sealed(frameHello, append(body, byte(h.kind)))...)
}

func refusal(reason error) []byte {
	text := reason.Error()
	return sealed(frameRefusal, []byte(text[:min(len(text), reasonMaxBytes)]))
}

// readHello reads the first line and the first frame. It refuses another protocol before it looks at anything else: only
// the first line may never change.
func (c *connection) readHello() (hello, error) {
	line, err := c.in.line(greetingMax)
	if err != nil {
		return hello{}, err
	}
	if v, ok := strings.CutPrefix(line, protocol); !ok {
		return hello{}, errStranger
	} else if v != protocolVersion {
		return hello{}, protocolError{v}
	}
	kind, body, err := c.in.next()
	switch {
	case err != nil:
		return hello{}, err
	case kind == frameRefusal:
		return hello{}, fmt.Errorf("%w: %s", errRefused, body)
	case kind == frameExpelled:
		return hello{}, errExpelled
	case kind != frameHello || len(body) != helloBytes:
		return hello{}, errFraming
	}
	id := binary.LittleEndian.Uint64
	return hello{id(body), id(body[8:]), id(body[16:]), connectionKind(body[24])}, nil
}

// protocolError is the mismatch of versions.
type protocolError struct{ theirs string }

func (e protocolError) Error() string {
	return fmt.Sprintf("peer protocol mismatch: the other side speaks %q, this member %q", e.theirs, protocolVersion)
}

// greet is the handshake of the side that dialled.
func (c *connection) greet(h hello) error {
	if _, err := c.top.Write(h.encode()); err != nil {
		return err
	}
	answer, err := c.readHello()
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if answer.kind != h.kind {
		return errFraming
	}
	if err := answer.check(h.cluster, h.from, h.to); err != nil {
		return err
	}
	c.in.limit = frameMaxBytes
	return nil
}

// admit is the handshake of the side that accepted. It refuses with a reason who at least speaks the protocol.
func (t *Transport) admit(ctx context.Context, in *inbound) error {
	deadline := time.Now().Add(t.timing.open)
	if err := in.Conn.SetDeadline(deadline); err != nil {
		return err
	}
	if t.secure.Server != nil {
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		top, err := t.secure.Server(ctx, in.link)
		if err != nil {
			host, _, _ := net.SplitHostPort(in.RemoteAddr().String()) // a reason is logged once, ports differ
			err = fmt.Errorf("secure connection from %s: %w", host, err)
			t.refuse(err)
			return err
		}
		in.use(top)
	}
	h, err := in.readHello()
	if err == nil && h.kind == kindInquiry {
		return t.describe(ctx, in)
	}
	if err == nil {
		err = h.check(t.cluster, t.id, 0)
	}
	if err == nil && (h.kind < kindBulk || h.kind > kindSnapshot) {
		err = fmt.Errorf("peer handshake: connection of unknown kind %d", h.kind)
	}
	known := err == nil && t.known(h.from)
	if err == nil && t.expelled(h.from) {
		_, _ = in.top.Write(append([]byte(greeting+"\n"), sealed(frameExpelled)...))
		return errExpelled
	}
	if err == nil && !known && t.standing.Stranger != nil {
		t.standing.Stranger(h.from)
	}
	if err == nil && !known {
		// Not logged: a member that was just added comes before the entry that adds it was applied here.
		err = fmt.Errorf("member %x does not know member %x", t.id, h.from)
	} else if err != nil {
		t.refuse(err)
	}
	if err != nil {
		if !errors.Is(err, errStranger) {
			_, _ = in.top.Write(append([]byte(greeting+"\n"), refusal(err)...)) // the refused one is about to be cut off anyway
		}
		return err
	}
	if _, err := in.top.Write(hello{t.cluster, t.id, h.from, h.kind}.encode()); err != nil {
		return err
	}
	in.in.limit = frameMaxBytes
	if err := in.Conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	t.greeted(in, h)
	return nil
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
// itself, or a snapshot, which has its own connection. True: may be forwarded, so that its From need not be the sender.
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
