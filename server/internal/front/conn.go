package front

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/peer"
)

const (
	readBufferBytes = 32 << 10 // more than the largest frame
	// streamsMax bounds the calls of one connection that are under way, if Config.MaxStreams does not.
	streamsMax = 10_000
	// greetTimeout bounds the wait for a client's first frames.
	greetTimeout = 10 * time.Second // unless Config.GreetTimeout says otherwise
	// lingerTimeout bounds the wait for a client to hang up after the last answer was sent.
	lingerTimeout = time.Second
	// heldMaxBytes bounds what the calls of a connection have received and not consumed, in all. A call that goes
	// beyond is refused.
	heldMaxBytes = 256 << 20
	// continuationsMax bounds the frames of a header block, which may be empty.
	continuationsMax = 64
	// windowChangesMax bounds how often a client may change the window of all its streams: each is work for all.
	windowChangesMax = 1000
)

// conn is one connection. Its reader owns what mu does not protect.
type conn struct {
	s      *Server
	net    net.Conn
	raw    syscall.RawConn // nil when it is no socket; then drain writes everything
	below  beneath         // the socket, if TLS is over it
	ctx    context.Context // ends with the connection
	cancel context.CancelCauseFunc
	reader
	writer
}

// reader is what the connection's reader owns.
type reader struct {
	headers  *headers
	in       []byte // in[start:end] is read and not parsed; nil while nothing is
	start    int
	end      int
	ready    func(fd uintptr) bool // readReady, made once
	readN    int
	readErr  error
	greeted  bool // the client's first SETTINGS came
	block    []byte
	open     frameHeader // of the header block that continues; stream 0 for none
	pieces   int         // CONTINUATION frames of it
	lastID   uint32      // the highest stream that the client has opened
	changes  int         // of the initial window
	uncount  int64       // bytes of DATA that were received and not given back to the connection's window
	pings    pings
	calls    Batch      // answers given while reading
	tasks    []pipeTask // scratch
	directed bool       // a Direct method ran
	full     bool       // so much was answered that it has to be written before the next frame
}

// writer is what the writing side shares with all who answer.
type writer struct {
	mu         sync.Mutex // protects the rest
	streams    map[uint32]*stream
	orphans    int // calls under way that are not in streams any more: their client gave them up
	carried    int // calls on pipes that somebody is at, those among them that were given up
	held       int // bytes received and not consumed, on all streams
	unsent     int // bytes of DATA that wait for a window or for room, on all streams
	out, spare []byte
	write      attempt // whoever set writing owns it
	scratch    []byte
	answers    table
	sendWindow int64
	initial    int64 // of each new stream's window for sending
	maxFrame   int
	queues
	writing bool // a goroutine writes; what is added to out is its job too
	listed  bool // in a Batch that will flush
	acks    acks
	spoken  spoken
	ending
}

// queues is what waits to become part of out.
type queues struct {
	pipes   []*pipe       // have something to say that is no message yet
	waiting []*stream     // have something to send, and wait for the connection's window or for room
	roomy   chan struct{} // a token when what waits has become less
}

// ending is how far a connection is with its end.
type ending struct {
	leaving  bool   // the first GOAWAY was sent
	left     bool   // and the second: no call begins any more, and the connection ends with the last
	leftID   uint32 // the last call that the second one promises to serve
	departed bool   // all is said
	aborted  bool   // the reader is to end the connection
	closed   bool
}

var buffers = sync.Pool{New: func() any { return new([readBufferBytes]byte) }}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, net: nc}
	c.streams = make(map[uint32]*stream)
	c.roomy = make(chan struct{}, 1)
	c.write.ready = c.write.try
	c.sendWindow, c.initial, c.maxFrame = defaultWindowBytes, defaultWindowBytes, maxFrameBytes
	c.headers = newHeaders(s)
	c.dig()
	c.ready = c.readReady
	ctx := peer.NewContext(s.ctx, identify(nc))
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// Why a connection, and each call on it, is over.
var (
	errClientGone = errors.New("the client's connection is over")
	errStalled    = errors.New("the client does not read")
)

// serve reads until the connection is over, and reports whether it is: it goes on elsewhere if it is none of HTTP/2. All
// that runs for it has been told when it returns.
func (c *conn) serve() (over bool) {
	err := c.read()
	if errors.Is(err, errOther) && c.handOver() {
		return false
	}
	var bad *connError
	c.mu.Lock()
	if errors.As(err, &bad) && !c.closed {
		last := c.lastID
		if c.left {
			last = c.leftID
		}
		c.out = appendGoAway(c.out, last, bad.code, bad.reason)
	}
	c.mu.Unlock()
	if bad != nil {
		c.flush()
		c.linger()
	}
	c.close()
	c.releaseBuffer()
	return true
}

