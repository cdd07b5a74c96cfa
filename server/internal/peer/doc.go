// Package peer carries raft messages, snapshots and small calls between the members of a cluster.
//
// # Overview
//
// A [Transport] keeps a session with every other member that it was told of. A session is two TCP connections: the bulk
// connection carries appends and proposals, the control connection carries heartbeats, votes, read indexes, every answer,
// and calls. So a megabyte of entries in a socket buffer never stands before a heartbeat. Each member dials: between two
// members there are two sessions, and messages go only from who dialled to who accepted.
//
// [Transport.Send] puts the messages of one call into one frame for each connection, and writes it at once, on the
// caller's goroutine, with a write that is only tried. What the kernel does not take, what comes after it, and what is
// larger than 64 KiB waits in the stream's queue for its sender, a goroutine that writes until nothing waits, and sends
// all that waits as one frame. So an idle stream costs no other goroutine, and a loaded one batches. On the other side one
// goroutine reads, checks and decodes, and hands all messages of a frame over in one call.
//
// Snapshots have a connection each, and [Transport.Call] asks small questions on the control connection. A call as large
// as 1 MiB would delay heartbeats; calls are meant for a few bytes.
//
// # Guarantees
//
//   - Messages of one stream arrive in the order in which they were given to Send, or are lost; never twice.
//   - Whenever a message may have been lost, [Handler.Unreachable] is called after the loss, so that raft stops
//     assuming that its pipeline arrived. A loss has two causes: a full queue, and a session that broke.
//   - Every snapshot message given to Send ends in one [Handler.SnapshotSent], whatever happens to it.
//   - A message that reaches the [Handler] came from a member of the same cluster that Transport was told of, is
//     addressed to this member, and passed its checksum.
//   - Send and the handler's side of a pulse never wait for a peer.
//   - After [Transport.Close] returned, no method of the Handler runs or will be called.
//
// # Sessions and failure detection
//
// A session is up when the other member has answered the handshake on both connections. When either breaks, both are
// closed, the queues are emptied, and the session is opened again: at once the first time, then with a delay that doubles
// from 20 ms to 250 ms. The end of a process ends its sockets, so its peers are told within a round trip. A peer that is
// silent without closing anything (a cut cable, a stopped process) is given up after two seconds: the accepting side of
// each connection sends an empty frame every half second, and its absence breaks the session; on Linux the kernel also
// gives up a connection whose bytes stay unacknowledged for as long.
//
// A member has at most one accepted connection of each kind but snapshots: a newer one ends the older, which its member
// has given up before. Connections that have not greeted yet are bounded in number and time.
//
// While a session is down its queues keep the newest few messages. They let the first votes of a starting cluster
// through, and can not become a backlog of stale heartbeats.
//
// # Wire format
//
// Integers are little-endian. Each side begins with the line "latchkey-peer/2\n", the dialling side first; only the form
// of this line may never change. All that follows are frames:
//
//	length  uint32  of the body
//	kind    uint32
//	sum     uint32  CRC-32C of the body
//	header  uint32  CRC-32C of the twelve bytes above, so that a spoiled length is never believed
//	body
//
// Each kind bounds its length. Anything else than what is said here ends the connection.
//
//	 1 hello     cluster, from, to: uint64 each; connection: 1 byte, 1 bulk, 2 control, 3 snapshot, 4 inquiry
//	 2 refusal   a text; the connection ends
//	 3 messages  a sequence of (uvarint length, raftpb.Message)
//	 4 pulse     empty
//	 5 question  id uint64, method byte, the question
//	 6 answer    id uint64, 0 and the answer, or 1 and the text of an error
//	 7 cancel    id uint64: nobody waits for this answer
//	 8 head      size uint64, the raftpb.Message of the snapshot without its data
//	 9 data      bytes of the checkpoint
//	10 end       size uint64, SHA-256 of all bytes
//	11 done      empty: the receiver has it durably
//	12 expelled  empty, in place of a hello: you were removed from this cluster, for ever
//	13 members   who the members are
//
// The first frame of each side is hello; the answer has from and to exchanged, or is a refusal. Then, on bulk, messages go
// one way and pulses the other; on control, messages, questions and cancels one way, pulses and answers the other; on a
// snapshot's connection head, data and end one way, done or a refusal the other. An inquiry's hello has ids of 0, as one
// who asks has none yet; the answer is a hello with the ids of cluster and member, then members, and the connection ends.
package peer
