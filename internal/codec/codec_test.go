package codec

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// hotMessages are those with a codec by hand.
var hotMessages = []proto.Message{
	&pb.PutRequest{}, &pb.RangeRequest{}, &pb.DeleteRangeRequest{}, &pb.TxnRequest{}, &pb.LeaseGrantRequest{}, &pb.LeaseRevokeRequest{},
	&pb.LeaseKeepAliveRequest{}, &pb.WatchRequest{},
	&pb.PutResponse{}, &pb.RangeResponse{}, &pb.DeleteRangeResponse{}, &pb.TxnResponse{}, &pb.LeaseGrantResponse{}, &pb.LeaseRevokeResponse{},
	&pb.LeaseKeepAliveResponse{}, &pb.WatchResponse{}, &pb.ResponseHeader{}, &mvccpb.KeyValue{}, &mvccpb.Event{},
}

// coldMessages are some of the others.
var coldMessages = []proto.Message{&pb.MemberListResponse{}, &pb.CompactionRequest{}, &pb.RequestOp{}, &pb.Compare{}}

func fresh(m proto.Message) proto.Message { return m.ProtoReflect().New().Interface() }

// marshal is protobuf's encoding, or its refusal.
func marshal(t testing.TB, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	require.NoError(t, err)
	return b
}

// requireSameEncoding wants protobuf's encoding of m from us.
func requireSameEncoding(t testing.TB, m proto.Message) {
	want, wantErr := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	require.Equal(t, proto.Size(m), Size(m), "%T", m)
	prefix := []byte("before")
	got, err := Append(prefix, m)
	if wantErr != nil {
		require.EqualError(t, err, wantErr.Error())
		require.Equal(t, "before", string(got))
		return
	}
	require.NoError(t, err)
	require.Equal(t, "before", string(got[:len(prefix)]))
	if !bytes.Equal(want, got[len(prefix):]) {
		require.FailNow(t, "another encoding", "%T %v\nwant %q\ngot  %q", m, m, want, got[len(prefix):])
	}
}

// requireSameDecoding wants from us what protobuf makes of b.
func requireSameDecoding(t testing.TB, b []byte, kind proto.Message) {
	want, got, owned := fresh(kind), fresh(kind), fresh(kind)
	wantErr := proto.Unmarshal(b, want)
	mine := slices.Clone(b)
	err := Unmarshal(mine, got)
	clear(mine) // the message shares nothing with it
	exact, ownedErr := UnmarshalOwned(slices.Clone(b), owned)
	if wantErr != nil {
		require.EqualError(t, err, wantErr.Error())
		require.EqualError(t, ownedErr, wantErr.Error())
		require.False(t, exact)
		return
	}
	require.NoError(t, err)
	require.NoError(t, ownedErr)
	for _, m := range []proto.Message{got, owned} {
		require.True(t, proto.Equal(want, m), "%T of %q: want %v, got %v", want, b, want, m)
		requireSameNils(t, want.ProtoReflect(), m.ProtoReflect())
		requireCapped(t, m.ProtoReflect())
		requireSameEncoding(t, m)
	}
	if exact {
		require.True(t, bytes.Equal(b, marshal(t, owned)), "what is exact encodes to itself: %T of %q", kind, b)
	}
}

// requireSameNils wants the bytes that are nil in one message to be so in the other: protobuf's equality does not tell.
func requireSameNils(t testing.TB, want, got protoreflect.Message) {
	want.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		g := got.Get(f)
		switch {
		case f.Kind() == protoreflect.BytesKind && !f.IsList():
			require.Equal(t, v.Bytes() == nil, g.Bytes() == nil, "%s", f.FullName())
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				requireSameNils(t, v.List().Get(i).Message(), g.List().Get(i).Message())
			}
		case f.Kind() == protoreflect.MessageKind:
			requireSameNils(t, v.Message(), g.Message())
		}
		return true
	})
}

// requireCapped wants appends to a field to leave others alone: it appends to all of them.
func requireCapped(t testing.TB, m protoreflect.Message) {
	before := m.Interface()
	after := proto.Clone(before)
	eachBytes(m, func(b []byte) { _ = append(b, 0xff, 0xff, 0xff, 0xff) })
	require.True(t, proto.Equal(before, after))
}