// close ends the connection and every call on it.
func (c *conn) close() {
	c.hurry(0)
	c.silence()
	_ = c.net.Close()
	c.mu.Lock()
	streams := c.streams
	c.streams, c.closed = nil, true
	if c.acks.timer != nil {
		c.acks.timer.Stop()
	}
	c.out, c.waiting = nil, nil
	for _, st := range streams {
		st.gone.Store(true)
		st.ended()
		if st.pipe != nil {
			st.pipe.abandon()
		}
	}
	c.mu.Unlock()
	c.cancel(errClientGone)
}

func (c *conn) read() error {
	if err := c.preface(); err != nil {
		return err
	}
	for {
		more, err := c.frames()
		if c.directed { // whatever comes next: who was asked waits for the turn
			c.directed = false
			c.s.cfg.Turn()
		}
		c.calls.Flush()
		if err != nil {
			return err
		}
		if c.flush() {
			if err := c.awaitRoom(); err != nil {
				return err
			}
		}
		if more {
			continue
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// preface takes the client's preface and sends our settings.
func (c *conn) preface() error {
	if err := c.sniff(); err != nil {
		return err
	}
	c.mu.Lock()
	const settings = 4
	c.out = appendFrameHeader(c.out, settings*6, frameSettings, 0, 0)
	c.out = appendSetting(c.out, settingMaxStreams, uint32(c.s.cfg.MaxStreams))
	c.out = appendSetting(c.out, settingInitialWindow, streamWindowBytes)
	c.out = appendSetting(c.out, settingMaxFrame, maxFrameBytes)
	c.out = appendSetting(c.out, settingHeaderList, maxHeaderBytes)
	c.out = appendWindowUpdate(c.out, 0, connWindowBytes-defaultWindowBytes)
	c.spoken = spokenHTTP2
	c.mu.Unlock()
	c.flush()
	c.start += len(preface)
	return nil
}

// fill reads more. While it waits for a socket it holds no buffer, unless there is a part of a frame in it.
func (c *conn) fill() error {
	if c.start > 0 && c.end > c.start {
		c.end = copy(c.in, c.in[c.start:c.end])
		c.start = 0
	}
	if c.raw == nil {
		c.takeBuffer()
		n, err := c.net.Read(c.in[c.end:])
		c.s.traffic.received.Add(uint64(n))
		c.end += n
		if n > 0 {
			return nil
		}
		return err
	}
	if err := c.raw.Read(c.ready); err != nil {
		return err
	}
	if c.readErr != nil {
		return c.readErr
	}
	if c.readN == 0 {
		return io.EOF
	}
	c.end += c.readN
	c.s.traffic.received.Add(uint64(c.readN))
	return nil
}

// readReady is called with the socket's descriptor, and returns false to be called again when there is something.
func (c *conn) readReady(fd uintptr) bool {
	c.takeBuffer()
	for {
		n, err := c.readNow(fd, c.in[c.end:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			c.releaseBuffer()
			return false
		}
		c.readN, c.readErr = n, err
		return true
	}
}

func (c *conn) takeBuffer() {
	if c.in == nil {
		c.in = buffers.Get().(*[readBufferBytes]byte)[:]
		c.start, c.end = 0, 0
	}
}

func (c *conn) releaseBuffer() {
	if c.in != nil && c.start == c.end {
		buffers.Put((*[readBufferBytes]byte)(c.in))
		c.in = nil
	}
}

// leavePing is the content of the ping that leave sends: eight bytes.
const leavePing = "goodbye!"

// linger lets the client read what was written before the socket is closed, which would throw it away.
func (c *conn) linger() {
	c.hurry(lingerTimeout)
	if half, ok := c.net.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = c.net.SetReadDeadline(time.Now().Add(lingerTimeout))
		_, _ = io.Copy(io.Discard, c.net)
	}
}

// leave asks the client to go elsewhere, and ends the connection when its calls are over (RFC 9113, 6.8). Calls that are
// on their way are still served. The answer to the ping tells that the client has read the first GOAWAY; the second
// then says which calls were the last. A client that has said nothing yet is sent away without a word, and the server of
// HTTP/1 leaves its own.
func (c *conn) leave() {
	c.mu.Lock()
	switch {
	case c.leaving || c.closed:
	case c.spoken == spokenNothing:
		c.leaving = true
		c.abort()
	case c.spoken == spokenHTTP2:
		c.leaving = true
		c.out = appendGoAway(c.out, maxStreamID, codeNone, "graceful_stop")
		c.out = appendPing(c.out, 0, []byte(leavePing))
		for _, st := range c.streams {
			if st.pipe != nil {
				st.pipe.leave()
			}
		}
	}
	c.mu.Unlock()
	c.flush()
}
