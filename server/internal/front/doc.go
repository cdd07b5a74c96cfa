// Package front serves gRPC to clients, and plain HTTP beside it: HTTP/2 frames in, calls out, and the answers back.
//
// # Why not the server of grpc-go
//
// It gives each call a goroutine and each connection two more, so a call costs three changes of goroutine besides the
// kernel's own work. On a machine that is shared with the members' other work they are most of what a small request
// costs (docs/decisions/0005-front.md has the figures). Here a connection has one goroutine, its reader. It decodes
// frames and hands a complete call to a [Direct] method, which does not block: it answers at once, or takes the call
// along and answers later, from whatever goroutine then has the result. Answers that become ready together are written
// together, one write a connection, by a [Batch].
//
// All other methods, streams among them, are served as grpc-go serves them, each call on a goroutine of its own: Server
// is a [grpc.ServiceRegistrar], so generated code and services of others need not know.
//
// # What it speaks
//
// HTTP/2 (RFC 9113) with prior knowledge and HPACK (RFC 7541, by x/net's decoder), as far as gRPC needs it: no push, no
// priorities. gRPC over HTTP/2 with every kind of method, metadata, deadlines, cancellation, status details, and
// compressed requests for the compressors that the program registered. A client that breaks the protocol gets the
// error that the RFC names, on the stream or by GOAWAY.
//
// # What else it serves
//
// A connection's first bytes decide: one that does not begin as HTTP/2 does is given to net/http. Config.Web serves its
// requests, and those of HTTP/2 that are none of gRPC. [Server.Local] calls the methods within the process, by the way
// of all calls that are not Direct.
//
// # Flow of bytes
//
// A reader takes its buffer from a pool only when there is something to read, so an idle connection holds none.
// A message may be larger than a stream's window: the window is raised for the message once its length is known. What a
// stream has received and its handler has not consumed is bounded by that; what a stream has sent and the client does
// not take is bounded too, by blocking the stream's SendMsg.
//
// A write is tried at once, without blocking, by the goroutine that has the answer. What the socket does not take is
// written by a goroutine that lives until the backlog is gone, so one slow client holds up nobody. When much waits for a
// socket, the connection's reader stops, and after stallTimeout the connection is cut.
//
// Over TLS the same is done on the socket below it, if that can (gate.Socket; docs/decisions/0008-tls.md): a write that
// the socket does not take stays there, encrypted, and the connection's drain goes on with it.
//
// # What a hostile client can do
//
// A connection's costs are bounded, whatever comes on it. A stream that ends while a handler or a Direct method is at it
// counts as an orphan among the streams until they are done, so resets win no more calls. Streams that wait for their own
// window are in no list: its update finds them. Those that wait for the connection's window are taken up only while
// there is some. So no frame costs a walk over all streams, but a change of the initial window, whose number is bounded.
// What streams have received (held) and have waiting (unsent) is summed up for each connection.
package front
