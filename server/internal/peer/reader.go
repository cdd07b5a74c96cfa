package peer

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"time"
)

const (
	readBytes = 64 << 10 // the buffer of a connection while its frames are small
	readCalm  = 16       // so many small frames make a larger buffer shrink
)

// reader cuts what arrives on a connection into frames. One goroutine owns it.
type reader struct {
	conn    net.Conn
	silence time.Duration // what arrives must not pause for longer; 0: it may
	limit   int           // of a body, besides that of its kind

	buf  []byte // buf[r:w] has arrived and was not handed out
	r, w int
	calm int // small frames in a row since the buffer grew

	deadline time.Time // the one that is set
}

// line reads the text before the first newline, which must come within limit bytes.
func (r *reader) line(limit int) (string, error) {
	for {
		if n := bytes.IndexByte(r.buf[r.r:r.w], '\n'); n >= 0 && n < limit {
			text := string(r.buf[r.r : r.r+n])
			r.r += n + 1
			return text, nil
		} else if r.w-r.r >= limit {
			return "", errStranger
		}
		if err := r.fill(1); err != nil {
			return "", err
		}
	}
}

// next returns the next frame. The body is valid until the next call. io.EOF is the connection's end between two frames.
func (r *reader) next() (frameKind, []byte, error) {
	if err := r.need(headerBytes); err != nil {
		return 0, nil, err
	}
	kind, n, sum, err := parseHeader(r.buf[r.r:r.r+headerBytes], r.limit)
	if err != nil {
		return 0, nil, err
	}
	if err := r.need(headerBytes + n); err != nil {
		return 0, nil, err
	}
	body := r.buf[r.r+headerBytes : r.r+headerBytes+n]
	r.r += headerBytes + n
	r.calm++
	if n > readBytes-headerBytes {
		r.calm = 0
	}
	if crc32.Checksum(body, castagnoli) != sum {
		return 0, nil, errChecksum
	}
	return kind, body, nil
}

// more tells whether a part of the next frame is here already.
func (r *reader) more() bool { return r.w > r.r }

// need waits until n bytes are there.
func (r *reader) need(n int) error {
	if r.w-r.r >= n {
		return nil
	}
	if err := r.fill(n); err != nil {
		return err
	}
	for r.w-r.r < n {
		if err := r.read(); err != nil {
			return err
		}
	}
	return nil
}

// fill makes room for n bytes and reads once, as much as the buffer takes: one system call brings many small frames.
func (r *reader) fill(n int) error {
	size := max(n, readBytes)
	// A buffer for a frame of the largest size is not kept; one for a full frame is kept as long as such frames come.
	shrink := len(r.buf) > readBytes && (r.calm >= readCalm || len(r.buf) > 2*frameSoftBytes)
	switch {
	case len(r.buf) < n || shrink && r.w-r.r <= size && size < len(r.buf):
		next := make([]byte, size)
		r.w = copy(next, r.buf[r.r:r.w])
		r.buf, r.r = next, 0
	case r.r == r.w:
		r.r, r.w = 0, 0
	case len(r.buf)-r.r < n || r.w == len(r.buf):
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	return r.read()
}

// extend moves the deadline, which is a timer, only once a quarter of its time has passed: until then silence is up to
// a quarter shorter than it may be.
func (r *reader) extend() error {
	if r.silence <= 0 {
		return nil
	}
	now := time.Now()
	if r.deadline.Sub(now) > r.silence*3/4 {
		return nil
	}
	r.deadline = now.Add(r.silence)
	return r.conn.SetReadDeadline(r.deadline)
}

func (r *reader) read() error {
	if err := r.extend(); err != nil {
		return err
	}
	n, err := r.conn.Read(r.buf[r.w:])
	r.w += n
	switch {
	case n > 0: // an error comes again
		return nil
	case err == nil:
		return io.ErrNoProgress
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSilent
	case err == io.EOF && r.w > r.r:
		return io.ErrUnexpectedEOF
	case err == io.EOF:
		return err
	}
	return fmt.Errorf("read: %w", err)
}
