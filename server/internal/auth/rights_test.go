package auth

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// harmless are the fields that no needs depend on, because they choose among, or change, only what the other fields
// have been permitted for. A field that is neither here nor changes the needs fails the test: somebody has to think.
var harmless = map[protoreflect.FullName][]protoreflect.Name{
	"etcdserverpb.RangeRequest": {
		"limit", "revision", "sort_order", "sort_target", "serializable", "keys_only", "count_only",
		"min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision",
	},
	"etcdserverpb.PutRequest": {"value", "ignore_value", "ignore_lease"},
	"etcdserverpb.Compare":    {"result", "target", "version", "create_revision", "mod_revision", "value", "lease"},
	// prev_kv shows a value of a key that may be read.
	"etcdserverpb.WatchCreateRequest": {"start_revision", "progress_notify", "filters", "prev_kv", "watch_id", "fragment"},
	"etcdserverpb.WatchCancelRequest": {"watch_id"},
	"etcdserverpb.WatchRequest":       {"cancel_request", "progress_request"},
	"etcdserverpb.LeaseGrantRequest":  {"TTL", "ID"},
	"etcdserverpb.MemberListRequest":  {"linearizable"},
	"etcdserverpb.AlarmRequest":       {"memberID", "alarm"},
	"v3lockpb.LockRequest":            {"lease"}, // attaching is checked where it is done
	"v3electionpb.CampaignRequest":    {"lease", "value"},
	"v3electionpb.ProclaimRequest":    {"value"},
	"v3electionpb.LeaderKey":          {"name", "rev", "lease"},
}

// recipes describes the services v3lock and v3election, whose messages belong to whoever serves them.
func recipes(t *testing.T) []protoreflect.ServiceDescriptor {
	message := func(name string, fields ...*descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
		for i, f := range fields {
			f.Number = proto.Int32(int32(i + 1))
		}
		return &descriptorpb.DescriptorProto{Name: &name, Field: fields}
	}
	field := func(name string, kind descriptorpb.FieldDescriptorProto_Type, of string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: &name, Type: &kind, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if of != "" {
			f.TypeName = &of
		}
		return f
	}
	const number, text, nested = descriptorpb.FieldDescriptorProto_TYPE_INT64, descriptorpb.FieldDescriptorProto_TYPE_BYTES, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	service := func(pkg, name string, methods ...string) *descriptorpb.ServiceDescriptorProto {
		s := &descriptorpb.ServiceDescriptorProto{Name: &name}
		for _, m := range methods {
			in := "." + pkg + "." + m + "Request"
			s.Method = append(s.Method, &descriptorpb.MethodDescriptorProto{Name: proto.String(m), InputType: &in, OutputType: &in})
		}
		return s
	}
	leader := func() *descriptorpb.FieldDescriptorProto { return field("leader", nested, ".v3electionpb.LeaderKey") }
	var all []protoreflect.ServiceDescriptor
	for _, file := range []*descriptorpb.FileDescriptorProto{
		{
			Name: proto.String("lock"), Package: proto.String("v3lockpb"), Syntax: proto.String("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{
				message("LockRequest", field("name", text, ""), field("lease", number, "")), message("UnlockRequest", field("key", text, "")),
			},
			Service: []*descriptorpb.ServiceDescriptorProto{service("v3lockpb", "Lock", "Lock", "Unlock")},
		}, {
			Name: proto.String("election"), Package: proto.String("v3electionpb"), Syntax: proto.String("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{
				message("LeaderKey", field("name", text, ""), field("key", text, ""), field("rev", number, ""), field("lease", number, "")),
				message("CampaignRequest", field("name", text, ""), field("lease", number, ""), field("value", text, "")),
				message("ProclaimRequest", leader(), field("value", text, "")),
				message("LeaderRequest", field("name", text, "")), message("ObserveRequest", field("name", text, "")),
				message("ResignRequest", leader()),
			},
			Service: []*descriptorpb.ServiceDescriptorProto{
				service("v3electionpb", "Election", "Campaign", "Proclaim", "Leader", "Observe", "Resign")},
		},
	} {
		d, err := protodesc.NewFile(file, nil)
		require.NoError(t, err)
		all = append(all, d.Services().Get(0))
	}
	return all
}

// Every method of every service has a row, and every field of every request, however deep, either changes what the
// request needs or is named above.
func TestEveryMethodAndFieldHasRights(t *testing.T) {
	services := recipes(t)
	for _, file := range []protoreflect.FileDescriptor{pb.File_rpc_proto, healthpb.File_grpc_health_v1_health_proto} {
		for i := range file.Services().Len() {
			services = append(services, file.Services().Get(i))
		}
	}
	var methods int
	for _, s := range services {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			methods++
			row, ok := RowOf(fmt.Sprintf("/%s/%s", s.FullName(), m.Name()))
			require.True(t, ok, m.FullName())
			if row.Open || isRoot(row, m.Input()) {
				continue
			}
			requireFields(t, row, m.Input())
		}
	}
	// The stream that carries requests of others is open: they are looked at one by one.
	require.True(t, rights["/latchkey.v1.Pipe/Carry"].Open)
	methods++
	require.Len(t, rights, methods, "a row for a method that there is not")
	require.Error(t, CheckMethods([]string{"/etcdserverpb.KV/Range", "/etcdserverpb.KV/Other"}))
}