func eachBytes(m protoreflect.Message, fn func([]byte)) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Kind() == protoreflect.BytesKind && !f.IsList():
			fn(v.Bytes())
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				eachBytes(v.List().Get(i).Message(), fn)
			}
		case f.Kind() == protoreflect.MessageKind:
			eachBytes(v.Message(), fn)
		}
		return true
	})
}

// fill sets fields of m by chance.
func fill(rng *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case rng.IntN(3) == 0:
		case f.IsList():
			list := m.Mutable(f).List()
			for range rng.IntN(4) {
				list.Append(value(rng, f, list.NewElement, depth))
			}
		default:
			if f.Kind() == protoreflect.MessageKind && depth == 0 {
				continue
			}
			m.Set(f, value(rng, f, func() protoreflect.Value { return m.NewField(f) }, depth))
		}
	}
	if rng.IntN(10) == 0 {
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 7))
	}
}

func value(rng *rand.Rand, f protoreflect.FieldDescriptor, empty func() protoreflect.Value, depth int) protoreflect.Value {
	number := func() int64 {
		numbers := []int64{0, 1, 127, 128, -1, math.MaxInt64, math.MinInt64, int64(rng.Uint64() >> rng.IntN(64))}
		return numbers[rng.IntN(len(numbers))]
	}
	length := func() int { return []int{0, 1, 20, 100, 127, 128, 300, 513, 2000}[rng.IntN(9)] }
	switch f.Kind() {
	case protoreflect.MessageKind:
		v := empty()
		if depth > 0 {
			fill(rng, v.Message(), depth-1)
		}
		return v
	case protoreflect.BytesKind:
		b := make([]byte, length())
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return protoreflect.ValueOfBytes(b)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.Repeat("ä", length()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rng.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(number()))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(number()))
	default:
		return protoreflect.ValueOfInt64(number())
	}
}

// field is one field on the wire.
type field struct {
	number protowire.Number
	kind   protowire.Type
	value  []byte // with its length, if it has one
}

// parse returns the fields of a message, nil if it is none.
func parse(b []byte) (fields []field) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return nil
		}
		fields, b = append(fields, field{number, kind, b[:n]}), b[n:]
	}
	return fields
}

// longer appends v with a byte more than it needs.
func longer(b []byte, v uint64) []byte {
	b = protowire.AppendVarint(b, v)
	b[len(b)-1] |= 0x80
	return append(b, 0)
}

// reencode returns an encoding that protobuf would not write, or would not read: fields in another order, twice, or of
// another type, longer varints than needed, empty ones, unknown ones, groups, bytes missing.
func reencode(rng *rand.Rand, b []byte) []byte {
	fields := parse(b)
	if len(fields) == 0 {
		fields = []field{{number: 1, kind: protowire.VarintType, value: []byte{0}}}
	}
	i, k := rng.IntN(len(fields)), rng.IntN(len(fields))
	f := &fields[i]
	body, isBytes := protowire.ConsumeBytes(f.value)
	long := false
	switch rng.IntN(12) {
	case 0:
		fields[i], fields[k] = fields[k], fields[i]
	case 1:
		fields = append(fields, fields[i])
	case 2:
		fields = slices.Insert(fields, k, fields[i])
	case 3:
		f.kind = protowire.Type(rng.IntN(8))
	case 4:
		f.number = protowire.Number(rng.IntN(20))
	case 5:
		long = true
	case 6:
		f.value = []byte{0}
	case 7:
		fields = append(fields, field{900, protowire.StartGroupType, protowire.AppendTag(nil, 900, protowire.EndGroupType)})
	case 8:
		f.value = f.value[:len(f.value)-1]
	case 9:
		if f.kind == protowire.VarintType {
			v, _ := protowire.ConsumeVarint(f.value)
			f.value = longer(nil, v)
		} else if isBytes > 0 {
			f.value = append(longer(nil, uint64(len(body))), body...)
		}
	default:
		if f.kind == protowire.BytesType && isBytes > 0 && len(body) > 0 {
			f.value = protowire.AppendBytes(nil, reencode(rng, body))
		}
	}
	var out []byte
	for k, f := range fields {
		tag := protowire.EncodeTag(f.number, f.kind)
		if long && k == i {
			out = longer(out, tag)
		} else {
			out = protowire.AppendVarint(out, tag)
		}
		out = append(out, f.value...)
	}
	return out
}

