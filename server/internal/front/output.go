package front

import (
	"sync"
	"syscall"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/socket"
)

const (
	// keepOutBytes is the largest write buffer that an idle connection keeps.
	keepOutBytes = 1 << 10
	// bigOutBytes is the size of the pooled buffers that larger writes take.
	bigOutBytes = 64 << 10
	// backlogMax is what may wait for a socket that takes nothing before the connection's reader stops: bytes. Answers
	// to control frames and refusals count here; what streams send stays with them beyond outSoftBytes.
	backlogMax = 1 << 20
	// unsentSoftBytes is the same for what the streams of the connection have waiting.
	unsentSoftBytes = 16 << 20
	// unsentMaxBytes is what the streams of a connection may have waiting in all before calls that are answered
	// directly get an error for an answer: a client that gives no window can ask for more than there is memory.
	unsentMaxBytes = 512 << 20
	// stallTimeout bounds how long a reader waits for a write of at most about backlogMax to get through; then the
	// connection is cut. A client that reads slowly is not.
	stallTimeout = 20 * time.Second
)

var bigBuffers = sync.Pool{New: func() any { return new([bigOutBytes]byte) }}

// reserve makes room for n bytes in out, from the pool if that is enough. mu is held.
func (c *conn) reserve(n int) {
	need := len(c.out) + n
	if need <= cap(c.out) || need <= keepOutBytes || need > bigOutBytes {
		return
	}
	c.out = append(bigBuffers.Get().(*[bigOutBytes]byte)[:0], c.out...)
}

// crowded reports whether so much waits for the client to read that its reader has to stop. It is never true for what
// waits for a window: the reader is who gets that. mu is held.
func (c *conn) crowded() bool {
	return c.writing && (len(c.out) > backlogMax || c.unsent > unsentSoftBytes)
}

// flush writes what waits, as far as the socket takes it. It never blocks: the rest is written by a goroutine. It
// reports whether the connection is crowded.
func (c *conn) flush() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listed = false
	if c.writing || c.closed {
		return c.crowded()
	}
	c.sealPipes()
	c.joinAcks()
	for len(c.out) > 0 {
		c.writing = true
		b := c.out
		c.out = c.spare[:0]
		c.mu.Unlock()
		n, err := c.tryWrite(b)
		c.s.traffic.sent.Add(uint64(n))
		c.mu.Lock()
		switch {
		case err != nil || c.closed:
			c.writing = false
			c.abort()
			return false
		case n < len(b) || !c.settled():
			c.s.wg.Go(func() { c.drain(b[n:]) }) // which has the duty of writing from now on
			return c.crowded()
		}
		c.keep(b)
		c.writing = false
		c.resume()
		c.sealPipes()
	}
	c.depart()
	return false
}

// keep keeps a written buffer for the next one, if it is small. mu is held.
func (c *conn) keep(b []byte) {
	switch c.spare = nil; {
	case cap(b) <= keepOutBytes:
		c.spare = b[:0]
	case cap(b) == bigOutBytes:
		bigBuffers.Put((*[bigOutBytes]byte)(b[:bigOutBytes]))
	}
}

// depart ends a connection that is leaving when nothing is left to do. mu is held.
func (c *conn) depart() {
	if !c.left || c.closed || c.departed || len(c.streams) > 0 || c.orphans > 0 {
		return
	}
	c.departed = true // once: a client that goes on sending does not win time by it
	c.silence()
	if half, ok := c.net.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = c.net.SetReadDeadline(time.Now().Add(lingerTimeout)) // the reader goes on until the client hangs up
		return
	}
	c.abort()
}

// abort makes the reader end the connection. mu is held.
func (c *conn) abort() {
	c.aborted = true
	_ = c.net.SetReadDeadline(time.Unix(1, 0))
	signal(c.roomy)
}

// tryWrite writes what the socket takes now. One goroutine does so at a time.
func (c *conn) tryWrite(b []byte) (n int, err error) {
	switch {
	case c.raw == nil:
		return 0, nil
	case c.below != nil:
		return c.writeNow(b)
	}
	c.write.b, c.write.n, c.write.err = b, 0, nil
	failed := c.raw.Write(c.write.ready)
	c.write.b = nil
	if failed != nil {
		return c.write.n, failed
	}
	return c.write.n, c.write.err
}

// attempt is a write that is under way.
type attempt struct {
	ready func(fd uintptr) bool // try, made once
	b     []byte
	n     int
	err   error
}

// try is called with the socket's descriptor. It never asks to be called again.
func (a *attempt) try(fd uintptr) bool {
	for a.n < len(a.b) {
		k, err := socket.Write(int(fd), a.b[a.n:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			a.err = err
			return true
		}
		a.n += k
	}
	return true
}

// drain writes b and all that is added meanwhile, and waits for the socket.
func (c *conn) drain(b []byte) {
	var err error
	if c.below != nil {
		err = c.below.Wait()
	}
	for {
		if err == nil && len(b) > 0 {
			var n int
			n, err = c.net.Write(b)
			c.s.traffic.sent.Add(uint64(n))
		}
		c.mu.Lock()
		if err != nil || c.closed {
			c.writing = false
			c.abort()
			c.mu.Unlock()
			return
		}
		c.resume()
		c.sealPipes()
		if len(c.out) == 0 {
			c.writing = false
			c.depart()
			signal(c.roomy)
			c.mu.Unlock()
			return
		}
		b = c.out
		c.out = nil
		signal(c.roomy) // or at least there is progress
		c.mu.Unlock()
	}
}

// awaitRoom keeps the reader until its client has read what waits, or nothing for stallTimeout.
func (c *conn) awaitRoom() error {
	stalled := time.NewTimer(stallTimeout)
	defer stalled.Stop()
	for {
		c.mu.Lock()
		over, crowded := c.aborted || c.closed, c.crowded()
		c.mu.Unlock()
		switch {
		case over:
			return errClientGone
		case !crowded:
			return nil
		}
		select {
		case <-c.roomy:
			stalled.Reset(stallTimeout)
		case <-c.ctx.Done():
			return errClientGone
		case <-stalled.C:
			return errStalled
		}
	}
}

// Batch collects the connections on which something was answered, to write to each once. Its zero value is ready; it
// has one user at a time.
type Batch struct{ conns []*conn }

// Flush writes the answers.
func (b *Batch) Flush() {
	for i, c := range b.conns {
		b.conns[i] = nil
		c.flush()
	}
	b.conns = b.conns[:0]
}

// add lists c unless another batch will flush it soon. c.mu is held.
func (b *Batch) add(c *conn) {
	if !c.listed {
		c.listed = true
		b.conns = append(b.conns, c)
	}
}
