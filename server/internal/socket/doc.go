// Package socket has the reads and writes of sockets that are only tried: they
// never wait, so Go's scheduler need not hear of them.
//
// A system call that may block is announced to the scheduler: its processor can
// be taken away meanwhile, and a monitor thread that was asleep, because the
// process was idle, is woken to look after that. For a member that does a little
// work and sleeps again, thousands of times a second, that thread cost more than
// most of the work: it wakes up, and looks around every 20 us until the member is
// idle again. A descriptor that does not block needs none of it.
package socket