// isRoot reports whether nobody but root may call the method at all, so that no field matters.
func isRoot(row Row, d protoreflect.MessageDescriptor) bool {
	for _, depth := range []int{0, 1, 2} {
		if n := needsOf(row, full(d, depth)); len(n) != 1 || n[0] != fmt.Sprintf("{right %d}", state.RightRoot) {
			return false
		}
	}
	return true
}

// requireFields sets each field by itself, in a request that is else empty, and clears it in one that is full.
func requireFields(t *testing.T, row Row, d protoreflect.MessageDescriptor) {
	t.Helper()
	const depth = 3
	whole := full(d, depth)
	var visit func(path []protoreflect.FieldDescriptor, at protoreflect.MessageDescriptor, left int)
	visit = func(path []protoreflect.FieldDescriptor, at protoreflect.MessageDescriptor, left int) {
		for i := range at.Fields().Len() {
			f := at.Fields().Get(i)
			here := append(slices.Clone(path), f)
			if slices.Contains(harmless[at.FullName()], f.Name()) {
				continue
			}
			if f.Kind() == protoreflect.MessageKind {
				if left > 0 {
					visit(here, f.Message(), left-1)
				}
				continue
			}
			require.True(t, matters(row, d, whole, here), "%s of %s changes no needs: is it harmless?", f.FullName(), d.FullName())
		}
	}
	visit(nil, d, depth)
}

func matters(row Row, d protoreflect.MessageDescriptor, whole protoreflect.Message, path []protoreflect.FieldDescriptor) bool {
	for _, base := range []protoreflect.Message{newOf(d), proto.Clone(whole.Interface()).ProtoReflect()} {
		for _, v := range []int{0, 1, 2} {
			m := proto.Clone(base.Interface()).ProtoReflect()
			set(m, path, 0)
			other := proto.Clone(m.Interface()).ProtoReflect()
			set(other, path, v)
			if !slices.Equal(needsOf(row, m), needsOf(row, other)) {
				return true
			}
		}
	}
	return false
}

// set gives the field at the end of the path the value number v.
func set(m protoreflect.Message, path []protoreflect.FieldDescriptor, v int) {
	f := path[0]
	switch {
	case len(path) == 1:
		m.Set(f, valueOf(f, v))
	case f.IsList():
		l := m.Mutable(f).List()
		if l.Len() == 0 {
			l.AppendMutable()
		}
		set(l.Get(0).Message(), path[1:], v)
	default:
		set(m.Mutable(f).Message(), path[1:], v)
	}
}

func valueOf(f protoreflect.FieldDescriptor, v int) protoreflect.Value {
	if f.IsList() {
		panic(f.FullName() + " is a list of plain values: teach the test")
	}
	switch f.Kind() {
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{"abc"[v]})
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("abc"[v : v+1])
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(v > 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(v))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(v))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(v))
	default:
		return protoreflect.ValueOfInt64(int64(v))
	}
}

// full returns a message with all fields set, of the choices of a oneof the last.
func full(d protoreflect.MessageDescriptor, depth int) protoreflect.Message {
	m := newOf(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		switch {
		case f.Kind() == protoreflect.MessageKind && depth == 0:
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			sub := full(f.Message(), depth-1)
			m.Mutable(f).List().Append(protoreflect.ValueOfMessage(sub))
		case f.Kind() == protoreflect.MessageKind:
			m.Set(f, protoreflect.ValueOfMessage(full(f.Message(), depth-1)))
		case f.IsList():
		default:
			m.Set(f, valueOf(f, 1))
		}
	}
	return m
}

// newOf returns an empty message of the Go type that handlers are given.
func newOf(d protoreflect.MessageDescriptor) protoreflect.Message {
	if t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName()); err == nil {
		return t.New()
	}
	return dynamicpb.NewMessage(d)
}

func needsOf(row Row, m protoreflect.Message) (needs []string) {
	_ = row.Visit(m.Interface(), func(n state.Need) error {
		s := fmt.Sprintf("{right %d", n.Right)
		if len(n.Key)+len(n.End) > 0 {
			s += fmt.Sprintf(" %q-%q", n.Key, n.End)
		}
		if n.Lease != 0 {
			s += fmt.Sprintf(" lease %d", n.Lease)
		}
		needs = append(needs, s+n.Name+"}")
		return nil
	})
	return needs
}
