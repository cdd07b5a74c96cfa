package state

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// oneOfEach is a command of each kind, with every field of our own two messages set.
func oneOfEach() []Command {
	return []Command{
		{Kind: KindPut, Request: &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: -3, PrevKv: true}},
		{Kind: KindDeleteRange, Request: &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte{0}}},
		{Kind: KindTxn, Request: &pb.TxnRequest{Compare: []*pb.Compare{ifMod("k", equal, 4)}, Success: ops(opPut("a", "b"))}},
		{Kind: KindCompact, Request: &pb.CompactionRequest{Revision: 5}},
		{Kind: KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: 6, TTL: 7}},
		{Kind: KindLeaseRevoke, Request: &pb.LeaseRevokeRequest{ID: 8}},
		{Kind: KindExpireLeases, Request: &ExpireLeases{IDs: []int64{1, -1, 1 << 62}}},
		{Kind: KindExpireLeases, Request: &ExpireLeases{}},
		{Kind: KindMember, Request: &Member{ID: 1 << 63, Name: "n", PeerURLs: []string{"p", ""}, ClientURLs: []string{"c", "d"}, Learner: true}},
		{Kind: KindMember, Request: &Member{}},
		{Kind: KindPut, Request: &pb.PutRequest{Key: []byte("k")}, Caller: Caller{User: "u", AuthRevision: 300}},
		{Kind: KindMember, Request: &Member{ID: 3}, Caller: Caller{AuthRevision: 1}},
		{Kind: KindAuthEnable, Request: &pb.AuthEnableRequest{}},
		{Kind: KindAuthDisable, Request: &pb.AuthDisableRequest{}},
		{Kind: KindAuthenticate, Request: &pb.InternalAuthenticateRequest{Name: "u", SimpleToken: "t"}},
		{Kind: KindUserAdd, Request: &pb.AuthUserAddRequest{Name: "u", HashedPassword: "aGFzaA=="}},
		{Kind: KindUserDelete, Request: &pb.AuthUserDeleteRequest{Name: "u"}},
		{Kind: KindUserChangePassword, Request: &pb.AuthUserChangePasswordRequest{Name: "u", HashedPassword: "aGFzaA=="}},
		{Kind: KindUserGrantRole, Request: &pb.AuthUserGrantRoleRequest{User: "u", Role: "r"}},
		{Kind: KindUserRevokeRole, Request: &pb.AuthUserRevokeRoleRequest{Name: "u", Role: "r"}},
		{Kind: KindRoleAdd, Request: &pb.AuthRoleAddRequest{Name: "r"}},
		{Kind: KindRoleDelete, Request: &pb.AuthRoleDeleteRequest{Role: "r"}},
		{Kind: KindRoleGrantPermission, Request: &pb.AuthRoleGrantPermissionRequest{Name: "r"}},
		{Kind: KindRoleRevokePermission, Request: &pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("k")}},
		{Kind: KindAlarm, Request: &pb.AlarmRequest{Action: 1, MemberID: 1 << 63, Alarm: 2}},
		{Kind: KindRaise, Request: &pb.AlarmRequest{Action: 2, MemberID: 3, Alarm: 1}},
		{Kind: KindFingerprint, Request: &pb.HashKVRequest{Revision: FingerprintVersion}},
		{Kind: KindDowngrade, Request: &pb.DowngradeRequest{Action: 1, Version: "3.6.0"}},
		{Kind: KindDivergence, Request: &Divergence{Member: 1 << 63, Index: 7, Sum: []byte{1, 2}}},
	}
}

func requireSameCommand(t *testing.T, want, got Command) {
	t.Helper()
	require.Equal(t, want.Kind, got.Kind)
	require.Equal(t, want.Caller, got.Caller)
	if m, ok := want.Request.(proto.Message); ok {
		require.True(t, proto.Equal(m, got.Request.(proto.Message)), "want %v, got %v", want.Request, got.Request)
		return
	}
	require.Equal(t, want.Request, got.Request)
}

