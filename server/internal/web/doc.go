// Package web serves what a member offers over plain HTTP: etcd's JSON gateway, health, version, metrics and debugging.
//
// # The gateway
//
// The generated handlers of etcd's API translate JSON to messages. They call the services in this process, by the way
// that calls from outside take, so authentication and limits are those of gRPC. The paths are /v3/..., and /v3beta/ and
// /v3alpha/ for old clients. Only POST is served, whatever its content type.
//
// An error's body is the union of what etcd's versions send: {"error":M,"message":M,"code":N}, since clients of either
// kind look for their field. An error on a stream has the fields of both as well. A stream is one JSON document a line,
// and each is flushed when it is there.
//
// # Who may ask
//
// A listener without TLS can be told by which host names it may be asked, so that a web page can not reach it under a
// name of its own (DNS rebinding). A page of another origin gets no answer, and changes nothing, unless the origin is
// listed. A certificate's common name is not a user here: whoever shows one while users are needed is told so.
//
// # Bounds
//
// A request's body is bounded, and so is what all bodies that are being read take together, the number of streams, and
// the time to send a body.
package web
