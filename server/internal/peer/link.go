package peer

import (
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/socket"
)

// foreignWriteTimeout bounds a write to a connection of a listener that is not TCP, where a write can not be only tried.
const foreignWriteTimeout = time.Second

// link is a connection whose writes need not block. While it is direct, a Write hands the kernel what that takes at once
// and keeps the rest, which is written first by whatever comes next: another Write, retry, or setDirect(false). So TLS,
// which knows nothing of a write that was tried, can run on top of it. Reads wait.
type link struct {
	net.Conn
	raw syscall.RawConn // nil: every write blocks

	mu     sync.Mutex // protects the rest, and is held while writing
	direct bool
	rest   []byte // what the kernel did not take yet

	out     []byte // of the attempt under way
	taken   int
	attempt func(fd uintptr) bool // tryOnce, made once

	arrival arrival
}

// arrival is a read under way. Whoever reads owns it: one goroutine at a time.
type arrival struct {
	ready func(fd uintptr) bool // take, made once
	in    []byte
	n     int
	err   error
}

func newLink(c net.Conn) *link {
	l := &link{Conn: c}
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			l.raw = raw
		}
	}
	l.attempt = l.tryOnce
	l.arrival.ready = l.arrival.take
	return l
}

// Read waits for something and reads it.
func (l *link) Read(p []byte) (int, error) {
	if l.raw == nil || len(p) == 0 {
		return l.Conn.Read(p)
	}
	a := &l.arrival
	a.in, a.n, a.err = p, 0, nil
	err := l.raw.Read(a.ready)
	a.in = nil
	switch {
	case err != nil:
		return 0, err
	case a.err != nil:
		return 0, a.err
	case a.n == 0:
		return 0, io.EOF
	}
	return a.n, nil
}

// take is called with the descriptor, and returns false to be called again when there is something.
func (a *arrival) take(fd uintptr) bool {
	for {
		a.n, a.err = socket.Read(int(fd), a.in)
		if a.err != syscall.EINTR {
			return a.err != syscall.EAGAIN
		}
	}
}

// Write never blocks while the link is direct, and then reports no error: a broken connection is found by who reads it,
// and by setDirect(false).
func (l *link) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.direct || l.raw == nil {
		return l.block(p)
	}
	l.tryRest()
	n := 0
	if len(l.rest) == 0 {
		n = l.try(p)
	}
	l.rest = append(l.rest, p[n:]...)
	return len(p), nil
}

// setDirect chooses how Write works from now on. To block from now on begins with writing the rest.
func (l *link) setDirect(direct bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.direct = direct
	if direct {
		return nil
	}
	rest := l.rest
	l.rest = nil
	_, err := l.block(rest)
	return err
}

// retry tries to write the rest and tells whether nothing remains.
func (l *link) retry() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tryRest()
	return len(l.rest) == 0
}

// pending tells whether something remains.
func (l *link) pending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.rest) > 0
}

func (l *link) block(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if l.raw == nil {
		if err := l.Conn.SetWriteDeadline(time.Now().Add(foreignWriteTimeout)); err != nil {
			return 0, err
		}
	}
	return l.Conn.Write(p)
}

func (l *link) tryRest() {
	if len(l.rest) > 0 {
		l.rest = l.rest[:copy(l.rest, l.rest[l.try(l.rest):])]
	}
}

// try gives p to the kernel and returns how much it took.
func (l *link) try(p []byte) int {
	l.out, l.taken = p, 0
	_ = l.raw.Write(l.attempt) // it fails when the connection is closed, and then nothing was taken
	l.out = nil
	return l.taken
}

// tryOnce tells the runtime that it is done, whatever was written, so that nothing is parked. mu is held.
func (l *link) tryOnce(fd uintptr) bool {
	for {
		n, err := socket.Write(int(fd), l.out)
		if err == syscall.EINTR {
			continue
		}
		l.taken = n
		return true
	}
}