func TestCommandRoundTrip(t *testing.T) {
	for _, c := range oneOfEach() {
		prefix := []byte("before")
		b, err := c.AppendTo(prefix)
		require.NoError(t, err)
		require.Equal(t, "before", string(b[:len(prefix)]))
		got, err := DecodeCommand(b[len(prefix):])
		require.NoError(t, err)
		clear(b) // the command must not share the bytes
		requireSameCommand(t, c, got)
	}
}

// The encodings are in logs: these bytes may never change their meaning.
func TestCommandBytes(t *testing.T) {
	for want, c := range map[string]Command{
		"\x01\n\x01k\x12\x01v":   {Kind: KindPut, Request: &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}},
		"\x04\b\x05":             {Kind: KindCompact, Request: &pb.CompactionRequest{Revision: 5}},
		"\x07\n\x03\x01\x80\x01": {Kind: KindExpireLeases, Request: &ExpireLeases{IDs: []int64{1, 128}}},
		"\x08\b\x05\x12\x01n\x1a\x01p\x22\x01c\x28\x01": {Kind: KindMember, Request: &Member{ID: 5, Name: "n", PeerURLs: []string{"p"}, ClientURLs: []string{"c"}, Learner: true}},
		"\x32\x03\x01u\x02\n\x01k":                      {Kind: KindDeleteRange, Request: &pb.DeleteRangeRequest{Key: []byte("k")}, Caller: Caller{User: "u", AuthRevision: 3}},
		"\x20":                                          {Kind: KindAuthEnable, Request: &pb.AuthEnableRequest{}},
		"\x02\n\x01k":                                   {Kind: KindDeleteRange, Request: &pb.DeleteRangeRequest{Key: []byte("k")}},
		"\x05\b\x03\x10\x01":                            {Kind: KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: 1, TTL: 3}},
		"\x06\b\x01":                                    {Kind: KindLeaseRevoke, Request: &pb.LeaseRevokeRequest{ID: 1}},
		"\x03\x12\x05\x12\x03\n\x01k":                   {Kind: KindTxn, Request: &pb.TxnRequest{Success: ops(opPut("k", ""))}},
		"\x18\b\x01\x10\x05\x18\x01":                    {Kind: KindAlarm, Request: &pb.AlarmRequest{Action: 1, MemberID: 5, Alarm: 1}},
		"\x19\b\x02\x10\x05\x18\x02":                    {Kind: KindRaise, Request: &pb.AlarmRequest{Action: 2, MemberID: 5, Alarm: 2}},
		"\x1a\b\x01":                                    {Kind: KindFingerprint, Request: &pb.HashKVRequest{Revision: 1}},
		"\x1b\b\x01\x12\x053.6.0":                       {Kind: KindDowngrade, Request: &pb.DowngradeRequest{Action: 1, Version: "3.6.0"}},
		"\x1c\b\x05\x10\x07\x1a\x01s":                   {Kind: KindDivergence, Request: &Divergence{Member: 5, Index: 7, Sum: []byte("s")}},
	} {
		got, err := DecodeCommand([]byte(want))
		require.NoError(t, err, "%q", want)
		requireSameCommand(t, c, got)
		b, err := c.AppendTo(nil)
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
}