// Messages of all kinds, with fields set by chance, are encoded and decoded as protobuf does, and by hand.
func TestSameAsProtobuf(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, kind := range slices.Concat(hotMessages, coldMessages) {
		byHand := 0
		for range 300 {
			m := fresh(kind)
			fill(rng, m.ProtoReflect(), 1+rng.IntN(6))
			requireSameEncoding(t, m)
			b := marshal(t, m)
			requireSameDecoding(t, b, kind)
			for range 3 {
				b = reencode(rng, b)
				requireSameDecoding(t, b, kind)
			}
			if exact, err := UnmarshalOwned(marshal(t, m), fresh(kind)); err == nil && exact {
				byHand++
			}
		}
		if slices.Contains(hotMessages, kind) {
			require.Greater(t, byHand, 50, "%T", kind)
		} else {
			require.Zero(t, byHand, "%T", kind)
		}
	}
}

// What no decoder returns, but Go lets programs build.
func TestHoles(t *testing.T) {
	for _, kind := range hotMessages {
		requireSameEncoding(t, kind.ProtoReflect().Type().Zero().Interface()) // a nil pointer
		requireSameEncoding(t, fresh(kind))
	}
	for _, m := range []proto.Message{
		&pb.RangeResponse{Kvs: []*mvccpb.KeyValue{nil, {}, nil}},
		&pb.DeleteRangeResponse{PrevKvs: []*mvccpb.KeyValue{nil}},
		&pb.WatchResponse{Events: []*mvccpb.Event{nil, {}}},
		&pb.TxnRequest{Compare: []*pb.Compare{nil, {}}, Success: []*pb.RequestOp{nil, {}}},
		&pb.TxnRequest{Compare: []*pb.Compare{
			{TargetUnion: (*pb.Compare_Version)(nil)}, {TargetUnion: (*pb.Compare_CreateRevision)(nil)}, {TargetUnion: (*pb.Compare_ModRevision)(nil)},
			{TargetUnion: (*pb.Compare_Value)(nil)}, {TargetUnion: (*pb.Compare_Lease)(nil)}, {TargetUnion: &pb.Compare_Value{}},
		}},
		&pb.TxnRequest{Failure: []*pb.RequestOp{
			{Request: (*pb.RequestOp_RequestRange)(nil)}, {Request: (*pb.RequestOp_RequestPut)(nil)}, {Request: (*pb.RequestOp_RequestDeleteRange)(nil)},
			{Request: (*pb.RequestOp_RequestTxn)(nil)}, {Request: &pb.RequestOp_RequestRange{}}, {Request: &pb.RequestOp_RequestPut{}},
			{Request: &pb.RequestOp_RequestDeleteRange{}}, {Request: &pb.RequestOp_RequestTxn{}},
		}},
		&pb.TxnResponse{Responses: []*pb.ResponseOp{nil, {}, {Response: (*pb.ResponseOp_ResponseRange)(nil)}, {Response: (*pb.ResponseOp_ResponsePut)(nil)},
			{Response: (*pb.ResponseOp_ResponseDeleteRange)(nil)}, {Response: (*pb.ResponseOp_ResponseTxn)(nil)}, {Response: &pb.ResponseOp_ResponseRange{}},
			{Response: &pb.ResponseOp_ResponsePut{}}, {Response: &pb.ResponseOp_ResponseDeleteRange{}}, {Response: &pb.ResponseOp_ResponseTxn{}}}},
		&pb.WatchRequest{RequestUnion: (*pb.WatchRequest_CreateRequest)(nil)}, &pb.WatchRequest{RequestUnion: (*pb.WatchRequest_CancelRequest)(nil)},
		&pb.WatchRequest{RequestUnion: (*pb.WatchRequest_ProgressRequest)(nil)}, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{}},
		&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{}}, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{}},
		&pb.WatchResponse{CancelReason: "\xff"}, &pb.LeaseGrantResponse{Error: "\xff"},
	} {
		requireSameEncoding(t, m)
		if b, err := proto.Marshal(m); err == nil {
			requireSameDecoding(t, b, m)
		}
	}
}

