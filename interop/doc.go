// Package interop compares Latchkey with etcd 3.7 from the outside: it runs
// both as real processes and puts the same questions to them.
//
// It is a module of its own, so that the product depends neither on etcd's
// server nor on its client. Its tests are
//
//   - commands: etcdctl against both, the same output;
//   - bad input: what etcd refuses is refused with the same code and text, and
//     changes nothing;
//   - differential: generated requests of several users to both, equal answers
//     but for a table of reasons; a list says which test compares which method;
//   - locks: the recipes of this project, etcdctl lock and etcd's
//     concurrency.Mutex exclude one another, on either server;
//   - crash: members are killed under load, and what the clients saw must be
//     linearizable and complete;
//   - chaos (with the build tag chaos): one of every recipe in each of five
//     processes, while members and clients fail, and what they have logged must
//     be possible.
//
// Run "go test ./..." for the quick part. Flags make more of it:
//
//	go test -run Differential -diff.requests 20000 -diff.seed 7
//	go test -run Crash -crash.rounds 50
//	go test -tags chaos -run Chaos -chaos.for 30m -chaos.seed 7 -timeout 0
//	go test -subject etcd ./...   # etcd in the place of Latchkey: tests the tests
//
// Package harness starts the servers, and bench measures them.
package interop
