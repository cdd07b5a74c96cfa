package interop_test

import (
	"context"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// unaryMethods are the methods that take a request of each type.
var unaryMethods = map[string]string{
	"RangeRequest": pb.KV_Range_FullMethodName, "PutRequest": pb.KV_Put_FullMethodName,
	"DeleteRangeRequest": pb.KV_DeleteRange_FullMethodName, "TxnRequest": pb.KV_Txn_FullMethodName,
	"CompactionRequest": pb.KV_Compact_FullMethodName, "LeaseGrantRequest": pb.Lease_LeaseGrant_FullMethodName,
	"LeaseRevokeRequest": pb.Lease_LeaseRevoke_FullMethodName, "LeaseTimeToLiveRequest": pb.Lease_LeaseTimeToLive_FullMethodName,
	"LeaseLeasesRequest": pb.Lease_LeaseLeases_FullMethodName,
	"AuthEnableRequest":  pb.Auth_AuthEnable_FullMethodName, "AuthDisableRequest": pb.Auth_AuthDisable_FullMethodName,
	"AuthStatusRequest": pb.Auth_AuthStatus_FullMethodName, "AuthenticateRequest": pb.Auth_Authenticate_FullMethodName,
	"AuthUserAddRequest": pb.Auth_UserAdd_FullMethodName, "AuthUserGetRequest": pb.Auth_UserGet_FullMethodName,
	"AuthUserListRequest": pb.Auth_UserList_FullMethodName, "AuthUserDeleteRequest": pb.Auth_UserDelete_FullMethodName,
	"AuthUserChangePasswordRequest": pb.Auth_UserChangePassword_FullMethodName,
	"AuthUserGrantRoleRequest":      pb.Auth_UserGrantRole_FullMethodName,
	"AuthUserRevokeRoleRequest":     pb.Auth_UserRevokeRole_FullMethodName,
	"AuthRoleAddRequest":            pb.Auth_RoleAdd_FullMethodName, "AuthRoleGetRequest": pb.Auth_RoleGet_FullMethodName,
	"AuthRoleListRequest": pb.Auth_RoleList_FullMethodName, "AuthRoleDeleteRequest": pb.Auth_RoleDelete_FullMethodName,
	"AuthRoleGrantPermissionRequest":  pb.Auth_RoleGrantPermission_FullMethodName,
	"AuthRoleRevokePermissionRequest": pb.Auth_RoleRevokePermission_FullMethodName,
	"StatusRequest":                   pb.Maintenance_Status_FullMethodName, "AlarmRequest": pb.Maintenance_Alarm_FullMethodName,
	"HashKVRequest": pb.Maintenance_HashKV_FullMethodName, "HashRequest": pb.Maintenance_Hash_FullMethodName,
	"MemberListRequest": pb.Cluster_MemberList_FullMethodName,
}

// ask sends one request that is not about watchers. Each renewal has a stream
// of its own.
func (s *side) ask(ctx context.Context, req proto.Message) (proto.Message, error) {
	switch r := req.(type) {
	case streamRange:
		return collectRange(ctx, s.kv, r.RangeRequest)
	case *pb.LeaseKeepAliveRequest:
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := s.lease.LeaseKeepAlive(ctx)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(r); err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	method := unaryMethods[string(req.ProtoReflect().Descriptor().Name())]
	if method == "" {
		return nil, fmt.Errorf("no such request: %T", req)
	}
	out, err := responseOf(method)
	if err != nil {
		return nil, err
	}
	return out, s.conn.Invoke(ctx, method, req, out)
}

// responseOf returns an empty response of a method.
func responseOf(method string) (proto.Message, error) {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/etcdserverpb."), "/")
	methods := pb.File_rpc_proto.Services().ByName(protoreflect.Name(service)).Methods()
	out, err := protoregistry.GlobalTypes.FindMessageByName(methods.ByName(protoreflect.Name(name)).Output().FullName())
	if err != nil {
		return nil, err
	}
	return out.New().Interface(), nil
}

// streamRange is a range that is to be read as a stream.
type streamRange struct{ *pb.RangeRequest }

// collectRange puts the chunks of a stream together: the result is the answer
// that Range would have given.
func collectRange(ctx context.Context, client pb.KVClient, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	stream, err := client.RangeStream(ctx, r)
	if err != nil {
		return nil, err
	}
	out := &pb.RangeResponse{}
	for chunk := range receive(stream.Recv, &err) {
		proto.Merge(out, chunk.RangeResponse)
	}
	return out, err
}
