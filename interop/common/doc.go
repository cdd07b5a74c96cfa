// Command common runs etcd's own black-box suite, package tests/common of etcd
// 3.7.3, with latchkey in the place of the etcd binary and stock etcdctl and
// etcdutl, and the same suite with etcd itself. It writes a table of both to
// docs/etcd-common.md and fails if a test that passes with etcd does not pass
// with latchkey.
//
// It is a module of its own: the suite pulls in versions that the other
// interop tests need not follow.
//
//	go run .                      both servers, the whole suite: half an hour on two cores
//	go run . -servers latchkey    latchkey alone, beside the results of etcd in the table
//	go run . -servers latchkey -run 'TestAuth|TestMember' -out ''
package main
