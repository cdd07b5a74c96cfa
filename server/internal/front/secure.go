package front

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/latchkey-go/latchkey/server/internal/socket"
)

// beneath is the socket below TLS, which makes the reads and writes of TLS ones that are only tried. It is what the
// NetConn of a connection returns; gate.Socket is one. A connection without it is served as well, but holds a buffer
// while it waits, and every write of it has a goroutine.
type beneath interface {
	syscall.Conn
	TryRead(fd uintptr) // reads are tried on fd until EndRead
	EndRead()
	Direct() bool // writes never wait from now on, if it is true
	Pending() bool
	Wait() error // writes wait again, the first for the rest of those that did not
}

// secured is a connection with TLS.
type secured interface {
	net.Conn
	ConnectionState() tls.ConnectionState
	NetConn() net.Conn
}

// recordBytes is what is written at a time: one record of TLS, and one system call.
const recordBytes = 16 << 10

// identify tells who is at the other side of a connection.
func identify(nc net.Conn) *peer.Peer {
	p := &peer.Peer{Addr: nc.RemoteAddr(), LocalAddr: nc.LocalAddr()}
	if t, ok := nc.(secured); ok {
		p.AuthInfo = credentials.TLSInfo{
			State:          t.ConnectionState(),
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}
	}
	return p
}

// dig finds the socket of a connection.
func (c *conn) dig() {
	from := any(c.net)
	if t, ok := c.net.(secured); ok {
		if c.below, ok = t.NetConn().(beneath); !ok {
			return
		}
		from = c.below
	}
	if sc, ok := from.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
}

// readNow reads what is there. It answers EAGAIN when that is nothing.
func (c *conn) readNow(fd uintptr, p []byte) (int, error) {
	if c.below == nil {
		return socket.Read(int(fd), p)
	}
	c.below.TryRead(fd)
	n, err := c.net.Read(p)
	c.below.EndRead()
	var waits interface{ Temporary() bool }
	switch {
	case n > 0:
		return n, nil // an error comes again
	case err == io.EOF:
		return 0, nil
	case errors.As(err, &waits) && waits.Temporary():
		return 0, syscall.EAGAIN
	}
	return n, err
}

// writeNow is tryWrite over TLS. What the socket did not take stays with it, encrypted; drain goes on from there.
func (c *conn) writeNow(b []byte) (n int, err error) {
	if !c.below.Direct() {
		return 0, nil
	}
	for n < len(b) {
		k, err := c.net.Write(b[n:min(n+recordBytes, len(b))])
		if n += k; err != nil {
			return n, err
		}
		if c.below.Pending() {
			break
		}
	}
	return n, nil
}

// silence makes what is still written not wait: only the goodbye of TLS is to come.
func (c *conn) silence() {
	if c.below != nil {
		c.below.Direct()
	}
}

// settled reports whether nothing of a write over TLS waits for the socket.
func (c *conn) settled() bool { return c.below == nil || !c.below.Pending() }

// hurry bounds how long a write of somebody else keeps whoever ends the connection: TLS has to say goodbye, which
// comes after it.
func (c *conn) hurry(d time.Duration) {
	if c.below != nil {
		_ = c.net.SetWriteDeadline(time.Now().Add(d))
	}
}
