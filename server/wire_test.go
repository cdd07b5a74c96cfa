package server_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// wire is a connection of HTTP/2 that shows frames, as clients see them that are not built on grpc-go.
type wire struct {
	t testing.TB
	net.Conn
	*http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	next    uint32 // the stream of the next call
}

func dialWire(t testing.TB, addr string) *wire {
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(30*time.Second)))
	w := &wire{t: t, Conn: nc, Framer: http2.NewFramer(nc, nc), next: 1}
	w.encoder = hpack.NewEncoder(&w.block)
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err = io.WriteString(nc, http2.ClientPreface)
	require.NoError(t, err)
	require.NoError(t, w.WriteSettings())
	return w
}

// begin opens a call, with more fields, and sends one message; end says that there is no other.
func (w *wire) begin(method string, m proto.Message, end bool, more ...string) (stream uint32) {
	stream, w.next = w.next, w.next+2
	w.block.Reset()
	fields := []string{
		":method", "POST", ":scheme", "http", ":path", method, ":authority", "x", "content-type", "application/grpc", "te", "trailers",
	}
	fields = append(fields, more...)
	for i := 0; i < len(fields); i += 2 {
		require.NoError(w.t, w.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	require.NoError(w.t, w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.block.Bytes(), EndHeaders: true}))
	body, err := proto.Marshal(m)
	require.NoError(w.t, err)
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	require.NoError(w.t, w.WriteData(stream, end, frame))
	return stream
}

// frames reads a call's frames until it ends: a letter for each, H of headers and D of data, in small where it ends the
// stream; R is a reset. fields are all header fields and trailers.
func (w *wire) frames(stream uint32) (kinds string, fields map[string]string, data []byte) {
	fields = make(map[string]string)
	for !strings.ContainsAny(kinds, "hdR") {
		f, err := w.ReadFrame()
		require.NoError(w.t, err)
		if g, ok := f.(*http2.GoAwayFrame); ok {
			require.Fail(w.t, "the connection ends", "%v %s", g.ErrCode, g.DebugData())
		}
		if f.Header().StreamID != stream {
			continue
		}
		kind := ""
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			kind = "H"
			for _, hf := range f.Fields {
				fields[hf.Name] = hf.Value
			}
		case *http2.DataFrame:
			kind = "D"
			data = append(data, f.Data()...)
		case *http2.RSTStreamFrame:
			kind = "R"
		}
		if f.Header().Flags.Has(http2.FlagDataEndStream) && kind != "R" {
			kind = strings.ToLower(kind)
		}
		kinds += kind
	}
	return kinds, fields, data
}

// refusal is a call that fails, with the code and the text that etcd answers: clients in other languages compare both.
type refusal struct {
	method  string
	request proto.Message
	code    string
	text    string
}

const (
	kvService      = "/etcdserverpb.KV/"
	leaseService   = "/etcdserverpb.Lease/"
	authService    = "/etcdserverpb.Auth/"
	clusterService = "/etcdserverpb.Cluster/"
	maintService   = "/etcdserverpb.Maintenance/"

	invalid, notFound, failed, outOfRange, unimplemented = "3", "5", "9", "11", "12"
)

func manyPuts(n int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for i := range n {
		ops = append(ops, putOp(string(binary.BigEndian.AppendUint32(nil, uint32(i))), ""))
	}
	return ops
}

func putOp(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put(key, value)}}
}

