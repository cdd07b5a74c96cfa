package front

import (
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// codesMax is the number of gRPC's codes; others count as Unknown.
const codesMax = int(codes.Unauthenticated) + 1

// MethodStats counts the calls of one method since the start.
type MethodStats struct {
	Service, Method string
	Type            string // "unary", "client_stream", "server_stream" or "bidi_stream"
	Started         uint64
	Received, Sent  uint64 // messages
	Handled         [codesMax]uint64
}

// Stats counts what a server has done since its start, and has now.
type Stats struct {
	Connections              int
	BytesReceived, BytesSent uint64 // on connections of HTTP/2, frames included
	Methods                  []MethodStats
}

// counts are MethodStats in the making. Messages are those of streams: a unary call has one each way, or none back.
type counts struct {
	started, received, sent atomic.Uint64
	handled                 [codesMax]atomic.Uint64
}

func (c *counts) handledWith(code codes.Code) {
	if int(code) >= codesMax {
		code = codes.Unknown
	}
	c.handled[code].Add(1)
}

// traffic counts the bytes of all connections.
type traffic struct{ received, sent atomic.Uint64 }

// Stats returns the counts so far. Methods are in no order.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	out := Stats{Connections: len(s.conns)}
	s.mu.Unlock()
	out.BytesReceived, out.BytesSent = s.traffic.received.Load(), s.traffic.sent.Load()
	for _, m := range s.methods {
		c := &m.counts
		ms := MethodStats{
			Service: m.name[0], Method: m.name[1], Type: m.kind,
			Started: c.started.Load(), Received: c.received.Load(), Sent: c.sent.Load(),
		}
		for i := range c.handled {
			ms.Handled[i] = c.handled[i].Load()
		}
		if m.stream == nil {
			ms.Received, ms.Sent = ms.Started, ms.Handled[codes.OK]
		}
		out.Methods = append(out.Methods, ms)
	}
	return out
}

// begun counts the begin of a call. mu is held.
func (st *stream) begun() {
	m := st.head.method
	if m == nil {
		return
	}
	m.counts.started.Add(1)
	if st.c.s.cfg.Observe != nil {
		st.began = time.Now()
	}
}

// ended counts the end of a call. It is called once for each. mu is held.
func (st *stream) ended() {
	m := st.head.method
	if m == nil {
		return
	}
	code := codes.Canceled // nobody waits for it any more
	if st.out.status != nil {
		code = st.out.status.Code()
	}
	m.counts.handledWith(code)
	if f := st.c.s.cfg.Observe; f != nil {
		f(m.kind, m.name[0], m.name[1], time.Since(st.began))
	}
}
