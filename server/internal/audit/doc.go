// Package audit writes who has asked the member for what, and with what outcome: a file of its own, one JSON object a line,
// that is only ever appended to.
//
// A line is written when a request that changes something, or that moves data out as a whole, has been answered, and when
// any request was refused for want of rights; with Config.Reads for all other requests too. What is not known to read only
// counts as a change, so a new method is in the log before somebody thinks of it. Keys are in the lines; values, passwords
// and tokens are not.
//
// The file is opened once. Whoever rotates it copies and truncates it. A line that can not be written is counted and said
// in the member's log; the request is answered all the same, since it has been carried out by then.
package audit
