// Package peer carries raft messages, snapshots and small calls between the members of a cluster.
//
// # Overview
//
// A [Transport] keeps a session with every other member. A session is two gRPC streams, each on a connection of its
// own: the bulk stream carries appends and proposals, the control stream carries heartbeats, votes, read indexes and
// every answer. So a megabyte of entries in a socket buffer never stands before a heartbeat. [Transport.Send] only
// queues; one goroutine a stream takes all that waits and sends it as one frame, so batches grow with the load and an
// idle stream adds no delay.
//
// Snapshots go by a stream each, and [Transport.Call] is a unary call for small questions to another member.
//
// # Guarantees
//
//   - Messages of one stream arrive in the order in which they were given to Send, or are lost; never twice.
//   - Whenever a message may have been lost, [Handler.Unreachable] is called after the loss, so that raft stops
//     assuming that its pipeline arrived. A loss has two causes: a full queue, and a session that broke.
//   - Every snapshot message given to Send ends in one [Handler.SnapshotSent], whatever happens to it.
//   - A message that reaches the [Handler] came from a member of the same cluster that Transport was told of, is
//     addressed to this member, and passed its checksum.
//   - After [Transport.Close] returned, no method of the Handler runs or will be called.
//
// # Sessions and failure detection
//
// A session is up when the other member has answered the handshake on both streams. When either stream breaks, both
// are closed, the queues are emptied, and the session is opened again: at once the first time, then with a delay that
// doubles from 20 ms to 250 ms. The end of a process ends its sockets, so its peers are told within a round trip. A
// peer that is silent without closing anything (a cut cable, a stopped process) is given up after two seconds: the
// receiving side of each stream sends an empty frame every half second, and its absence breaks the session.
//
// While a session is down its queues keep the newest few messages. They let the first votes of a starting cluster
// through, and can not become a backlog of stale heartbeats.
//
// # Wire format
//
// The service is latchkey.peer.v1.Peer with the methods Bulk, Control, Snapshot and Call. Every gRPC message is
//
//	crc32c uint32 little-endian, over the body
//	body
//
// The body on Bulk and Control is a sequence of (uvarint length, raftpb.Message). On Snapshot it is a kind byte, then:
// 'h' uint64 size and the raftpb.Message; 'd' bytes of the checkpoint; 'e' uint64 size and the SHA-256 of all bytes.
// On Call it is a method byte and the question one way, the answer the other way. Integers are little-endian.
//
// Each stream and call begins with the metadata latchkey-protocol, latchkey-cluster, latchkey-from and latchkey-to;
// the answering side sends the same with from and to exchanged. A mismatch ends the stream with FailedPrecondition.
package peer
