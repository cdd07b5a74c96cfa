// Package rpc holds the gRPC services of the etcd v3 API: it validates a
// request, hands it to the member and turns the answer into etcd's terms.
//
// # A request's way
//
// Every handler has the same four steps: refuse what is malformed before
// anything changes (check.go), ask the [Store] (a proposal for a write, a view
// for a read), fill the response header, and translate errors into the status
// codes and texts that etcd's clients compare with (errors.go). The package
// holds no state of its own and starts no goroutine but those of a stream.
//
// # Reads
//
// A linearizable read asks for a view that contains every write completed
// before the read began; a serializable one takes whatever this member has.
// Both then run on the handler's own goroutine, without a lock.
package rpc
