package front

import (
	"errors"
	"slices"
	"time"
)

// spoken is what is known of a connection's protocol. conn.mu protects it.
type spoken byte

const (
	spokenNothing spoken = iota // its first bytes have not come
	spokenHTTP2
	spokenOther // the server of HTTP/1 has it
)

// errOther ends a connection's reader when the server of HTTP/1 is to go on with it.
var errOther = errors.New("the connection does not speak HTTP/2")

// sniff waits for the client's first bytes, which tell HTTP/2 from HTTP/1. Nothing is written before: a server of HTTP/1
// must not speak first.
func (c *conn) sniff() error {
	c.mu.Lock()
	err := errClientGone
	if !c.aborted { // or it would undo abort's deadline
		err = c.net.SetReadDeadline(time.Now().Add(c.s.cfg.GreetTimeout))
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	for c.end-c.start < len(preface) {
		if err := c.fill(); err != nil {
			return err
		}
		if n := min(c.end-c.start, len(preface)); string(c.in[c.start:c.start+n]) != preface[:n] {
			if c.s.web == nil {
				return protocolError("not HTTP/2")
			}
			return errOther
		}
	}
	return nil
}

// handOver gives the connection, and what was read of it, to the server of HTTP/1. It fails when that has stopped.
func (c *conn) handOver() bool {
	w := &webConn{Conn: c.net, c: c, first: slices.Clone(c.in[c.start:c.end])}
	c.start, c.end = 0, 0
	c.releaseBuffer()
	c.mu.Lock()
	ok := !c.aborted && !c.closed && c.net.SetReadDeadline(time.Time{}) == nil
	if ok {
		c.spoken = spokenOther
	}
	c.mu.Unlock()
	return ok && c.s.web.take(w)
}
