package gate

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/latchkey-go/latchkey/server/internal/socket"
)

// ErrWait is what a tried read says when there is nothing to read. It is temporary: TLS goes on after it.
var ErrWait net.Error = waitError{}

type waitError struct{}

func (waitError) Error() string   { return "nothing to read yet" }
func (waitError) Timeout() bool   { return true }
func (waitError) Temporary() bool { return true }

// Socket is a connection that was counted. By itself it is like the connection it was made of. For TLS on top of it, which
// knows nothing of reads and writes that are only tried, it can do those in its place: a read between TryRead and
// EndRead does not wait but says ErrWait; and while it is direct, a Write hands the kernel what that takes at once and
// keeps the rest until it is direct no more.
type Socket struct {
	net.Conn
	raw  syscall.RawConn // nil if it is no socket of the system: nothing is tried then
	once sync.Once
	gone func() // called once, when it is closed

	beneath bool // TLS; immutable once Accept has returned it
	fd      int  // while a read is only tried, else -1; owned by the reader

	mu     sync.Mutex // protects the rest, and is held while writing
	direct bool
	rest   []byte // what the kernel did not take yet
	out    []byte // of the attempt under way
	taken  int
	failed error
	ready  func(fd uintptr) bool // attempt, made once
}

func newSocket(c net.Conn, gone func()) *Socket {
	s := &Socket{Conn: c, gone: gone, fd: -1}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	s.ready = s.attempt
	return s
}

// errNoSocket answers what needs the system's own socket where there is none.
var errNoSocket = errors.New("the connection is no socket")

// SyscallConn implements syscall.Conn.
func (s *Socket) SyscallConn() (syscall.RawConn, error) {
	if s.raw == nil {
		return nil, errNoSocket
	}
	return s.raw, nil
}

// Close closes the connection, whoever is at it.
func (s *Socket) Close() error {
	err := s.Conn.Close()
	s.once.Do(s.gone)
	return err
}

// CloseWrite tells the other side that nothing more comes.
func (s *Socket) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// TryRead has the reads that follow, until EndRead, tried on fd, which must be the connection's own.
func (s *Socket) TryRead(fd uintptr) { s.fd = int(fd) }

// EndRead ends what TryRead began.
func (s *Socket) EndRead() { s.fd = -1 }

// Read is the connection's, or tried: see TryRead.
func (s *Socket) Read(p []byte) (int, error) {
	if s.fd < 0 {
		return s.Conn.Read(p)
	}
	for {
		n, err := socket.Read(s.fd, p)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, ErrWait
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// peek waits for the first byte, and leaves it.
func (s *Socket) peek() (first byte, err error) {
	if s.raw == nil {
		return 0, errNoSocket
	}
	var b [1]byte
	var n int
	failed := s.raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
			if err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	switch {
	case failed != nil:
		return 0, failed
	case err == nil && n == 0:
		return 0, io.EOF
	}
	return b[0], err
}

// Direct makes writes not wait from now on, and tells whether that is possible.
func (s *Socket) Direct() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.direct = s.beneath && s.raw != nil
	return s.direct
}

// Wait makes writes wait from now on, and begins with the rest of those that did not.
func (s *Socket) Wait() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.direct = false
	rest := s.rest
	s.rest = nil
	if s.failed != nil || len(rest) == 0 {
		return s.failed
	}
	_, s.failed = s.Conn.Write(rest)
	return s.failed
}

// Pending tells whether a direct write has left something, or has failed, which Wait then tells.
func (s *Socket) Pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rest) > 0 || s.failed != nil
}

// Write never waits and never fails while the socket is direct.
func (s *Socket) Write(p []byte) (int, error) {
	if !s.beneath {
		return s.Conn.Write(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.direct && s.failed != nil:
		return 0, s.failed
	case !s.direct:
		n, err := s.Conn.Write(p)
		s.failed = err
		return n, err
	case s.failed != nil:
		return len(p), nil
	}
	n := 0
	if len(s.rest) == 0 {
		n = s.try(p)
	}
	s.rest = append(s.rest, p[n:]...)
	return len(p), nil
}

// try gives p to the kernel and returns how much it took. mu is held.
func (s *Socket) try(p []byte) int {
	s.out, s.taken = p, 0
	if err := s.raw.Write(s.ready); err != nil {
		s.failed = err
	}
	s.out = nil
	return s.taken
}

// attempt is called with the descriptor, and never asks to be called again.
func (s *Socket) attempt(fd uintptr) bool {
	for s.taken < len(s.out) {
		n, err := socket.Write(int(fd), s.out[s.taken:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			s.failed = err
			return true
		}
		s.taken += n
	}
	return true
}
