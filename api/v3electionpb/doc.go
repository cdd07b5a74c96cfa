// Package v3electionpb holds the messages and the gRPC stubs of etcd's election service, generated from election.proto. On the wire they
// are etcd's; a program may link etcd's own package beside this one.
package v3electionpb
