package front

// Taker is what a stream of a Server offers beyond [grpc.ServerStream] to handlers that wait for more than its messages:
// without it they would need a goroutine that waits in RecvMsg.
type Taker interface {
	// Arrived delivers a signal when there may be something to take, or the client has nothing more to say. One signal
	// stands for all that came before it is received, so whoever receives it takes until there is nothing. What came
	// before the first call may have had its signal already.
	Arrived() <-chan struct{}
	// TryRecvMsg is RecvMsg, but does not wait: it reports whether there was a message.
	TryRecvMsg(m any) (bool, error)
}

var _ Taker = (*callStream)(nil)

// Arrived implements Taker.
func (s *callStream) Arrived() <-chan struct{} { return s.h.arrived }

// TryRecvMsg implements Taker.
func (s *callStream) TryRecvMsg(m any) (bool, error) {
	h := s.h
	body, compressed, granted, err := h.take()
	if granted {
		h.st.c.flush()
	}
	if err == nil && body == nil {
		return false, nil
	}
	if err == nil {
		err = h.decode(body, compressed, m)
	}
	if err != nil {
		return false, h.fault(err)
	}
	h.st.head.method.counts.received.Add(1)
	return true, nil
}
