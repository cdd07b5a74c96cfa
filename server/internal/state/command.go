package state

import (
	"cmp"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/internal/codec"
)

// Kind says what a command is. The numbers are in every log ever written: they never change and are never reused.
type Kind uint8

// The commands, each with the type of its Request.
const (
	KindPut          Kind = 1 // *etcdserverpb.PutRequest
	KindDeleteRange  Kind = 2 // *etcdserverpb.DeleteRangeRequest
	KindTxn          Kind = 3 // *etcdserverpb.TxnRequest
	KindCompact      Kind = 4 // *etcdserverpb.CompactionRequest
	KindLeaseGrant   Kind = 5 // *etcdserverpb.LeaseGrantRequest
	KindLeaseRevoke  Kind = 6 // *etcdserverpb.LeaseRevokeRequest
	KindExpireLeases Kind = 7 // *ExpireLeases
	KindMember       Kind = 8 // *Member

	KindAlarm       Kind = 24 // *etcdserverpb.AlarmRequest, an operator's
	KindRaise       Kind = 25 // *etcdserverpb.AlarmRequest, a member's own: see Alarm.Raised
	KindFingerprint Kind = 26 // *etcdserverpb.HashKVRequest, whose Revision is the FingerprintVersion
	KindDowngrade   Kind = 27 // *etcdserverpb.DowngradeRequest
	KindDivergence  Kind = 28 // *Divergence
)

// Command is one entry of a batch: a request of the kind. Whoever hands it to Machine.Apply gives the request away.
type Command struct {
	Kind    Kind
	Request any
	Caller
	encoded []byte // the encoding without the Caller, nil if it is not known
}

// NewCommand returns the command that a client's request is. body is the request's encoding, which is only borrowed, and
// r the message to decode it into, which nobody may change afterwards: AppendTo and Encode then repeat what the client has
// sent. The error is protobuf's, as it is.
func NewCommand(kind Kind, r proto.Message, body []byte) (Command, error) {
	b := append(append(make([]byte, 0, 1+len(body)), byte(kind)), body...)
	exact, err := codec.UnmarshalOwned(b[1:], r)
	if err != nil {
		return Command{}, err
	}
	c := Command{Kind: kind, Request: r}
	if exact {
		c.encoded = b
	}
	return c, nil
}

// Encode is AppendTo for a buffer of its own, which nobody may write to.
func (c Command) Encode() ([]byte, error) {
	if c.encoded != nil && c.Caller == (Caller{}) {
		return c.encoded, nil
	}
	return c.AppendTo(nil)
}

// ExpireLeases revokes the leases whose time is up by the leader's clock. Unknown ids are ignored: they were revoked
// while the command was under way. So are leases that were granted by an entry after index Seen, which is as far as the
// leader knew when it decided: a lease may be revoked, and its id granted anew, before the decision comes through the log.
type ExpireLeases struct {
	IDs  []int64
	Seen uint64 // 0 for all
}

// Member is one member of the cluster. As a command it sets the name and the client URLs of the member ID; its other
// fields belong to membership changes and are ignored.
type Member struct {
	ID         uint64
	Name       string
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
}

// AppendTo appends the encoding of c to b: its Caller, if it has one, a byte with the kind, then the request as protobuf. It fails with ErrCommand
// when the request is not of the kind's type.
func (c Command) AppendTo(b []byte) ([]byte, error) {
	out := c.Caller.appendTo(b)
	if c.encoded != nil {
		return append(out, c.encoded...), nil
	}
	switch r := c.Request.(type) {
	case *ExpireLeases:
		if c.Kind == KindExpireLeases && r != nil {
			return r.appendTo(append(out, byte(c.Kind))), nil
		}
	case *Member:
		if c.Kind == KindMember && r != nil {
			return r.appendTo(append(out, byte(c.Kind))), nil
		}
	case *Divergence:
		if c.Kind == KindDivergence && r != nil {
			return r.appendTo(append(b, byte(c.Kind))), nil
		}
	case *MemberChange:
		if c.Kind.ChangesMembers() && r != nil {
			return r.appendTo(append(b, byte(c.Kind))), nil
		}
	case proto.Message:
		if want := newRequest(c.Kind); want == nil || want.ProtoReflect().Type() != r.ProtoReflect().Type() {
			break
		}
		out, err := codec.Append(append(out, byte(c.Kind)), r)
		if err != nil {
			return b, fmt.Errorf("encode command of kind %d: %w", c.Kind, err)
		}
		return out, nil
	}
	return b, fmt.Errorf("encode %T as kind %d: %w", c.Request, c.Kind, ErrCommand)
}