// refusals are for a member whose store was compacted at 3, is at 4, and has lease 7.
func refusals() []refusal {
	a := []byte("a")
	return []refusal{
		{kvService + "Range", &pb.RangeRequest{}, invalid, "etcdserver: key is not provided"},
		{kvService + "Range", &pb.RangeRequest{Key: a, SortOrder: 7}, invalid, "etcdserver: invalid sort option"},
		{kvService + "Range", &pb.RangeRequest{Key: a, Revision: 99}, outOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{kvService + "Range", &pb.RangeRequest{Key: a, Revision: 2}, outOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{kvService + "Range", &pb.RangeRequest{Key: a, Revision: 2, Serializable: true}, outOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{kvService + "RangeStream", &pb.RangeRequest{Key: a, Revision: 2}, outOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{kvService + "Put", &pb.PutRequest{}, invalid, "etcdserver: key is not provided"},
		{kvService + "Put", &pb.PutRequest{Key: a, Lease: 99}, notFound, "etcdserver: requested lease not found"},
		{kvService + "Put", &pb.PutRequest{Key: a, Value: a, IgnoreValue: true}, invalid, "etcdserver: value is provided"},
		{kvService + "Put", &pb.PutRequest{Key: a, Lease: 7, IgnoreLease: true}, invalid, "etcdserver: lease is provided"},
		{kvService + "Put", &pb.PutRequest{Key: []byte("none"), IgnoreValue: true}, invalid, "etcdserver: key not found"},
		{kvService + "DeleteRange", &pb.DeleteRangeRequest{}, invalid, "etcdserver: key is not provided"},
		{kvService + "Txn", &pb.TxnRequest{Success: manyPuts(129)}, invalid, "etcdserver: too many operations in txn request"},
		{kvService + "Txn", &pb.TxnRequest{Success: []*pb.RequestOp{putOp("x", ""), putOp("x", "")}}, invalid, "etcdserver: duplicate key given in txn request"},
		{kvService + "Compact", &pb.CompactionRequest{Revision: 3}, outOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{kvService + "Compact", &pb.CompactionRequest{Revision: 99, Physical: true}, outOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{leaseService + "LeaseGrant", &pb.LeaseGrantRequest{TTL: 9_000_000_001}, outOfRange, "etcdserver: too large lease TTL"},
		{leaseService + "LeaseGrant", &pb.LeaseGrantRequest{ID: 7, TTL: 9}, failed, "etcdserver: lease already exists"},
		{leaseService + "LeaseRevoke", &pb.LeaseRevokeRequest{ID: 99}, notFound, "etcdserver: requested lease not found"},
		{authService + "Authenticate", &pb.AuthenticateRequest{Name: "root", Password: "x"}, failed, "etcdserver: authentication is not enabled"},
		{authService + "AuthEnable", &pb.AuthEnableRequest{}, failed, "etcdserver: root user does not exist"},
		{authService + "UserAdd", &pb.AuthUserAddRequest{}, invalid, "etcdserver: user name is empty"},
		{authService + "UserGet", &pb.AuthUserGetRequest{Name: "x"}, failed, "etcdserver: user name not found"},
		{authService + "RoleGet", &pb.AuthRoleGetRequest{Role: "x"}, failed, "etcdserver: role name not found"},
		{authService + "RoleAdd", &pb.AuthRoleAddRequest{Name: "there"}, failed, "etcdserver: role name already exists"},
		{clusterService + "MemberRemove", &pb.MemberRemoveRequest{ID: 1}, notFound, "etcdserver: member not found"},
		{clusterService + "MemberPromote", &pb.MemberPromoteRequest{ID: 1}, notFound, "etcdserver: member not found"},
		{clusterService + "MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"nonsense"}}, invalid, "etcdserver: given member URLs are invalid"},
		{maintService + "MoveLeader", &pb.MoveLeaderRequest{TargetID: 1}, failed, "etcdserver: bad leader transferee"},
		{kvService + "Nothing", &pb.RangeRequest{}, unimplemented, "unknown method Nothing for service etcdserverpb.KV"},
		{"/no.Service/Nothing", &pb.RangeRequest{}, unimplemented, "unknown service no.Service"},
		{"/grpc.health.v1.Health/Check", &pb.AuthUserGetRequest{Name: "no.Service"}, notFound, "unknown service"},
	}
}

// An error is one frame, of headers that end the stream: eetcd (Erlang) fails on headers that go on to an empty body.
// Its code and its text are etcd's, to the letter.
func TestErrorsAreTrailersOnly(t *testing.T) {
	c := servertest.One(t)
	ctx, m := testContext(t), dial(t, c.Endpoints()[0])
	w := dialWire(t, c.Endpoints()[0])
	for range 3 {
		_, err := m.Put(ctx, put("a", ""))
		require.NoError(t, err)
	}
	_, err := m.Compact(ctx, &pb.CompactionRequest{Revision: 3})
	require.NoError(t, err)
	_, err = m.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 600})
	require.NoError(t, err)
	kinds, fields, data := w.frames(w.begin(authService+"RoleAdd", &pb.AuthRoleAddRequest{Name: "there"}, true))
	require.Equal(t, "HDh", kinds, "what succeeds has headers, a message and trailers")
	require.Equal(t, "0", fields["grpc-status"])
	require.NotEmpty(t, data)
	for _, r := range refusals() {
		kinds, fields, _ := w.frames(w.begin(r.method, r.request, true))
		require.Equal(t, r.code+" "+r.text, fields["grpc-status"]+" "+fields["grpc-message"], "%s %v", r.method, fields)
		require.Equal(t, "h", kinds, r.method)
		require.Equal(t, "200", fields[":status"])
		require.Equal(t, "application/grpc", fields["content-type"])
	}
}

// A token comes in either of two fields, raw, as each client has it; what calls without one may do is as in etcd.
func TestTokenFields(t *testing.T) {
	s := secure(t, servertest.One(t, servertest.WithConfig(cheap)))
	w := dialWire(t, s.cluster.Endpoints()[0])
	login, err := s.auths[0].Authenticate(s.ctx, &pb.AuthenticateRequest{Name: "u", Password: userPassword})
	require.NoError(t, err)
	call := func(method string, m proto.Message, more ...string) string {
		kinds, fields, _ := w.frames(w.begin(method, m, true, more...))
		if fields["grpc-status"] != "0" {
			require.Equal(t, "h", kinds, "%s: Trailers-Only", method)
		}
		return fields["grpc-status"] + " " + fields["grpc-message"]
	}
	for _, field := range []string{"token", "authorization"} {
		require.Equal(t, "0 ", call(kvService+"Range", get("a"), field, login.Token), field)
		require.Equal(t, "0 ", call(kvService+"Put", put("a", "1"), field, login.Token), field)
		require.Equal(t, "7 etcdserver: permission denied", call(kvService+"Put", put("z", "1"), field, login.Token))
		require.Equal(t, "0 ", call(kvService+"Range", get("a"), field, "Bearer "+login.Token), "etcd takes this as well")
		require.Equal(t, "16 etcdserver: invalid auth token", call(kvService+"Put", put("a", "1"), field, "nonsense.1"))
	}
	require.Equal(t, "3 etcdserver: user name is empty", call(kvService+"Range", get("a")))
	require.Equal(t, "3 etcdserver: authentication failed, invalid user ID or password",
		call(authService+"Authenticate", &pb.AuthenticateRequest{Name: "u", Password: "wrong"}))
	// Rust's client shows no token with these; etcd 3.7 wants one, too.
	require.Equal(t, "3 etcdserver: user name is empty", call(clusterService+"MemberList", &pb.MemberListRequest{}))
	require.Equal(t, "3 etcdserver: user name is empty", call(leaseService+"LeaseGrant", &pb.LeaseGrantRequest{ID: 9, TTL: 600}))
	require.Equal(t, "0 ", call("/grpc.health.v1.Health/Check", &pb.StatusRequest{}))
}

// Clients ping while they idle (dskit, Rust), some every two seconds (Portworx). Go's own server would send them away.
func TestClientsMayPing(t *testing.T) {
	w := dialWire(t, servertest.One(t, servertest.WithConfig(func(c *server.Config) {
		c.Limits.KeepAliveMinTime = time.Hour
	})).Endpoints()[0])
	for range 10 {
		_ = w.WritePing(false, [8]byte{})
	}
	for {
		f, err := w.ReadFrame()
		require.NoError(t, err)
		if g, ok := f.(*http2.GoAwayFrame); ok {
			require.Equal(t, http2.ErrCodeEnhanceYourCalm, g.ErrCode)
			require.Equal(t, "too_many_pings", string(g.DebugData()))
			break
		}
	}
	require.LessOrEqual(t, server.DefaultKeepAliveMinTime, 5*time.Second, "CoreDNS pings every five seconds")
}
