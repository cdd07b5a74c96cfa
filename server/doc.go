// Package server runs a member of a Latchkey cluster inside a Go program.
//
//	m, err := server.Start(ctx, server.Config{DataDir: "/var/lib/app"})
//	...
//	defer m.Stop(ctx)
//
// The latchkey binary is a thin layer over it. Tests find a member in one line
// in package servertest.
//
// # One member
//
// A member is a pure core (internal/replica decides, internal/state applies)
// with goroutines around it, each owning one thing:
//
//	handlers -> loop -> appender (log, sync)  -> loop
//	                 -> applier  (machine)    -> handlers, watchers, leases
//	                 -> peers    (streams)
//	keeper: machine -> checkpoint;  lessor: clock -> loop
//
// They hand over through mailboxes: what waits while the receiver works is its
// next batch, so a loaded member packs many requests in one log entry, one
// write, one sync and one message a follower, and an idle one answers at once.
//
// # What an answer means
//
// A write is answered after a quorum has it on disk and this member has applied
// it. If a write can not be answered, the error says whether it is known to
// have had no effect; a request timeout says that it is not known. A change of
// leader alone makes no answer uncertain: every batch names the term that it
// was proposed in and counts for nothing in another, so the member that
// proposed it knows when it is dead, and proposes it again.
//
// # Failure
//
// A failed write or sync of the log or the checkpoint ends the member at once;
// nothing is acknowledged after it. [Server.Done] and [Server.Err] tell.
package server
