// Generate writes, for protoc, the descriptors of what our .proto files import: etcd's messages, as they are linked into
// this program, and what these import in turn. So nobody needs a copy of etcd's or Google's files. See api/generate.sh.
package main

import (
	"log"
	"os"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/versionpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// etcdFiles are etcd's files by the path under which they import each other. They are registered by another one.
var etcdFiles = map[string]protoreflect.FileDescriptor{
	"etcd/api/authpb/auth.proto":       authpb.File_auth_proto,
	"etcd/api/etcdserverpb/rpc.proto":  pb.File_rpc_proto,
	"etcd/api/mvccpb/kv.proto":         mvccpb.File_kv_proto,
	"etcd/api/versionpb/version.proto": versionpb.File_version_proto,
}

func main() {
	s := &set{seen: make(map[string]bool)}
	s.add("etcd/api/etcdserverpb/rpc.proto", nil)
	text, err := proto.Marshal(&s.files)
	if err == nil {
		_, err = os.Stdout.Write(text)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// set is a list of files in which each stands behind all that it imports.
type set struct {
	files descriptorpb.FileDescriptorSet
	seen  map[string]bool
}

func (s *set) add(path string, f protoreflect.FileDescriptor) {
	if s.seen[path] {
		return
	}
	s.seen[path] = true
	if own := etcdFiles[path]; own != nil {
		f = own
	}
	for i := range f.Imports().Len() {
		imported := f.Imports().Get(i)
		s.add(imported.Path(), imported.FileDescriptor)
	}
	file := protodesc.ToFileDescriptorProto(f)
	file.Name = &path
	s.files.File = append(s.files.File, file)
}