// nest returns a transaction in a transaction, and so on.
func nest(levels int) *pb.TxnRequest {
	m := &pb.TxnRequest{}
	for range levels {
		m = &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: m}}}}
	}
	return m
}

func TestDeepTransactions(t *testing.T) {
	for _, levels := range []int{1, depthMax - 1, depthMax, 200} {
		b := marshal(t, nest(levels))
		requireSameDecoding(t, b, &pb.TxnRequest{})
		exact, err := UnmarshalOwned(b, &pb.TxnRequest{})
		require.NoError(t, err)
		require.Equal(t, levels < depthMax, exact)
	}
	b := marshal(t, nest(6000)) // beyond what protobuf reads
	require.Error(t, proto.Unmarshal(b, &pb.TxnRequest{}))
	requireSameDecoding(t, b, &pb.TxnRequest{})
}

// A message that is decoded holds nothing of what it held before.
func TestUnmarshalResets(t *testing.T) {
	for _, kind := range hotMessages {
		rng := rand.New(rand.NewPCG(3, 4))
		m := fresh(kind)
		fill(rng, m.ProtoReflect(), 3)
		require.NoError(t, Unmarshal(nil, m))
		require.True(t, proto.Equal(fresh(kind), m), "%T", kind)
	}
}

// What is given away is used, but not for what a store keeps, nor for parts of answers.
func TestOwnedBytes(t *testing.T) {
	inside := func(b, whole []byte) bool {
		for i := range whole {
			if len(b) > 0 && &whole[i] == &b[0] {
				return true
			}
		}
		return false
	}
	put := &pb.PutRequest{Key: []byte("key"), Value: []byte("value")}
	b := marshal(t, txnOf(put))
	txn := new(pb.TxnRequest)
	_, err := UnmarshalOwned(b, txn)
	require.NoError(t, err)
	require.True(t, inside(txn.Compare[0].Key, b))
	require.True(t, inside(txn.Failure[0].GetRequestRange().Key, b))
	got := txn.Success[0].GetRequestPut()
	require.False(t, inside(got.Key, b) || inside(got.Value, b))

	b = marshal(t, put)
	got = new(pb.PutRequest)
	_, err = UnmarshalOwned(b, got)
	require.NoError(t, err)
	require.False(t, inside(got.Key, b) || inside(got.Value, b))

	pair := marshal(t, &pb.PutResponse{PrevKv: &mvccpb.KeyValue{Key: []byte("key")}})
	answer := new(pb.PutResponse)
	_, err = UnmarshalOwned(pair, answer)
	require.NoError(t, err)
	require.False(t, inside(answer.PrevKv.Key, pair))
}

func TestSizeIsKept(t *testing.T) {
	m := &pb.PutRequest{Key: []byte("key")}
	size := Size(m)
	m.Key = []byte("k")
	require.PanicsWithValue(t, "codec: *etcdserverpb.PutRequest was changed while it was encoded: 2 of 5 bytes are left",
		func() { _, _ = AppendSized(nil, m, size) })
}

// FuzzCodec holds the codec against protobuf: the kind of message is the first number, and the bytes are its encoding.
// The other number, unless it is zero, stands for changes of the encoding that keep it near to one.
func FuzzCodec(f *testing.F) {
	kinds := slices.Concat(hotMessages, coldMessages)
	rng := rand.New(rand.NewPCG(5, 6))
	for i, kind := range kinds {
		m := fresh(kind)
		fill(rng, m.ProtoReflect(), 3)
		f.Add(byte(i), uint64(0), marshal(f, m))
		f.Add(byte(i), uint64(1), marshal(f, m))
	}
	f.Fuzz(func(t *testing.T, kind byte, seed uint64, b []byte) {
		if seed != 0 {
			rng := rand.New(rand.NewPCG(seed, seed))
			for range 1 + seed%3 {
				b = reencode(rng, b)
			}
		}
		requireSameDecoding(t, b, kinds[int(kind)%len(kinds)])
	})
}
