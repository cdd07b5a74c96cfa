// Package v3lockpb holds the messages and the gRPC stubs of etcd's lock service, generated from lock.proto. On the wire they
// are etcd's; a program may link etcd's own package beside this one.
package v3lockpb