func TestCommandRefused(t *testing.T) {
	for name, b := range map[string]string{
		"nothing":               "",
		"kind zero":             "\x00",
		"a kind of the future":  "\x09\n\x01k",
		"protobuf cut short":    "\x01\n\x05k",
		"expire: tag cut short": "\x07\x80",
		"expire: field cut":     "\x07\n\x05\x01",
		"expire: id cut short":  "\x07\n\x01\x80",
		"member: field number":  "\x08\x00\x01",
		"member: varint cut":    "\x08\b\x80",
		"a caller alone":        "\x32\x01\x01u",
		"a caller cut short":    "\x32\x01\x05u",
		"two callers":           "\x32\x01\x01u\x32\x01\x01u\x20",
	} {
		_, err := DecodeCommand([]byte(b))
		require.ErrorIs(t, err, ErrCommand, name)
	}
	for _, c := range []Command{
		{}, {Kind: KindPut, Request: nil}, {Kind: KindPut, Request: &pb.TxnRequest{}}, {Kind: KindPut, Request: &ExpireLeases{}}, {Kind: KindMember, Request: &ExpireLeases{}},
		{Kind: KindExpireLeases, Request: &Member{}}, {Kind: 99, Request: &pb.PutRequest{}}, {Kind: KindPut, Request: "text"}, {Kind: KindMember, Request: (*Member)(nil)},
	} {
		b, err := c.AppendTo([]byte("before"))
		require.ErrorIs(t, err, ErrCommand)
		require.Equal(t, "before", string(b))
	}
	// A field that a later version adds to our own messages is skipped.
	c, err := DecodeCommand([]byte("\x08\x08\x05\x31\x01\x02\x03\x04\x05\x06\x07\x08\x3a\x01x\x40\x01"))
	require.NoError(t, err)
	require.Equal(t, &Member{ID: 5}, c.Request)
}

// Whatever decodes can be applied, and encodes to something that decodes to the same.
func FuzzDecodeCommand(f *testing.F) {
	for _, c := range oneOfEach() {
		b, err := c.AppendTo(nil)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCommand)
			return
		}
		again, err := c.AppendTo(nil)
		require.NoError(t, err)
		got, err := DecodeCommand(again)
		require.NoError(t, err)
		requireSameCommand(t, c, got)

		m := New(Config{})
		m.Apply(1, 1, []Command{
			{Kind: KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: 1, TTL: 9}},
			{Kind: KindPut, Request: &pb.PutRequest{Key: []byte("k"), Lease: 1}},
		})
		m.Apply(2, 1, []Command{got, c})
		require.NoError(t, m.Check())
	})
}

// What a client has sent enters the log as it is if it is what would be encoded; else it is encoded.
func TestNewCommand(t *testing.T) {
	for _, c := range oneOfEach() {
		r, ok := c.Request.(proto.Message)
		if !ok || c.Caller != (Caller{}) {
			continue
		}
		want, err := c.AppendTo(nil)
		require.NoError(t, err)
		for _, odd := range []string{"", "\xf8\x07\x01"} { // a field that nobody knows
			body := []byte(string(want[1:]) + odd)
			got, err := NewCommand(c.Kind, r.ProtoReflect().New().Interface(), body)
			require.NoError(t, err)
			clear(body)
			for _, encode := range []func() ([]byte, error){got.Encode, func() ([]byte, error) { return got.AppendTo(nil) }} {
				b, err := encode()
				require.NoError(t, err)
				require.Equal(t, string(want)+odd, string(b))
			}
			got.Caller = Caller{User: "u", AuthRevision: 7}
			called := c
			called.Caller = got.Caller
			wantCalled, err := called.AppendTo(nil)
			require.NoError(t, err)
			b, err := got.Encode()
			require.NoError(t, err)
			require.Equal(t, string(wantCalled)+odd, string(b))
		}
	}
	_, err := NewCommand(KindPut, new(pb.PutRequest), []byte("\x0a\x05a"))
	require.EqualError(t, err, proto.Unmarshal([]byte("\x0a\x05a"), new(pb.PutRequest)).Error())
}

// The bytes of a client's put become the log's in one allocation; besides, there are the key and the value.
func TestNewCommandAllocations(t *testing.T) {
	body, err := proto.Marshal(&pb.PutRequest{Key: make([]byte, 20), Value: make([]byte, 256)})
	require.NoError(t, err)
	r := new(pb.PutRequest)
	n := testing.AllocsPerRun(100, func() {
		c, err := NewCommand(KindPut, r, body)
		if err != nil {
			panic(err)
		}
		if _, err := c.Encode(); err != nil {
			panic(err)
		}
	})
	require.LessOrEqual(t, n, 4.0) // the race detector may add one
}