// DecodeCommand decodes what AppendTo appended. The command shares no memory with b. Bytes that are no command give an
// error that wraps ErrCommand.
func DecodeCommand(b []byte) (Command, error) {
	if len(b) == 0 {
		return Command{}, fmt.Errorf("decode empty command: %w", ErrCommand)
	}
	caller, b, err := cutCaller(b)
	if err != nil || len(b) == 0 {
		return Command{}, fmt.Errorf("decode command of %q: %w", caller.User, cmp.Or(err, ErrCommand))
	}
	kind, body := Kind(b[0]), b[1:]
	var request any
	switch kind {
	case KindExpireLeases:
		r := new(ExpireLeases)
		request, err = r, r.decode(body)
	case KindMember:
		r := new(Member)
		request, err = r, r.decode(body)
	case KindMemberAdd, KindMemberRemove, KindMemberPromote, KindMemberUpdate:
		r := new(MemberChange)
		request, err = r, r.decode(body)
	case KindDivergence:
		r := new(Divergence)
		request, err = r, r.decode(body)
	default:
		r := newRequest(kind)
		if r == nil {
			return Command{}, fmt.Errorf("decode command of unknown kind %d: %w", kind, ErrCommand)
		}
		request, err = r, codec.Unmarshal(body, r)
	}
	if err != nil {
		return Command{}, fmt.Errorf("decode command of kind %d: %w: %w", kind, ErrCommand, err)
	}
	return Command{Kind: kind, Request: request, Caller: caller}, nil
}

// newRequest returns an empty request of the kinds that carry one of etcd's messages, nil for all others.
func newRequest(k Kind) proto.Message {
	switch k {
	case KindPut:
		return new(pb.PutRequest)
	case KindDeleteRange:
		return new(pb.DeleteRangeRequest)
	case KindTxn:
		return new(pb.TxnRequest)
	case KindCompact:
		return new(pb.CompactionRequest)
	case KindLeaseGrant:
		return new(pb.LeaseGrantRequest)
	case KindLeaseRevoke:
		return new(pb.LeaseRevokeRequest)
	case KindAlarm, KindRaise:
		return new(pb.AlarmRequest)
	case KindFingerprint:
		return new(pb.HashKVRequest)
	case KindDowngrade:
		return new(pb.DowngradeRequest)
	default:
		return newAuthRequest(k)
	}
}

// Field numbers of our own two messages; like the kinds, they are on disk for ever.
const (
	fieldExpireIDs  = 1
	fieldExpireSeen = 2

	fieldMemberID        = 1
	fieldMemberName      = 2
	fieldMemberPeerURL   = 3
	fieldMemberClientURL = 4
	fieldMemberLearner   = 5
)

func (e *ExpireLeases) appendTo(b []byte) []byte {
	n := 0
	for _, id := range e.IDs {
		n += protowire.SizeVarint(uint64(id))
	}
	b = protowire.AppendTag(b, fieldExpireIDs, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	for _, id := range e.IDs {
		b = protowire.AppendVarint(b, uint64(id))
	}
	if e.Seen == 0 {
		return b
	}
	b = protowire.AppendTag(b, fieldExpireSeen, protowire.VarintType)
	return protowire.AppendVarint(b, e.Seen)
}

func (e *ExpireLeases) decode(b []byte) error {
	return fields(b, func(num protowire.Number, n uint64, packed []byte) error {
		if num == fieldExpireSeen {
			e.Seen = n
		}
		for num == fieldExpireIDs && len(packed) > 0 {
			id, size := protowire.ConsumeVarint(packed)
			if size < 0 {
				return fmt.Errorf("lease id: %w", protowire.ParseError(size))
			}
			e.IDs, packed = append(e.IDs, int64(id)), packed[size:]
		}
		return nil
	})
}

func (m *Member) appendTo(b []byte) []byte {
	b = protowire.AppendTag(b, fieldMemberID, protowire.VarintType)
	b = protowire.AppendVarint(b, m.ID)
	b = protowire.AppendTag(b, fieldMemberName, protowire.BytesType)
	b = protowire.AppendString(b, m.Name)
	for _, u := range m.PeerURLs {
		b = protowire.AppendTag(b, fieldMemberPeerURL, protowire.BytesType)
		b = protowire.AppendString(b, u)
	}
	for _, u := range m.ClientURLs {
		b = protowire.AppendTag(b, fieldMemberClientURL, protowire.BytesType)
		b = protowire.AppendString(b, u)
	}
	b = protowire.AppendTag(b, fieldMemberLearner, protowire.VarintType)
	return protowire.AppendVarint(b, protowire.EncodeBool(m.Learner))
}

func (m *Member) decode(b []byte) error {
	return fields(b, func(num protowire.Number, n uint64, bytes []byte) error {
		switch num {
		case fieldMemberID:
			m.ID = n
		case fieldMemberName:
			m.Name = string(bytes)
		case fieldMemberPeerURL:
			m.PeerURLs = append(m.PeerURLs, string(bytes))
		case fieldMemberClientURL:
			m.ClientURLs = append(m.ClientURLs, string(bytes))
		case fieldMemberLearner:
			m.Learner = protowire.DecodeBool(n)
		}
		return nil
	})
}

// fields calls fn for each field of a message: n holds a varint field, bytes a length-delimited one. Fields of other
// types are skipped, as a later version may write them.
func fields(b []byte, fn func(num protowire.Number, n uint64, bytes []byte) error) error {
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		var n uint64
		var value []byte
		switch typ {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			value, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(num, typ, b)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := fn(num, n, value); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}
